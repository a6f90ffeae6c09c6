"""Exact match of dictionary forms: "на столе" is no "стол", but "красная" is "красный".

Our measure for Russian beside lmms-eval's `exact_match`, which tells inflected forms apart; the Russian project counts
answers so. Upstream harnesses have nothing like it, so it is always reported under a name of its own.
"""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache

from lorgnette.errors import MissingExtra

NOTE = "pymorphy3: the first normal form of every word; lower case, Unicode punctuation deleted, ё as е"


def lemma_match(answer: str, reference: str | Sequence[str]) -> float:
    """Return 1.0 if answer and reference, or one of them, have the same normal forms in the same order, else 0.0.

    What `exact_match` calls equal is equal here, too.

    Raises:
        MissingExtra: if pymorphy3 is not installed.
    """
    references = (reference,) if isinstance(reference, str) else reference
    return float(lemmas(answer) in [lemmas(text) for text in references])


def lemmas(text: str) -> list[str]:
    """Return the normal forms of a text's words; words of other languages stay as they are.

    Raises:
        MissingExtra: if pymorphy3 is not installed.
    """
    kept = "".join(letter for letter in text.lower() if not _is_punctuation(letter))
    return [_normal_form()(word).replace("ё", "е") for word in kept.split()]


def _is_punctuation(letter: str) -> bool:
    return letter in string.punctuation or unicodedata.category(letter).startswith("P")


@cache
def _normal_form() -> Callable[[str], str]:
    try:
        from pymorphy3 import MorphAnalyzer  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtra("pymorphy3", "metrics") from error
    analyzer = MorphAnalyzer(lang="ru")

    @cache  # a benchmark asks for the same few thousand words
    def normal_form(word: str) -> str:
        return str(analyzer.parse(word)[0].normal_form)

    return normal_form
