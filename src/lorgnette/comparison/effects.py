"""What a comparison is made of: one metric before and after, per task, per group, per further metric."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from lorgnette.comparison.reading import Result
from lorgnette.comparison.statistics import Interval

ALPHA = 0.05
"""A difference counts as shown if its corrected p-value is below this."""
BETTER, WORSE, NOT_SHOWN = "better", "worse", "no difference shown"


@dataclass(frozen=True, kw_only=True)
class Effect:
    """One metric before and after on the same documents.

    Attributes:
        interval: 95 % confidence interval of the difference; the other two are those of the scores.
        p_value: two-sided, by `test`; `p_corrected` is Holm's over the family.
        wins, losses: documents whose score rose and fell; null for metrics of the whole corpus.
    """

    n: int
    before: float
    after: float
    difference: float
    interval: Interval
    p_value: float
    p_corrected: float
    test: str
    before_interval: Interval
    after_interval: Interval
    wins: int | None
    losses: int | None

    @property
    def verdict(self) -> str:
        """Say better or worse only where the corrected p-value and the interval agree."""
        if self.p_corrected < ALPHA and self.interval.low > 0.0:
            return BETTER
        if self.p_corrected < ALPHA and self.interval.high < 0.0:
            return WORSE
        return NOT_SHOWN


@dataclass(frozen=True, kw_only=True)
class GroupEffect(Effect):
    """The main metric on the documents that have one value in a grouping."""

    value: str


@dataclass(frozen=True, kw_only=True)
class MetricEffect(Effect):
    """A further metric on all documents that have it; `aggregate` is "mean" or what makes it from rows' parts."""

    metric: str
    aggregate: str


@dataclass(frozen=True, kw_only=True)
class TaskComparison(Effect):
    """Two results of one task, by its main metric.

    Attributes:
        baseline, candidate: what the two are called.
        shares: whether every score lies between 0 and 1, so that a hundredth is a point.
        image_factor: how many times wider the interval were if images were drawn, not questions.
        groups: by the name of the grouping.
        notes: what must be known before the numbers are believed.
    """

    task: str
    metric: str
    baseline: str
    candidate: str
    shares: bool
    image_factor: float
    groups: Mapping[str, tuple[GroupEffect, ...]]
    metrics: tuple[MetricEffect, ...]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the plain values of `comparison.json`, what names an effect first."""
        groups = {name: [{"value": e.value} | asdict(e) for e in effects] for name, effects in self.groups.items()}
        metrics = [{"metric": effect.metric} | asdict(effect) for effect in self.metrics]
        lists = {"groups": groups, "metrics": metrics, "verdict": self.verdict}
        return {"task": self.task, "metric": self.metric} | asdict(self) | lists


class Compared(NamedTuple):
    """A comparison and the two results that it is about, restricted to the documents compared."""

    numbers: TaskComparison
    before: Result
    after: Result
