"""Read the letter out of an answer by rule, and score MMBench's circular groups.

The rules are those of MMBench's own evaluator as lmms-eval carries it (lmms_eval/tasks/mmbench/mmbench_evals.py). Where
it would ask GPT, or at last draw a letter at random, an answer is unread here: wrong, and counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LETTERS = "ABCDE"
AROUND = (
    *(("", end) for end in (".", ",", ":", ")", ").")),
    *(("(", end) for end in (")", ").")),
    *((":", end) for end in ("", ",", ".", ")", ").")),
)
"""What may stand before and after a letter, in the order in which it is looked for."""

ALIKE = (("A", "А"), ("B", "В"), ("C", "С"), ("E", "Е"))
"""Capitals that look the same: Latin, Cyrillic."""

ARTICLE_WORDS = 3
"""In an answer of more words, a lone "A" is taken for the article."""

CIRCLE = 1_000_000
"""`index % CIRCLE` is a circular group; its main row is the one whose index is smaller."""


def read_choice(answer: str, choices: Mapping[str, str], letters: str = LETTERS, *, fold: bool = False) -> str | None:
    """Return the letter that an answer means, None if it cannot be read.

    A letter alone comes first, then one with punctuation around it, then the only option whose text is in the answer.
    Two different letters are unread, and so is a lower-case one.

    Args:
        choices: letter -> text of the options that there are.
        letters: the letters that the prompt uses; also those that this question does not have are read, as wrong.
        fold: read a capital of the other alphabet that looks like one of `letters`: А В С Е as A B C E, or the other
            way round where the prompt's letters are Cyrillic. Alone it must be the last word, because А, В and С are
            also Russian words (but, in, with).
    """
    words = answer.split()
    found = _letter(words, letters)
    if found is None and fold:
        found = _folded(words, letters)
    return _by_text(answer, choices) if found is None else found


def _letter(words: Sequence[str], letters: str) -> str | None:
    alone = _only(words, letters, "", "")
    if alone is not None and not (letters[0] in words and len(words) > ARTICLE_WORDS):
        return alone
    return _with_punctuation(words, letters)


def _with_punctuation(words: Sequence[str], letters: str) -> str | None:
    for before, after in AROUND:
        if (found := _only(words, letters, before, after)) is not None:
            return found
    return None


def _folded(words: Sequence[str], letters: str) -> str | None:
    """Read as `_letter`, with look-alikes of the letters in their place."""
    alike: dict[int, str] = {}
    for latin, cyrillic in ALIKE:
        if (latin in letters) != (cyrillic in letters):
            alike |= {ord(cyrillic): latin} if latin in letters else {ord(latin): cyrillic}
    translated = [word.translate(alike) for word in words]
    if (found := _with_punctuation(translated, letters)) is not None:
        return found
    return translated[-1] if translated and translated[-1] in tuple(letters) else None


def _only(words: Sequence[str], letters: str, before: str, after: str) -> str | None:
    found = [letter for letter in letters if f"{before}{letter}{after}" in words]
    return found[0] if len(found) == 1 else None


def _by_text(answer: str, choices: Mapping[str, str]) -> str | None:
    found = [letter for letter, text in choices.items() if text.lower() in answer.lower()]
    return found[0] if len(found) == 1 else None


@dataclass(frozen=True, slots=True)
class Circular:
    """Circular groups of a set of rows.

    Attributes:
        hits: main row's index -> 1.0 if every row of its group is right.
        incomplete: groups that have fewer rows than options; they are scored on the rows that there are.
        without_main: groups whose main row is missing; MMBench leaves them out, and so do we.
    """

    hits: Mapping[int, float]
    incomplete: int
    without_main: int


def circular(indices: Sequence[int], right: Sequence[bool], options: Sequence[int]) -> Circular:
    """Score circular groups: a question counts only if it is answered right in every order of its options.

    Args:
        indices: MMBench's `index` of every row.
        right: whether its answer is right.
        options: how many options it has, which is how many rows its group should have.
    """
    groups: dict[int, list[int]] = {}
    for place, index in enumerate(indices):
        groups.setdefault(index % CIRCLE, []).append(place)
    mains = {index for index in indices if index < CIRCLE}
    return Circular(
        hits={main: float(all(right[place] for place in groups[main])) for main in groups if main in mains},
        incomplete=sum(len(places) < options[places[0]] for places in groups.values()),
        without_main=len(groups.keys() - mains),
    )
