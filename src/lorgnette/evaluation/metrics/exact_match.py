"""Exact match, as lmms-eval computes it."""

from __future__ import annotations

import string
from collections.abc import Sequence

ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(answer: str, reference: str | Sequence[str]) -> float:
    """Return 1.0 if the answer is the reference, or one of them, but for case and ASCII punctuation, else 0.0.

    This is `exact_match` of lmms-eval (lmms_eval/api/metrics.py) with `ignore_case` and `ignore_punctuation`, as its
    GQA tasks set them: the answer is stripped, both texts are lowered, every character of `string.punctuation` is
    deleted. Spaces inside stay; «», — and ё are letters like others.
    """
    references = (reference,) if isinstance(reference, str) else reference
    return float(_plain(answer.strip()) in [_plain(text) for text in references])


def _plain(text: str) -> str:
    return text.lower().translate(ASCII_PUNCTUATION)
