"""The numbers against closed forms, against full enumeration, and against simulation."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from lorgnette.comparison import statistics
from lorgnette.comparison.statistics import (
    cluster_factor,
    corpus_effect,
    holm,
    mcnemar_exact,
    p_value,
    paired_bootstrap,
    paired_permutation,
    score_interval,
)
from lorgnette.errors import DataError


def pairs(both: int, losses: int, wins: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    before = np.repeat([1.0, 1.0, 0.0, 0.0], [both, losses, wins, neither])
    after = np.repeat([1.0, 0.0, 1.0, 0.0], [both, losses, wins, neither])
    return before, after


def test_mcnemar_equals_the_value_computed_by_hand() -> None:
    # 2 * (C(10,0) + C(10,1)) / 2**10 = 22 / 1024
    assert mcnemar_exact(*pairs(5, 1, 9, 7)) == pytest.approx(0.021484375, abs=1e-15)


@pytest.mark.parametrize(
    ("losses", "wins"), [(0, 0), (0, 1), (1, 0), (3, 3), (0, 12), (17, 40), (300, 200), (1, 2_000)]
)
def test_mcnemar_equals_scipy_and_statsmodels(losses: int, wins: int) -> None:
    ours = mcnemar_exact(*pairs(11, losses, wins, 2))
    assert ours == pytest.approx(mcnemar([[11, losses], [wins, 2]], exact=True).pvalue, rel=1e-12, abs=1e-300)
    if losses + wins:
        assert ours == pytest.approx(stats.binomtest(losses, losses + wins, 0.5).pvalue, rel=1e-12, abs=1e-300)


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


def test_bootstrap_of_wins_alone_is_binomial() -> None:
    # Differences of 0 and 1 resampled: the number of ones is binomial, so the quantiles have a closed form.
    before, after = pairs(120, 0, 60, 20)
    low, high = stats.binom.ppf([0.025, 0.975], 200, 60 / 200) / 200
    assert paired_bootstrap(before, after, draws=100_000) == pytest.approx((low, high), abs=1 / 200 + 1e-12)


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


def simulated(kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
    """Scores of two models on the same 200 questions, hard ones hard for both, and the true difference."""
    hard = rng.random(200)
    if kind == "binary":
        return (
            (hard < 0.3 * rng.random(200) + 0.2).astype(float),
            (hard < 0.3 * rng.random(200) + 0.4).astype(float),
            0.2,
        )
    return 0.5 * hard + 0.5 * rng.beta(2, 2, 200), 0.5 * hard + 0.5 * rng.beta(3, 1, 200), 0.125


@pytest.mark.parametrize("kind", ["binary", "graded"])
def test_intervals_cover_the_true_difference_in_93_to_97_of_100(kind: str) -> None:
    rng = np.random.default_rng(7)
    covered = 0
    for seed in range(1_000):
        before, after, truth = simulated(kind, rng)
        low, high = paired_bootstrap(before, after, draws=600, seed=seed)
        covered += low <= truth <= high
    assert 0.93 <= covered / 1_000 <= 0.97


@pytest.mark.parametrize(("kind", "truth"), [("binary", 0.35), ("graded", 0.5)])
def test_intervals_of_scores_cover_the_true_score_in_93_to_97_of_100(kind: str, truth: float) -> None:
    rng = np.random.default_rng(11)
    covered = 0
    for seed in range(1_000):
        scores = (rng.random(150) < truth).astype(float) if kind == "binary" else rng.beta(2, 2, 150)
        low, high = score_interval(scores, draws=600, seed=seed)
        covered += low <= truth <= high
    assert 0.93 <= covered / 1_000 <= 0.97


def test_intervals_of_0_and_1_scores_are_wilsons() -> None:
    for right in (0, 7, 20):
        scores = np.repeat([1.0, 0.0], [right, 20 - right])
        assert score_interval(scores) == pytest.approx(proportion_confint(right, 20, method="wilson"), abs=1e-12)


def test_intervals_of_equal_scores_have_a_width() -> None:
    """0 of n says the same of graded scores as of 0/1 scores, on their own scale; a bootstrap would be certain."""
    few, many = (proportion_confint(0, n, method="wilson")[1] for n in (3, 200))
    assert score_interval(np.zeros(3), highest=10.0) == pytest.approx((0.0, 10 * few))
    assert score_interval(np.full(200, 10.0), highest=10.0) == pytest.approx((10 - 10 * many, 10.0))
    assert score_interval(np.full(200, 0.25)) == pytest.approx((0.25 - 0.25 * many, 0.25 + 0.75 * many))
    assert score_interval([7.0]) == pytest.approx((7 - 7 * proportion_confint(0, 1, method="wilson")[1], 7.0))
    assert score_interval(np.full(200, -3.0)) == pytest.approx((-3.0, -3 + 4 * many))  # of another tool
    assert score_interval([0.0, 1.0, 1.0], highest=10.0).high <= 1.0  # no end of this scale, so a bootstrap
    # Clopper and Pearson's exact bound: a larger share of scores above 0 would leave 30 of 30 at 0 in less than 2.5 %
    assert score_interval(np.zeros(30)).high == pytest.approx(1 - 0.025 ** (1 / 30), abs=0.005)


def ratio(parts: np.ndarray) -> float:
    return float(parts[:, 0].sum() / parts[:, 1].sum())


def lengths_and_hits(rng: np.random.Generator, share: float, n: int) -> np.ndarray:
    lengths = rng.integers(1, 9, n).astype(float)
    return np.column_stack([rng.binomial(lengths.astype(int), share), lengths])


@pytest.mark.slow
def test_intervals_of_corpus_metrics_cover_in_93_to_97_of_100() -> None:
    rng = np.random.default_rng(5)
    covered = alarms = 0
    for seed in range(1_000):
        before, after = lengths_and_hits(rng, 0.4, 150), lengths_and_hits(rng, 0.5, 150)
        low, high = corpus_effect(ratio, before, after, draws=400, seed=seed).difference
        covered += low <= 0.1 <= high
        same = lengths_and_hits(rng, 0.4, 150)
        alarms += corpus_effect(ratio, before, same, draws=200, seed=seed).p_value < 0.05
    assert 0.93 <= covered / 1_000 <= 0.97
    assert 0.03 <= alarms / 1_000 <= 0.07


def test_a_mean_as_a_corpus_metric_has_the_mean_s_interval_and_p_value() -> None:
    rng = np.random.default_rng(2)
    before, after = rng.random(150), rng.random(150) + 0.06
    effect = corpus_effect(lambda parts: float(parts.mean()), before[:, None], after[:, None], draws=4_000)
    assert effect.difference == pytest.approx(paired_bootstrap(before, after), abs=0.01)
    assert effect.before == pytest.approx(score_interval(before), abs=0.01)
    assert effect.p_value == pytest.approx(paired_permutation(before, after), abs=0.02)


def test_equal_corpora_show_no_difference() -> None:
    parts = lengths_and_hits(np.random.default_rng(1), 0.5, 30)
    effect = corpus_effect(ratio, parts, parts, draws=50)
    assert (effect.difference, effect.p_value) == ((0.0, 0.0), 1.0)
    with pytest.raises(DataError, match="same length"):
        corpus_effect(ratio, parts, parts[:-1])


def test_permutation_agrees_with_all_sign_flips() -> None:
    difference = np.array([0.3, 0.1, -0.2, 0.45, 0.05, 0.2, -0.05, 0.15])
    signs = np.array(list(itertools.product((-1.0, 1.0), repeat=8)))
    exact = np.mean(np.abs(signs @ difference) >= abs(difference.sum()) - 1e-9)
    before = np.full(8, 0.5)
    estimate = paired_permutation(before, before + difference, draws=40_000)
    assert estimate == pytest.approx(exact, abs=0.01)
    assert paired_permutation(before + difference, before, draws=40_000) == pytest.approx(exact, abs=0.01)


def test_permutation_agrees_with_scipy() -> None:
    rng = np.random.default_rng(8)
    before, after = rng.random(60), rng.random(60) + 0.08
    theirs = stats.permutation_test(
        (before, after), lambda a, b: np.mean(b - a), permutation_type="samples", n_resamples=20_000, rng=rng
    )
    assert paired_permutation(before, after, draws=20_000) == pytest.approx(theirs.pvalue, abs=0.012)


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


@pytest.mark.parametrize(
    "p_values", [[0.03], [0.01, 0.04, 0.03, 0.005], [0.5, 0.5], [1.0, 0.0], [0.02, 0.02, 0.02], [0.4, 0.9, 0.001]]
)
def test_holm_equals_statsmodels(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1].tolist(), abs=1e-15)


def test_holm_of_nothing_is_nothing() -> None:
    assert holm([]) == []


def test_holm_keeps_the_false_alarms_of_a_family() -> None:
    rng = np.random.default_rng(4)
    families = rng.random((2_000, 5))
    assert np.mean([min(holm(list(family))) < 0.05 for family in families]) == pytest.approx(0.05, abs=0.015)


def test_cluster_factor_is_the_design_effect() -> None:
    rng = np.random.default_rng(6)
    alone = rng.random(400)
    zeros = np.zeros(400)
    assert cluster_factor(zeros, alone, range(400)) == 1.0
    assert cluster_factor(zeros, alone, [0] * 400) == 1.0
    assert cluster_factor(zeros, zeros, [n // 2 for n in range(400)]) == 1.0
    # drawn independently, whatever the clusters are called: near 1; ten copies of each: near the root of ten
    assert cluster_factor(zeros, alone, [n // 4 for n in range(400)]) == pytest.approx(1.0, abs=0.2)
    copies = np.repeat(alone[:40], 10)
    assert cluster_factor(zeros, copies, np.repeat(np.arange(40), 10).tolist()) == pytest.approx(10**0.5, rel=0.02)


def test_cluster_factor_equals_the_robust_error_of_statsmodels() -> None:
    from statsmodels.regression.linear_model import OLS

    rng = np.random.default_rng(9)
    groups = rng.integers(0, 30, 200)
    difference = rng.normal(size=30)[groups] + rng.normal(size=200)
    plain = OLS(difference, np.ones(200)).fit()
    robust = OLS(difference, np.ones(200)).fit(cov_type="cluster", cov_kwds={"groups": groups})
    ours = cluster_factor(np.zeros(200), difference, groups.tolist())
    assert ours == pytest.approx(float(robust.bse[0] / plain.bse[0]), rel=0.005)


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
