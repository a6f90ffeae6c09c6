"""BLEU-1..4, ROUGE-L and METEOR 1.5 as coco-caption computes them (pycocoevalcap/bleu, /rouge, /meteor).

They differ from sacreBLEU and rouge-score in tokens, smoothing and in how several references are used; tables of
captioning papers have these.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

ORDERS = 4
SMALL, TINY = 1e-9, 1e-15
BETA = 1.2
METEOR = {"alpha": 0.85, "beta": 0.2, "gamma": 0.6, "delta": 0.75}
METEOR_STAGES = (1.0, 0.6, 0.8, 0.6)
"""METEOR's parameters for English, and what a match is worth: exact, stem, synonym, paraphrase."""


def bleu_statistics(candidate: str, references: Sequence[str]) -> list[float]:
    """Return what a caption adds to a corpus's BLEU: length, reference length, then matches and n-grams of each order.

    The reference length is the one closest to the caption's, the shorter of two as close.
    """
    length = len(candidate.split())
    closest = min((abs(len(text.split()) - length), len(text.split())) for text in references)[1]
    statistics = [float(length), float(closest)]
    for n in range(1, ORDERS + 1):
        most: Counter[tuple[str, ...]] = Counter()
        for text in references:
            most |= _ngrams(text, n)
        found = _ngrams(candidate, n)
        statistics += [float(sum((found & most).values())), float(max(0, length - n + 1))]
    return statistics


def bleu_from_statistics(statistics: Sequence[float], order: int) -> float:
    """Return BLEU of an order from (summed) statistics; coco-caption's two small constants keep it defined."""
    length, closest = statistics[0], statistics[1]
    product = 1.0
    for n in range(order):
        product *= (statistics[2 + 2 * n] + TINY) / (statistics[3 + 2 * n] + SMALL)
    ratio = (length + TINY) / (closest + SMALL)
    return float(product ** (1 / order) * (math.exp(1 - 1 / ratio) if ratio < 1 else 1.0))


def rouge_l(candidate: str, references: Sequence[str]) -> float:
    """Return ROUGE-L of a caption: F with beta 1.2 of the best precision and the best recall, each over references."""
    words = candidate.split(" ")
    common = [(_longest_common(words, text.split(" ")), len(text.split(" "))) for text in references]
    precision = max(length for length, _ in common) / len(words)
    recall = max(length / of for length, of in common)
    if not precision or not recall:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def meteor_from_statistics(statistics: Sequence[float]) -> float:
    """Return METEOR 1.5 from the (summed) statistics that its program prints.

    They are: length of the caption and of the reference, function words of each, for every stage the matched content
    words of each and function words of each, chunks, matched words of each (Denkowski and Lavie 2014).
    """
    ours, theirs, our_function, their_function, *stages, chunks, our_matches, their_matches = statistics
    delta = METEOR["delta"]
    precision, recall = (
        _share(
            sum(
                weight * (delta * stages[4 * stage + side] + (1 - delta) * stages[4 * stage + 2 + side])
                for stage, weight in enumerate(METEOR_STAGES)
            ),
            delta * (length - function) + (1 - delta) * function,
        )
        for side, (length, function) in enumerate(((ours, our_function), (theirs, their_function)))
    )
    if not precision or not recall:
        return 0.0
    mean = 1 / ((1 - METEOR["alpha"]) / precision + METEOR["alpha"] / recall)
    whole = chunks == 1 and our_matches == ours and their_matches == theirs
    broken = 0.0 if whole else _share(chunks, (our_matches + their_matches) / 2)
    return float(mean * (1 - METEOR["gamma"] * broken ** METEOR["beta"]))


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _ngrams(text: str, n: int) -> Counter[tuple[str, ...]]:
    words = text.split()
    return Counter(tuple(words[at : at + n]) for at in range(len(words) - n + 1))


def _longest_common(a: Sequence[str], b: Sequence[str]) -> int:
    """Return the length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for word in a:
        corner = 0
        for at, other in enumerate(b, start=1):
            corner, row[at] = row[at], corner + 1 if word == other else max(row[at], row[at - 1])
    return row[-1]
