"""Compare results of the same tasks, document by document: every number that the tables and the page show.

Several results are compared with the first one. What the p-values of one call are corrected for: the main metric
of every task and every candidate is one family (Holm); the values of a grouping, and the further metrics of a task,
are families of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from lorgnette.comparison.comparable import pair
from lorgnette.comparison.effects import Compared, Effect, GroupEffect, MetricEffect, TaskComparison
from lorgnette.comparison.folders import Side
from lorgnette.comparison.notes import notes
from lorgnette.comparison.reading import Result
from lorgnette.comparison.statistics import (
    cluster_factor,
    corpus_effect,
    fitting_test,
    holm,
    p_value,
    paired_bootstrap,
    score_interval,
)
from lorgnette.errors import DataError
from lorgnette.evaluation.metrics.aggregate import AGGREGATES
from lorgnette.evaluation.schema import Answer

MEAN = "mean"

Rows = Sequence[tuple[Answer, Answer]]
Scores = npt.NDArray[np.float64]
AnyEffect = TypeVar("AnyEffect", bound=Effect)


def compare_sides(sides: Sequence[Side], *, intersect: bool = False) -> list[Compared]:
    """Compare every other side with the first one on all their tasks, and correct the p-values over all of it.

    Args:
        intersect: also compare where documents, prompts or tasks differ, on what is equal; the notes say so.

    Raises:
        DataError: a task is in one side only, or its results cannot be compared; the message says what differs.
    """
    baseline, compared = sides[0], []
    for side in sides[1:]:
        tasks = [task for task in baseline.results if task in side.results]
        missing = [
            f"task {task}: only in {has.name}"
            for has, other in ((baseline, side), (side, baseline))
            for task in has.results
            if task not in other.results
        ]
        refused = f"Cannot compare {baseline.folder} with {side.folder}"
        if not tasks:
            raise DataError(
                f"{refused}, they have no task in common:\n  " + "\n  ".join(missing) + "\nNext: evaluate both on one."
            )
        if missing and not intersect:
            raise DataError(
                f"{refused}. What differs:\n  "
                + "\n  ".join(missing)
                + "\nNext: evaluate what is missing, or add --intersect to compare the tasks that both have."
            )
        for task in tasks:
            names = (baseline.name, side.name)
            made = compare(baseline.results[task], side.results[task], names, intersect=intersect)
            absent = tuple(f"{line}, not compared (allowed by --intersect)" for line in missing)
            compared.append(made._replace(numbers=replace(made.numbers, notes=made.numbers.notes + absent)))
    numbers = _corrected([made.numbers for made in compared])
    return [made._replace(numbers=number) for made, number in zip(compared, numbers, strict=True)]


def compare(
    before: Result,
    after: Result,
    names: tuple[str, str] = ("before", "after"),
    *,
    intersect: bool = False,
) -> Compared:
    """Compare two results of one task, paired by document id.

    Documents are taken in the order of their ids, so the order of lines in the files changes no number. The p-value
    of the task itself is corrected by `compare_sides`, which knows how many there are.

    Raises:
        DataError: they cannot be compared; the message says what differs.
    """
    before, after, allowed = pair(before, after, names, intersect=intersect)
    rows = list(zip(before.predictions, after.predictions, strict=True))
    first, second = _scores(rows)
    highest = _highest(before.summary["metric"], before, after)
    numbers = TaskComparison(
        task=before.name,
        metric=before.summary["metric"],
        baseline=names[0],
        candidate=names[1],
        **_measure(first, second, highest),
        shares=bool(np.all((first >= 0) & (first <= 1) & (second >= 0) & (second <= 1))),
        image_factor=cluster_factor(first, second, [row.image or row.id for row, _ in rows]),
        groups=_groups(rows, highest),
        metrics=_metrics(before, after, rows),
        notes=(),
    )
    return Compared(replace(numbers, notes=(*allowed, *notes(numbers, before, after))), before, after)


def _scores(rows: Rows) -> tuple[Scores, Scores]:
    """Return the main scores before and after as two arrays, (N,) each."""
    return np.array([row.score for row, _ in rows]), np.array([row.score for _, row in rows])


def _highest(metric: str, before: Result, after: Result) -> float:
    """Return the most that a document can get; 1 where neither result says another."""
    return max(float(result.summary["scores"].get(metric, {}).get("highest", 1.0)) for result in (before, after))


def _measure(first: Scores, second: Scores, highest: float) -> dict[str, Any]:
    """Compute what every effect has, over these pairs of scores of at most `highest`."""
    p = p_value(first, second)
    return {
        "n": len(first),
        "before": float(first.mean()),
        "after": float(second.mean()),
        "difference": float((second - first).mean()),
        "interval": paired_bootstrap(first, second),
        "p_value": p,
        "p_corrected": p,
        "test": fitting_test(first, second),
        "before_interval": score_interval(first, highest=highest),
        "after_interval": score_interval(second, highest=highest),
        "wins": int(np.sum(second > first)),
        "losses": int(np.sum(second < first)),
    }


def _groups(rows: Rows, highest: float) -> dict[str, tuple[GroupEffect, ...]]:
    """Compare the documents of every value of every grouping; `kind` is left out where a grouping says the same."""
    groupings: dict[str, dict[str, list[int]]] = {}
    for index, (row, _) in enumerate(rows):
        named = dict(row.groups) | ({} if row.kind is None else {"kind": row.kind})
        for name, value in named.items():
            groupings.setdefault(name, {}).setdefault(value, []).append(index)
    kinds = groupings.pop("kind", None)
    if kinds is not None and kinds not in groupings.values():
        groupings = {"kind": kinds} | groupings
    effects = {
        name: [
            GroupEffect(value=value, **_measure(*_scores([rows[index] for index in members[value]]), highest))
            for value in sorted(members)
        ]
        for name, members in groupings.items()
    }
    return {name: tuple(_corrected(members)) for name, members in effects.items()}


def _metrics(before: Result, after: Result, rows: Rows) -> tuple[MetricEffect, ...]:
    """Compare the further metrics that both results have, each on the documents that have it in both."""
    effects = []
    for name in _shared_metrics(before, after):
        aggregate = before.summary["scores"][name]["aggregate"]
        if aggregate == MEAN:
            having = [pair for pair in rows if all(name in row.scores for row in pair)]
            first, second = (np.array([pair[side].scores[name] for pair in having]) for side in (0, 1))
            measured = _measure(first, second, _highest(name, before, after)) if having else None
        else:
            having = [pair for pair in rows if all(name in row.parts for row in pair)]
            measured = _measure_corpus(aggregate, name, having, before) if having else None
        if measured:
            effects.append(MetricEffect(metric=name, aggregate=aggregate, **measured))
    return tuple(_corrected(effects))


def _measure_corpus(aggregate: str, name: str, rows: Rows, result: Result) -> dict[str, Any]:
    """Compute the same numbers for a metric of the whole corpus, which no single row has."""
    if aggregate not in AGGREGATES:
        raise DataError(
            f"{result.folder}: metric {name} is an aggregate '{aggregate}' that this version does not know. "
            f"Allowed: mean, {', '.join(AGGREGATES)}. Next: evaluate with this version."
        )
    try:
        first, second = (np.array([pair[side].parts[name] for pair in rows], dtype=np.float64) for side in (0, 1))
    except ValueError as error:
        raise DataError(
            f"{result.folder}: the parts of {name} differ in length between rows. Next: evaluate again."
        ) from error
    effect, value = corpus_effect(AGGREGATES[aggregate], first, second), AGGREGATES[aggregate]
    return {
        "n": len(rows),
        "before": float(value(first)),
        "after": float(value(second)),
        "difference": float(value(second) - value(first)),
        "interval": effect.difference,
        "p_value": effect.p_value,
        "p_corrected": effect.p_value,
        "test": "randomization",
        "before_interval": effect.before,
        "after_interval": effect.after,
        "wins": None,
        "losses": None,
    }


def _shared_metrics(before: Result, after: Result) -> list[str]:
    first, second = (
        {name: score.get("aggregate") for name, score in result.summary["scores"].items()} for result in (before, after)
    )
    main = before.summary["metric"]
    return [name for name, aggregate in first.items() if name != main and second.get(name) == aggregate]


def _corrected(effects: Sequence[AnyEffect]) -> list[AnyEffect]:
    """Correct the p-values of one family."""
    corrected = holm([effect.p_value for effect in effects])
    return [replace(effect, p_corrected=p) for effect, p in zip(effects, corrected, strict=True)]
