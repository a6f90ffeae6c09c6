"""Draw loss curves and before/after bars as SVG that can stand inside an HTML page.

The only module that imports matplotlib. It uses `Figure` without pyplot, so there is no window, no backend to
choose and no global state; the same input gives the same bytes. Letters stay text: the page's own font shows
every script, and names are escaped, never parsed as mathematics.
"""

from __future__ import annotations

import html
import io
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lorgnette.comparison.compare import KindComparison, TaskComparison
from lorgnette.comparison.wording import printable, score_text
from lorgnette.errors import DataError

# Okabe & Ito's palette: told apart by colour-blind readers, and by their lightness in grey print.
DARK, LIGHT, ACCENT, GREY = "#0072B2", "#9CC9E3", "#D55E00", "#767676"
# Narrow on purpose: scaled down to a phone, 9 pt letters are still readable.
WIDTH_INCHES = 4.8
# A longer raw curve is thinned to this many points; the smooth one is computed from all of them.
MOST_POINTS = 1_000
LONGEST_NAME = 28

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica"],
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "legend.frameon": False,
    "legend.fontsize": 8.0,
}

Points = tuple[list[float], list[float]]  # steps and values, of equal length


def loss_curves(rows: Sequence[Mapping[str, Any]]) -> str:
    """Draw one panel a stage: raw and smoothed loss, validation loss, and the learning rate as a thin line.

    `rows` are the lines of `metrics.jsonl`, in the order of steps. A row draws what it has of `loss`,
    `eval_loss` and `learning_rate`. Losses that are not finite cannot be drawn; they are counted in the
    panel's title. Returns an empty string if no row has a loss.

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
        return ""

    def draw(figure: Figure) -> None:
        panels = figure.subplots(len(stages), squeeze=False)[:, 0]
        for panel, (stage, stage_rows) in zip(panels, stages.items(), strict=True):
            _loss_panel(panel, stage, stage_rows)

    return _svg(draw, height=2.3 * len(stages), label="Loss and learning rate over steps, one panel a stage")


def bars(comparison: TaskComparison) -> str:
    """Draw the scores before and after as horizontal bars, for the whole task and for each kind.

    The whisker on the bar of `after` is the interval of the difference, counted from the score before: where
    it reaches down to the bar of `before`, the two cannot be told apart.
    """
    rows: list[tuple[str, TaskComparison | KindComparison]] = [("all", comparison)]
    rows += [(kind.kind, kind) for kind in comparison.kinds]
    names = [f"{_short(name)} ({row.n:,})" for name, row in rows]
    before = np.array([row.before for _, row in rows])
    after = np.array([row.after for _, row in rows])
    # A percentile interval need not contain the mean difference; a whisker has no negative length.
    low = np.clip(after - before - [row.interval.low for _, row in rows], 0.0, None)
    high = np.clip([row.interval.high for _, row in rows] - (after - before), 0.0, None)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        position = np.arange(len(rows), dtype=float)
        axes.barh(position - 0.2, before, height=0.36, color=LIGHT, label="before")
        axes.barh(position + 0.2, after, height=0.36, color=DARK, label="after")
        axes.errorbar(
            after,
            position + 0.2,
            xerr=[low, high],
            fmt="none",
            ecolor="black",
            elinewidth=1.0,
            capsize=2.0,
            label="95 % interval of the difference",
        )
        for place, start, end, reach in zip(position, before, after, after + high, strict=True):
            axes.text(start + 0.012, place - 0.2, score_text(start), va="center", color=GREY, fontsize=8)
            axes.text(reach + 0.012, place + 0.2, score_text(end), va="center", fontsize=8)
        axes.set_yticks(position, names)
        axes.invert_yaxis()
        axes.set_xlim(0.0, 1.15)
        axes.set_xticks(np.linspace(0.0, 1.0, 6))
        axes.set_xlabel(printable(comparison.metric))
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        figure.legend(loc="outside upper left", ncols=3)

    label = f"{comparison.task}: scores before and after; the table has the numbers"
    return _svg(draw, height=0.9 + 0.42 * len(rows), label=label)


def _loss_panel(axes: Axes, stage: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw the losses and the learning rate of one stage."""
    steps, losses = _points(rows, "loss")
    if steps:
        thin = math.ceil(len(steps) / MOST_POINTS)
        axes.plot(steps[::thin], losses[::thin], color=LIGHT, linewidth=1.0, marker=_dots(steps), label="loss")
    if len(steps) > 2:
        smooth = _smoothed(losses)
        axes.plot(steps[::thin], smooth[::thin], color=DARK, linewidth=1.8, label="loss, smoothed")
    checked, validation = _points(rows, "eval_loss")
    if checked:
        axes.plot(checked, validation, "D--", color=ACCENT, markersize=4, linewidth=0.8, label="validation")
    broken = sum(name in row and not _is_number(row[name]) for row in rows for name in ("loss", "eval_loss"))
    axes.set_title(_short(stage) + (f" ({broken:,} losses not finite)" if broken else ""))
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
    return isinstance(value, int | float) and math.isfinite(value)


def _dots(steps: Sequence[float]) -> str:
    """Mark the points of a line too short to be seen."""
    return "o" if len(steps) < 3 else ""


def _short(name: str) -> str:
    """Cut a long name so that it leaves room for the drawing."""
    clean = printable(name)
    return clean if len(clean) <= LONGEST_NAME else clean[: LONGEST_NAME - 1] + "\N{HORIZONTAL ELLIPSIS}"


@contextmanager
def _our_style(salt: str) -> Iterator[None]:
    """Draw with matplotlib's defaults and ours, whatever the user's matplotlibrc says."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE | {"svg.hashsalt": salt})
        # DejaVu measures the letters but the page's font draws them; one that it lacks is no trouble.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def _svg(draw: Callable[[Figure], None], *, height: float, label: str) -> str:
    """Turn a drawing into an `<svg>` element: no date, no addresses, as wide as its place on the page."""
    buffer = io.StringIO()
    with _our_style(label):
        figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
        draw(figure)
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    drawing = buffer.getvalue()
    opening, body = drawing[drawing.index("<svg") :].split(">", 1)
    box = re.findall(r'viewBox="[^"]*"', opening)[0]
    # Several drawings share a page, and an id may occur there once. What is referred to (clip paths, markers)
    # has a salted hash; the groups only have numbers. Text is escaped, so that "<g id=" can only be a tag.
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    return f'<svg {box} role="img" aria-label="{html.escape(printable(label))}">{body}'
