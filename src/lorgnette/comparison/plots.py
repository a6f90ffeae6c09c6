"""What is drawn: scores with their intervals, effects of several tasks, losses and learning rates."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lorgnette.comparison.drawing import AFTER, BEFORE, GREY, INK, WARM, Drawing
from lorgnette.comparison.effects import BETTER, WORSE, Effect, TaskComparison
from lorgnette.comparison.statistics import Interval
from lorgnette.comparison.wording import score_text, shortened
from lorgnette.errors import DataError
from lorgnette.pages import printable

# A longer raw curve is thinned to this many points; the smooth one is computed from all of them.
MOST_POINTS = 1_000
MOST_BARS = 30
LONGEST_NAME = 28
LEGEND_NAME = 16

Points = tuple[list[float], list[float]]  # steps and values, of equal length


def loss_curves(rows: Sequence[Mapping[str, Any]]) -> Drawing | None:
    """Draw one panel a stage: raw and smoothed loss, validation loss, and the learning rate as a thin line.

    `rows` are the lines of `metrics.jsonl`, in the order of steps. A row draws what it has of `loss`,
    `eval_loss` and `learning_rate`. Losses that are not finite cannot be drawn; they are counted in the
    panel's title. Returns None if no row has a loss.

    Raises:
        DataError: a row has no stage or no step.
    """
    stages: dict[str, list[Mapping[str, Any]]] = {}
    for number, row in enumerate(rows, start=1):
        if not isinstance(row.get("stage"), str) or not _is_number(row.get("step")):
            raise DataError(f"metrics.jsonl, row {number}: needs a stage and a step, found {dict(row)!r:.200}.")
        if "loss" in row or "eval_loss" in row:
            stages.setdefault(row["stage"], []).append(row)
    if not stages:
        return None

    def draw(figure: Figure) -> None:
        panels = figure.subplots(len(stages), squeeze=False)[:, 0]
        for panel, (stage, stage_rows) in zip(panels, stages.items(), strict=True):
            _loss_panel(panel, stage, stage_rows)

    return Drawing(draw, 2.3 * len(stages), "Loss and learning rate over steps, one panel a stage")


def bars(comparison: TaskComparison, grouping: str | None = None) -> Drawing:
    """Draw the scores before and after as horizontal bars with their 95 % intervals.

    For the whole task, and below it for each value of a grouping; of more than `MOST_BARS` values those with
    the most documents.
    """
    effects = comparison.groups[grouping] if grouping else ()
    largest = sorted(effects, key=lambda effect: -effect.n)[:MOST_BARS]
    rows: list[tuple[str, Effect]] = [("all", comparison)]
    rows += [(effect.value, effect) for effect in effects if effect in largest]
    names = [f"{shortened(name, LONGEST_NAME)} ({row.n:,})" for name, row in rows]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        position = np.arange(len(rows), dtype=float)
        ends = [_bars(axes, position - 0.2, [(row.before, row.before_interval) for _, row in rows], BEFORE, GREY)]
        ends += [_bars(axes, position + 0.2, [(row.after, row.after_interval) for _, row in rows], AFTER, INK)]
        largest_end = max(map(max, ends))
        axes.set_yticks(position, names)
        axes.invert_yaxis()
        axes.set_xlim(0.0, 1.15 if comparison.shares else 1.15 * largest_end or 1.0)
        if comparison.shares:
            axes.set_xticks(np.linspace(0.0, 1.0, 6))
        axes.set_xlabel(printable(comparison.metric))
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        labels = [shortened(name, LEGEND_NAME) for name in (comparison.baseline, comparison.candidate)]
        handles = [axes.patches[0], axes.patches[len(rows)]]
        figure.legend(handles, labels, loc="outside upper left", ncols=2)

    by = f" by {grouping}" if grouping else ""
    label = f"{comparison.task}: {comparison.metric}{by}, {comparison.baseline} and {comparison.candidate}"
    return Drawing(draw, 0.9 + 0.42 * len(rows), f"{label}; the table has the numbers")


def effects_plot(comparisons: Sequence[TaskComparison]) -> Drawing:
    """Draw the differences of several comparisons with their intervals around zero.

    All comparisons must have one scale: points where scores lie between 0 and 1, the metric's own otherwise.
    """
    factor = 100.0 if all(comparison.shares for comparison in comparisons) else 1.0
    several = len({comparison.candidate for comparison in comparisons}) > 1
    names = [f"{c.task}, {c.candidate}" if several else c.task for c in comparisons]
    colours = [{BETTER: AFTER, WORSE: WARM}.get(comparison.verdict, GREY) for comparison in comparisons]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axvline(0.0, color=INK, linewidth=1.0)
        for place, (comparison, colour) in enumerate(zip(comparisons, colours, strict=True)):
            low, high = (end * factor for end in comparison.interval)
            axes.plot([low, high], [place, place], color=colour, linewidth=2.0, solid_capstyle="butt")
            axes.plot([comparison.difference * factor], [place], "o", color=colour, markersize=5)
        axes.set_yticks(range(len(names)), [shortened(name, LONGEST_NAME) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.margins(x=0.1)
        axes.set_xlabel("difference, points" if factor > 1.0 else printable(f"difference, {comparisons[0].metric}"))
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)

    label = "Differences with 95 % intervals: " + ", ".join(dict.fromkeys(names))
    return Drawing(draw, 0.7 + 0.34 * len(names), f"{label}; the table has the numbers")


def _bars(
    axes: Axes, position: np.ndarray, scores: Sequence[tuple[float, Interval]], colour: str, ink: str
) -> list[float]:
    """Draw one model's bars, whiskers and numbers; return where the whiskers end."""
    values = np.array([score for score, _ in scores])
    low, high = (np.array([interval[end] for _, interval in scores]) for end in (0, 1))
    axes.barh(position, values, height=0.36, color=colour)
    # A percentile interval need not contain the mean; a whisker has no negative length.
    reach = [np.clip(values - low, 0.0, None), np.clip(high - values, 0.0, None)]
    axes.errorbar(values, position, xerr=reach, fmt="none", ecolor=INK, elinewidth=0.9, capsize=1.8)
    ends = np.maximum(values, high)
    for place, value, end in zip(position, values, ends, strict=True):
        axes.annotate(
            score_text(value), (end, place), (4, 0), textcoords="offset points", va="center", color=ink, fontsize=8
        )
    return [float(end) for end in ends]


def _loss_panel(axes: Axes, stage: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw the losses and the learning rate of one stage."""
    steps, losses = _points(rows, "loss")
    if steps:
        thin = math.ceil(len(steps) / MOST_POINTS)
        axes.plot(steps[::thin], losses[::thin], color=BEFORE, linewidth=1.0, marker=_dots(steps), label="loss")
    if len(steps) > 2:
        smooth = _smoothed(losses)
        axes.plot(steps[::thin], smooth[::thin], color=AFTER, linewidth=1.8, label="loss, smoothed")
    checked, validation = _points(rows, "eval_loss")
    if checked:
        axes.plot(checked, validation, "D--", color=WARM, markersize=4, linewidth=0.8, label="validation")
    broken = sum(name in row and not _is_number(row[name]) for row in rows for name in ("loss", "eval_loss"))
    axes.set_title(shortened(stage, LONGEST_NAME) + (f" ({broken:,} losses not finite)" if broken else ""))
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    lines, labels = axes.get_legend_handles_labels()
    rate_steps, rates = _points(rows, "learning_rate")
    if rate_steps:
        second = axes.twinx()
        second.grid(visible=False)
        (line,) = second.plot(rate_steps, rates, ":", color=GREY, linewidth=1.0, marker=_dots(rate_steps))
        second.set_ylim(bottom=0.0)
        second.set_ylabel("learning rate", color=GREY)
        second.tick_params(axis="y", colors=GREY)
        second.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
        lines, labels = [*lines, line], [*labels, "learning rate"]
        axes = second  # the upper one of the two, so that no line crosses the legend
    if lines:
        axes.legend(lines, labels, loc="upper right")


def _points(rows: Sequence[Mapping[str, Any]], name: str) -> Points:
    """Collect the finite values of one column with their steps."""
    found = [(float(row["step"]), float(row[name])) for row in rows if _is_number(row.get(name))]
    return [step for step, _ in found], [value for _, value in found]


def _smoothed(values: Sequence[float]) -> list[float]:
    """Average exponentially over about a twentieth of the run, without the pull of a zero start.

    The correction by the sum of weights is Adam's (Kingma & Ba 2015, section 3).
    """
    keep = 1.0 - 2.0 / (max(5.0, len(values) / 20.0) + 1.0)
    total = weight = 0.0
    smooth = []
    for value in values:
        total, weight = keep * total + value, keep * weight + 1.0
        smooth.append(total / weight)
    return smooth


def _is_number(value: object) -> bool:
    """Tell whether a JSON value is a finite number."""
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max  # an integer may be beyond any float


def _dots(steps: Sequence[float]) -> str:
    """Mark the points of a line too short to be seen."""
    return "o" if len(steps) < 3 else ""
