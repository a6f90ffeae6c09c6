"""Exact match after the least normalisation that lets an answer be written as a sentence."""

from __future__ import annotations


def exact_match(answer: str, reference: str) -> float:
    """Return 1.0 if the answer is the reference, but for case, outer white space and one full stop at the end."""
    return float(_normalised(answer) == _normalised(reference))


def _normalised(text: str) -> str:
    return text.strip().removesuffix(".").rstrip().casefold()
