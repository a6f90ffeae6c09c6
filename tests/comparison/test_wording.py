"""Numbers and verdicts in words, exactly as promised."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from lorgnette.comparison.effects import TaskComparison
from lorgnette.comparison.statistics import Interval
from lorgnette.comparison.wording import (
    counts_text,
    difference_text,
    effect_text,
    interval_text,
    p_text,
    range_text,
    sentence,
    sentences,
)


@pytest.fixture
def comparison() -> Callable[..., TaskComparison]:
    """`comparison(task, difference, low, high, **fields)`, significant."""

    def make(task: str, difference: float, low: float, high: float, **fields: Any) -> TaskComparison:
        made = TaskComparison(
            task=task,
            metric="accuracy",
            baseline="base",
            candidate="tuned",
            n=4000,
            before=0.5,
            after=0.5 + difference,
            difference=difference,
            interval=Interval(low, high),
            p_value=0.001,
            p_corrected=0.002,
            test="mcnemar",
            before_interval=Interval(0.4, 0.6),
            after_interval=Interval(0.4, 0.6),
            wins=1530,
            losses=16,
            shares=True,
            image_factor=1.0,
            groups={},
            metrics=(),
            notes=(),
        )
        return replace(made, **fields)

    return make


def test_numbers_read_the_same_everywhere() -> None:
    given = (0.84, -0.0121, 0.0, -0.0001)
    assert [difference_text(value) for value in given] == ["+0.840", "−0.012", "+0.000", "+0.000"]
    assert interval_text(Interval(-0.1, 0.25)) == "−0.100 to +0.250"
    assert range_text(Interval(0.1, 0.25)) == "0.100–0.250"
    assert [p_text(value) for value in (0.00099, 0.001, 0.0214, 1.0)] == ["< 0.001", "0.001", "0.021", "1.000"]


def test_the_plain_sentence(comparison: Callable[..., TaskComparison]) -> None:
    better = comparison("MMBench-ru", 0.23, 0.211, 0.249)
    unclear = comparison("GQA-ru", 0.004, -0.003, 0.011, p_corrected=0.3)
    assert sentence([unclear, better]) == (
        "better on MMBench-ru: +23.0 points, 95 % 21.1 to 24.9; no difference shown on GQA-ru"
    )
    worse = comparison("vqa", -0.0125, -0.02, -0.005)
    assert sentence([worse, unclear, better]) == (
        "better on MMBench-ru: +23.0 points, 95 % 21.1 to 24.9; worse on vqa: −1.2 points, 95 % −2.0 to −0.5; "
        "no difference shown on GQA-ru"
    )
    assert sentence([unclear, replace(unclear, task="x\x1b[31m")]) == "no difference shown on GQA-ru, x\ufffd[31m"


def test_every_candidate_has_its_sentence_and_a_run_needs_no_names(comparison: Callable[..., TaskComparison]) -> None:
    first, second = comparison("a", 0.1, 0.05, 0.15), comparison("b", 0.1, 0.05, 0.15, p_corrected=1.0)
    assert sentences([first, second, replace(first, candidate="other")]) == [
        "tuned against base: better on a: +10.0 points, 95 % 5.0 to 15.0; no difference shown on b",
        "other against base: better on a: +10.0 points, 95 % 5.0 to 15.0",
    ]
    run = replace(first, baseline="before", candidate="after")
    assert sentences([run]) == ["Better on a: +10.0 points, 95 % 5.0 to 15.0"]


def test_other_scales_are_no_points(comparison: Callable[..., TaskComparison]) -> None:
    captions = comparison("captions", 0.1134, 0.05, 0.2, shares=False)
    assert effect_text(captions) == "+0.113 accuracy, 95 % 0.050 to 0.200"
    assert counts_text(captions) == "1,530 answers better, 16 worse, 2,454 the same"
