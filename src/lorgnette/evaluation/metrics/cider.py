"""CIDEr-D and CIDEr: how much a caption says of what people say about this image and not about the others.

Vedantam, Zitnick and Parikh 2015 (arxiv.org/abs/1411.5726). What papers call CIDEr is CIDEr-D as coco-caption computes
it (pycocoevalcap/cider/cider_scorer.py), and so is what `cider(...)` gives. Tables print it times 100.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

ORDERS = 4
HIGHEST = 10.0
"""coco-caption multiplies the mean over orders, a cosine, by this."""
SIGMA = 6.0
"""Width of the penalty on length; lengths are numbers of bigrams, as in coco-caption."""

Ngram = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Caption:
    """A caption as TF-IDF vectors, one an order, with their norms and its number of bigrams."""

    vectors: tuple[dict[Ngram, float], ...]
    norms: tuple[float, ...]
    length: int


def cider(candidates: Sequence[str], references: Sequence[Sequence[str]], *, plain: bool = False) -> list[float]:
    """Score one caption an image, from 0 to 10; the corpus's score is the mean.

    Words count by their rarity among the images' reference sets, so a score belongs to this set of images: that of a
    part of it is another, and with one image, or where every image shares every word, all are 0.

    Args:
        candidates: one caption an image, tokens joined by spaces.
        references: the captions that people wrote for it, tokenised alike.
        plain: CIDEr instead of CIDEr-D: counts are not clipped and length is not penalised.
    """
    counted = [[_ngrams(text) for text in texts] for texts in references]
    images = Counter(ngram for texts in counted for ngram in set().union(*texts))
    rarity = {ngram: math.log(len(references)) - math.log(times) for ngram, times in images.items()}
    unseen = math.log(len(references)) if references else 0.0
    scores = []
    for candidate, texts in zip(candidates, counted, strict=True):
        caption = _weighed(_ngrams(candidate), rarity, unseen)
        similar = [_similarity(caption, _weighed(text, rarity, unseen), plain) for text in texts]
        scores.append(HIGHEST * sum(similar) / len(similar))
    return scores


def _ngrams(text: str) -> Counter[Ngram]:
    words = text.split()
    return Counter(tuple(words[at : at + n]) for n in range(1, ORDERS + 1) for at in range(len(words) - n + 1))


def _weighed(counts: Counter[Ngram], rarity: dict[Ngram, float], unseen: float) -> _Caption:
    vectors: tuple[dict[Ngram, float], ...] = tuple({} for _ in range(ORDERS))
    for ngram, count in counts.items():
        vectors[len(ngram) - 1][ngram] = count * rarity.get(ngram, unseen)
    norms = tuple(math.sqrt(sum(weight * weight for weight in vector.values())) for vector in vectors)
    return _Caption(vectors, norms, sum(count for ngram, count in counts.items() if len(ngram) == 2))


def _similarity(a: _Caption, b: _Caption, plain: bool) -> float:
    """Return the mean over orders of the cosine, clipped and penalised unless plain."""
    total = 0.0
    for one, other, norm, other_norm in zip(a.vectors, b.vectors, a.norms, b.norms, strict=True):
        shared = [(weight, other[ngram]) for ngram, weight in one.items() if ngram in other]
        product = sum((x if plain else min(x, y)) * y for x, y in shared)
        total += product / (norm * other_norm) if norm and other_norm else product
    penalty = 1.0 if plain else math.exp(-((a.length - b.length) ** 2) / (2 * SIGMA**2))
    return penalty * total / ORDERS
