"""The numbers against closed forms, against full enumeration, and against simulation."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest
from scipy.stats import binomtest

from lorgnette.comparison import statistics
from lorgnette.comparison.statistics import (
    mcnemar_exact,
    p_value,
    paired_bootstrap,
    paired_permutation,
)
from lorgnette.errors import DataError


def pairs(both: int, losses: int, wins: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    before = np.repeat([1.0, 1.0, 0.0, 0.0], [both, losses, wins, neither])
    after = np.repeat([1.0, 0.0, 1.0, 0.0], [both, losses, wins, neither])
    return before, after


def test_mcnemar_equals_the_value_computed_by_hand() -> None:
    # 2 * (C(10,0) + C(10,1)) / 2**10 = 22 / 1024
    assert mcnemar_exact(*pairs(5, 1, 9, 7)) == pytest.approx(0.021484375, abs=1e-15)


@pytest.mark.parametrize(("losses", "wins"), [(0, 1), (3, 3), (0, 12), (17, 40), (300, 200)])
def test_mcnemar_is_a_binomial_test_on_what_changed(losses: int, wins: int) -> None:
    expected = binomtest(losses, losses + wins, 0.5).pvalue
    assert mcnemar_exact(*pairs(11, losses, wins, 2)) == pytest.approx(expected, rel=1e-12)


def test_mcnemar_ignores_pairs_that_did_not_change() -> None:
    assert mcnemar_exact(*pairs(0, 2, 9, 0)) == mcnemar_exact(*pairs(500, 2, 9, 900))


def test_mcnemar_refuses_other_scores() -> None:
    with pytest.raises(DataError, match="paired_permutation"):
        mcnemar_exact([0.0, 0.5], [1.0, 1.0])


def test_bootstrap_of_many_pairs_is_the_normal_interval() -> None:
    before, after = pairs(900, 150, 700, 2250)
    difference = after - before
    error = float(difference.std()) / math.sqrt(difference.size)
    interval = paired_bootstrap(before, after)
    # The quantiles of 10,000 draws are off by about 2.7 % of a standard error.
    assert interval.low == pytest.approx(difference.mean() - 1.96 * error, abs=0.12 * error)
    assert interval.high == pytest.approx(difference.mean() + 1.96 * error, abs=0.12 * error)


def test_confidence_widens_the_interval() -> None:
    before, after = pairs(10, 5, 20, 15)
    narrow, wide = (paired_bootstrap(before, after, confidence=c) for c in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_drawing_counts_is_the_same_distribution_as_drawing_indices(monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = pairs(30, 10, 40, 20)
    counted = paired_bootstrap(before, after, draws=20_000)
    monkeypatch.setattr(statistics, "FEW_DISTINCT", 0)
    indexed = paired_bootstrap(before, after, draws=20_000)
    assert counted == pytest.approx(indexed, abs=0.011)  # one sample of 100, which is the grid of the means


@pytest.mark.parametrize("kind", ["binary", "graded"])
def test_interval_covers_the_true_difference(kind: str) -> None:
    rng = np.random.default_rng(7)
    covered = 0
    for seed in range(300):
        if kind == "binary":
            before, after = (rng.random(120) < 0.3).astype(float), (rng.random(120) < 0.5).astype(float)
            truth = 0.2
        else:
            before, after = rng.beta(2, 2, 120), rng.beta(3, 1, 120)
            truth = 0.25
        low, high = paired_bootstrap(before, after, draws=600, seed=seed)
        covered += low <= truth <= high
    assert 0.91 <= covered / 300 <= 0.985


def test_permutation_agrees_with_all_sign_flips() -> None:
    difference = np.array([0.3, 0.1, -0.2, 0.45, 0.05, 0.2, -0.05, 0.15])
    signs = np.array(list(itertools.product((-1.0, 1.0), repeat=8)))
    exact = np.mean(np.abs(signs @ difference) >= abs(difference.sum()) - 1e-9)
    before = np.full(8, 0.5)
    estimate = paired_permutation(before, before + difference, draws=40_000)
    assert estimate == pytest.approx(exact, abs=0.01)
    assert paired_permutation(before + difference, before, draws=40_000) == pytest.approx(exact, abs=0.01)


def test_permutation_counts_ties_in_spite_of_rounding() -> None:
    # All of one sign, so that 2 of the 16 patterns are as extreme. 2 * sum - sum falls short in the last bit.
    p = paired_permutation(np.zeros(4), [1.0, 0.7, 0.9, 0.30000000000000004], draws=40_000)
    assert p == pytest.approx(2 / 16, abs=0.007)


def test_permutation_is_never_zero() -> None:
    assert paired_permutation(np.zeros(50), np.linspace(0.5, 0.9, 50), draws=99) == 1 / 100


def test_false_alarms_are_as_rare_as_promised() -> None:
    rng = np.random.default_rng(3)
    alarms = sum(p_value(rng.random(30), rng.random(30), draws=300, seed=seed) < 0.05 for seed in range(300))
    assert 0.015 <= alarms / 300 <= 0.085


def test_p_value_picks_the_test_by_the_scores() -> None:
    before, after = pairs(5, 1, 9, 7)
    assert p_value(before, after) == mcnemar_exact(before, after)
    graded = after * 0.9
    assert p_value(before, graded, seed=4) == paired_permutation(before, graded, seed=4)


@pytest.mark.parametrize("scores", [[1.0], [0.0, 1.0, 1.0], [0.25, 0.5, 0.125]])
def test_equal_scores_show_no_difference(scores: list[float]) -> None:
    assert paired_bootstrap(scores, scores) == (0.0, 0.0)
    assert p_value(scores, scores) == 1.0


@pytest.mark.parametrize("function", [paired_bootstrap, mcnemar_exact, paired_permutation, p_value])
@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ([], [], "no scores"),
        ([1.0], [1.0, 0.0], "same length"),
        ([[1.0]], [[1.0]], "same length"),
        ([math.nan], [1.0], "NaN"),
    ],
)
def test_what_cannot_be_paired_is_refused(function: object, before: list, after: list, message: str) -> None:
    with pytest.raises(DataError, match=message):
        function(before, after)  # type: ignore[operator]


def test_the_seed_decides_the_draws() -> None:
    before, after = np.linspace(0, 1, 200), np.linspace(0, 1, 200) ** 2
    assert paired_bootstrap(before, after, seed=1) == paired_bootstrap(before, after, seed=1)
    assert paired_bootstrap(before, after, seed=1) != paired_bootstrap(before, after, seed=2)


def test_memory_does_not_grow_with_the_draws() -> None:
    rng = np.random.default_rng(0)
    before, after = rng.random(20_000), rng.random(20_000)  # 600 draws at once would be 96 MB of indices
    for function in (paired_bootstrap, paired_permutation):
        tracemalloc.start()
        function(before, after, draws=600)  # type: ignore[operator]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 60e6
