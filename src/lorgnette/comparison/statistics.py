"""Paired statistics on plain arrays: is the difference real, and how large may it be?

Knows one-dimensional arrays of per-sample scores and nothing else. `before[i]` and `after[i]` are two answers
to the same question. What is hard for one model is often hard for the other, and pairing takes that out of
the noise, so nothing here accepts two lists that are not paired.

All functions treat the samples as independent. Several questions about one image are not quite that;
`cluster_factor` says by how much the true uncertainty is larger than what is computed here.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from lorgnette.errors import DataError
from lorgnette.evaluation.intervals import wilson_interval

Scores = npt.NDArray[np.float64]  # (N,), one score a sample

# Numbers held at once by a resampling loop: 2**21 float64 are 16 MiB, whatever N and `draws` are.
CHUNK_NUMBERS = 2**21
# Up to this many distinct differences, drawing their counts is cheaper than drawing N indices.
FEW_DISTINCT = 64
# A corpus metric is computed anew in every draw; a thousand draws move the ends of an interval by about a
# twentieth of its width, and the smallest p-value is 1/1001.
CORPUS_DRAWS = 1_000

Aggregate = Callable[[npt.NDArray[np.float64]], float]  # rows' parts (N, numbers) -> the corpus's value


class Interval(NamedTuple):
    """Both ends of a confidence interval, in the unit of the scores."""

    low: float
    high: float


def paired_bootstrap(
    before: npt.ArrayLike,
    after: npt.ArrayLike,
    *,
    draws: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Estimate a confidence interval of `mean(after - before)` by resampling the pairs.

    The percentile interval of Efron & Tibshirani, *An Introduction to the Bootstrap* (1993), ch. 13, on the
    paired differences, as Koehn, *Statistical Significance Tests for Machine Translation Evaluation* (EMNLP
    2004), resamples them. Under a few dozen samples it is too narrow, and where all differences are equal it
    has no width: it knows only what was sampled.

    Raises:
        DataError: no samples, different lengths, or a score that is not finite.
    """
    difference = _differences(before, after)
    means = np.concatenate(list(_resampled_means(difference, draws, np.random.default_rng(seed))))  # (draws,)
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return Interval(float(low), float(high))


def score_interval(scores: npt.ArrayLike, *, highest: float = 1.0, draws: int = 10_000, seed: int = 0) -> Interval:
    """Estimate the 95 % confidence interval of one model's mean score.

    Wilson's for 0/1 scores and for equal ones, which has a width also where all are right (see `wilson_interval`); for
    others the percentile bootstrap.

    Args:
        highest: the most that a sample can get.

    Raises:
        DataError: no scores, or one that is not finite.
    """
    values = _differences(np.zeros_like(np.asarray(scores, dtype=np.float64)), scores)
    wilson = wilson_interval(values, highest)
    if wilson is not None:
        return Interval(*wilson)
    return paired_bootstrap(np.zeros_like(values), values, draws=draws, seed=seed)


def mcnemar_exact(before: npt.ArrayLike, after: npt.ArrayLike) -> float:
    """Compute the exact two-sided McNemar p-value of paired 0/1 scores.

    Only the pairs that changed carry evidence: without a real difference each of them is a fair coin.
    McNemar, *Note on the sampling error of the difference between correlated proportions or percentages*
    (Psychometrika, 1947), in its exact binomial form; Dietterich (Neural Computation, 1998) recommends the
    test for two classifiers on one test set.

    Raises:
        DataError: no samples, different lengths, or a score other than 0 and 1.
    """
    difference = _differences(before, after)
    if not (_is_binary(before) and _is_binary(after)):
        raise DataError("McNemar's test needs scores of 0 or 1, and there are others. Next: use paired_permutation.")
    wins, losses = int(np.sum(difference > 0)), int(np.sum(difference < 0))
    if wins + losses == 0:
        return 1.0
    return float(binomtest(wins, wins + losses, 0.5).pvalue)


def paired_permutation(before: npt.ArrayLike, after: npt.ArrayLike, *, draws: int = 10_000, seed: int = 0) -> float:
    """Estimate the two-sided p-value of the mean difference by flipping its signs at random.

    Without a real difference, which of two scores came first is a coin toss (Good, *Permutation, Parametric,
    and Bootstrap Tests of Hypotheses*, 2005). p = (b + 1) / (m + 1), where b of m draws are at least as
    extreme as what was seen: never 0, and valid at any m (Phipson & Smyth, *Permutation P-values Should Never
    Be Zero*, 2010).

    Raises:
        DataError: no samples, different lengths, or a score that is not finite.
    """
    difference = _differences(before, after)
    difference = difference[difference != 0.0]  # a sign does not change a zero
    total = float(difference.sum())
    # Sums of the same numbers in another order differ in the last bits; a tie must still count as a tie.
    threshold = abs(total) - 1e-12 * float(np.abs(difference).sum())
    rng = np.random.default_rng(seed)
    extreme = 0
    for size in _chunks(draws, difference.size):
        positive = rng.integers(0, 2, size=(size, difference.size), dtype=np.int8)  # (size, N): sign +1 or -1
        flipped = 2.0 * (positive.astype(np.float64) @ difference) - total  # (size,)
        extreme += int(np.sum(np.abs(flipped) >= threshold))
    return (extreme + 1) / (draws + 1)


def p_value(before: npt.ArrayLike, after: npt.ArrayLike, *, draws: int = 10_000, seed: int = 0) -> float:
    """Compute the two-sided p-value with the test that `fitting_test` names.

    Raises:
        DataError: no samples, different lengths, or a score that is not finite.
    """
    if fitting_test(before, after) == "mcnemar":
        return mcnemar_exact(before, after)
    return paired_permutation(before, after, draws=draws, seed=seed)


def fitting_test(before: npt.ArrayLike, after: npt.ArrayLike) -> str:
    """Name the test that fits the scores: "mcnemar" if every one is 0 or 1, else "permutation" of signs."""
    return "mcnemar" if _is_binary(before) and _is_binary(after) else "permutation"


class CorpusEffect(NamedTuple):
    """A corpus metric of two models: both intervals, that of the difference, and its p-value."""

    before: Interval
    after: Interval
    difference: Interval
    p_value: float


def corpus_effect(
    aggregate: Aggregate, before: npt.ArrayLike, after: npt.ArrayLike, *, draws: int = CORPUS_DRAWS, seed: int = 0
) -> CorpusEffect:
    """Compare two models on a metric that is no mean of its rows, such as BLEU.

    Intervals: the metric is computed on resampled pairs of rows (Koehn 2004). p-value: approximate
    randomization, which swaps the two models' rows by coin tosses (Noreen, *Computer-Intensive Methods for
    Testing Hypotheses*, 1989; Riezler & Maxwell 2005 find it the safer of the two for BLEU).

    Args:
        aggregate: from rows' parts, (N, numbers), to the value of the corpus.
        before, after: (N, numbers), a row a document.

    Raises:
        DataError: no rows, different shapes, or a number that is not finite.
    """
    first, second = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    _differences(first.ravel(), second.ravel())  # refuses what is no pair
    rng, n = np.random.default_rng(seed), len(first)
    values = np.empty((draws, 2))  # of the two models in each resample
    for draw in range(draws):
        picked = rng.integers(0, n, n)
        values[draw] = aggregate(first[picked]), aggregate(second[picked])
    seen = abs(aggregate(second) - aggregate(first))
    extreme = 0
    for _ in range(draws):
        swapped = rng.integers(0, 2, size=(n, 1), dtype=np.int8).astype(bool)
        gap = aggregate(np.where(swapped, first, second)) - aggregate(np.where(swapped, second, first))
        extreme += abs(gap) >= seen - 1e-12 * max(1.0, seen)
    low, high = np.quantile(np.column_stack([values, values[:, 1] - values[:, 0]]), [0.025, 0.975], axis=0)
    one, other, difference = (Interval(float(a), float(b)) for a, b in zip(low, high, strict=True))
    return CorpusEffect(one, other, difference, (extreme + 1) / (draws + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values of one family of tests, so that any false alarm in it is as rare as promised.

    The step-down procedure of Holm, *A Simple Sequentially Rejective Multiple Test Procedure* (Scandinavian
    Journal of Statistics, 1979), in the form of adjusted p-values: the smallest times m, the next times m - 1,
    and so on, never below the one before and never above 1. Needs no independence.
    """
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, (len(p_values) - rank) * p_values[index])
        corrected[index] = min(1.0, largest)
    return corrected


def cluster_factor(before: npt.ArrayLike, after: npt.ArrayLike, clusters: Sequence[Hashable]) -> float:
    """Compute how many times wider an interval would be if clusters, such as images, were drawn, not samples.

    The square root of the design effect: the standard error of the mean difference that is robust to clusters
    (Liang & Zeger, Biometrika 1986, for a mean) over the one of independent samples. 1.0 where every sample is
    a cluster of its own, where nothing differs, or where there is one cluster only and nothing can be said.

    Raises:
        DataError: no samples, different lengths, or a score that is not finite.
    """
    difference = _differences(before, after)
    apart = difference - difference.mean()
    numbers: dict[Hashable, int] = {}
    index = np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters])
    independent = float(np.sum(apart**2))
    if len(numbers) in (1, difference.size) or independent == 0.0:
        return 1.0
    sums = np.bincount(index, weights=apart)  # (clusters,)
    correction = len(numbers) / (len(numbers) - 1) * (difference.size - 1) / difference.size
    return float(np.sqrt(correction * np.sum(sums**2) / independent))


def _differences(before: npt.ArrayLike, after: npt.ArrayLike) -> Scores:
    """Subtract paired scores, or say why they are no pairs."""
    first, second = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise DataError(
            f"Paired scores need two lists of the same length; got shapes {first.shape} and {second.shape}. "
            "Next: pair them by document id first."
        )
    if first.size == 0:
        raise DataError("There are no scores to compare. Next: evaluate at least one document.")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise DataError("A score is NaN or infinite. Next: look for it in predictions.jsonl.")
    return second - first


def _resampled_means(difference: Scores, draws: int, rng: np.random.Generator) -> Iterator[Scores]:
    """Yield the means of `draws` resamples with replacement, chunk by chunk.

    How often each distinct value occurs in a resample of N is multinomial(N, its share). Scores of 0 and 1
    have three distinct differences, so three numbers stand for N indices: exactly the same distribution, and
    faster.
    """
    values, counts = np.unique(difference, return_counts=True)
    if values.size <= FEW_DISTINCT:
        for size in _chunks(draws, values.size):
            drawn = rng.multinomial(difference.size, counts / difference.size, size=size)  # (size, distinct)
            yield drawn @ values / difference.size
        return
    for size in _chunks(draws, difference.size):
        yield difference[rng.integers(0, difference.size, size=(size, difference.size))].mean(axis=1)


def _chunks(draws: int, width: int) -> Iterator[int]:
    """Split `draws` rows of `width` numbers into sizes that fit in memory."""
    largest = max(1, CHUNK_NUMBERS // max(1, width))
    for start in range(0, draws, largest):
        yield min(largest, draws - start)


def _is_binary(scores: npt.ArrayLike) -> bool:
    """Tell whether every score is 0 or 1."""
    return bool(np.isin(np.asarray(scores, dtype=np.float64), (0.0, 1.0)).all())
