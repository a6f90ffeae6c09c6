"""Write the one page that says whether the model got better, and shows it.

One file, as `pages.py` has it; drawings are inline SVG.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from lorgnette.comparison.comparable import flat
from lorgnette.comparison.drawing import Drawing, inline_svg, write_drawings
from lorgnette.comparison.effects import Compared, TaskComparison
from lorgnette.comparison.folders import AFTER, BEFORE
from lorgnette.comparison.gallery import Group, gallery
from lorgnette.comparison.plots import MOST_BARS, bars, effects_plot, loss_curves
from lorgnette.comparison.training_record import TrainingRecord
from lorgnette.comparison.wording import (
    METHODS,
    counts_text,
    difference_text,
    interval_text,
    p_text,
    range_text,
    score_text,
    sentences,
)
from lorgnette.evaluation.metrics.aggregate import metric_text
from lorgnette.pages import cut, render_page
from lorgnette.run import write_text

MOST_CHARACTERS = 400
# The fields of result.json that the table of the comparison shows already.
MEASURED = ("task", "metric", "n", "score", "interval", "stderr", "kinds", "groups", "scores", "warnings")


@dataclass(frozen=True, kw_only=True)
class Section:
    """All that the page says about one task on one pair of models."""

    name: str
    place: str
    comparison: TaskComparison
    summary: str
    drawings: tuple[tuple[Markup, str], ...]  # and what stands below it
    conditions: tuple[tuple[str, str, str], ...]  # name, before, after
    gallery: tuple[Group, ...]


def write_report(
    folder: Path,
    *,
    title: str,
    compared: Sequence[Compared],
    trainings: Sequence[TrainingRecord],
    gallery_size: int = 24,
) -> None:
    """Write `report.html` and `plots/`, each file whole or not at all; the same input gives the same bytes.

    Args:
        trainings: how the models were made, for those that a run folder tells of.
        gallery_size: the most documents shown a comparison; see `gallery` for how they are chosen.

    Raises:
        DataError: a row of a run's losses has no stage or no step.
    """
    overview = _overview(compared)
    curves = [(f"loss-{number}", loss_curves(record.metrics)) for number, record in enumerate(trainings, start=1)]
    losses = {name: drawing for name, drawing in curves if drawing is not None}
    scores = [_bars(made.numbers, number) for number, made in enumerate(compared, start=1)]
    drawings = overview | losses | {name: drawing for own in scores for name, drawing in own.items()}
    inline = {name: Markup(inline_svg(drawing, name)) for name, drawing in drawings.items()}  # escaped in there
    page = render_page(
        __package__,
        "report.html.j2",
        FILTERS,
        title=title,
        headlines=sentences([made.numbers for made in compared]),
        sections=[
            _section(made, number, [inline[name] for name in own], gallery_size)
            for number, (made, own) in enumerate(zip(compared, scores, strict=True), start=1)
        ],
        trainings=trainings,
        overview=[inline[name] for name in overview],
        losses=[inline.get(name, "") for name, _ in curves],
        methods=METHODS,
    )
    write_text(folder / "report.html", page)
    write_drawings(folder / "plots", drawings)


def summary_text(comparison: TaskComparison, split: str) -> str:
    """Say the scores of one comparison, how many answers changed, and the p-value, in one sentence.

    Spaces inside a number's phrase do not break over two lines.
    """
    documents = "training questions" if "train" in split.lower() else f"{split} questions".strip()
    p = p_text(comparison.p_corrected)
    return (
        f"{comparison.metric} {score_text(comparison.before)} → {score_text(comparison.after)} on "
        f"{comparison.n:,} {documents}: {counts_text(comparison)}, "
        + f"p {p if p.startswith('<') else f'= {p}'}".replace(" ", "\N{NO-BREAK SPACE}")
    )


def _section(made: Compared, number: int, drawings: Sequence[Markup], gallery_size: int) -> Section:
    """Gather what the page says about one comparison."""
    numbers = made.numbers
    data = made.before.summary.get("data")
    split = data.get("split") if isinstance(data, dict) else None
    first, second = (
        dict(flat({name: value for name, value in result.summary.items() if name not in MEASURED}))
        for result in (made.before, made.after)
    )
    run = (numbers.baseline, numbers.candidate) == (BEFORE, AFTER)
    return Section(
        name=numbers.task if run else f"{numbers.task}, {numbers.candidate} against {numbers.baseline}",
        place=f"task-{number}",
        comparison=numbers,
        summary=summary_text(numbers, split if isinstance(split, str) else ""),
        drawings=tuple(zip(drawings, _captions(numbers), strict=True)),
        conditions=tuple((name, first.get(name, "–"), second.get(name, "–")) for name in first | second),
        gallery=gallery(made.before, made.after, gallery_size),
    )


def _overview(compared: Sequence[Compared]) -> dict[str, Drawing]:
    """Draw the effects of all comparisons together, a drawing for each scale that two of them share."""
    scales: dict[str, list[TaskComparison]] = {}
    for made in compared:
        scale = "points" if made.numbers.shares else made.numbers.metric
        scales.setdefault(scale, []).append(made.numbers)
    return _named({scale: effects_plot(own) for scale, own in scales.items() if len(own) > 1}, "effects-")


def _bars(comparison: TaskComparison, number: int) -> dict[str, Drawing]:
    """Draw the scores, by every grouping; without groupings of the task alone."""
    if not comparison.groups:
        return _named({comparison.task: bars(comparison)}, f"{number}-")
    start = f"{number}-{_slug(comparison.task)}-by-"
    return _named({name: bars(comparison, name) for name in comparison.groups}, start)


def _captions(comparison: TaskComparison) -> list[str]:
    """Say what stands below each drawing of `_bars`."""
    text = "Scores with their 95 % intervals; in brackets, the number of questions."
    if not comparison.groups:
        return [text]
    return [
        f"By {name}. {text}"
        + (f" The {MOST_BARS} largest of {len(effects):,}; the table has all." if len(effects) > MOST_BARS else "")
        for name, effects in comparison.groups.items()
    ]


def _named(drawings: Mapping[str, Drawing], start: str) -> dict[str, Drawing]:
    """Give every drawing a file name of its own."""
    named: dict[str, Drawing] = {}
    for name, drawing in drawings.items():
        file = start + _slug(name)
        named[file if file not in named else f"{file}-{len(named) + 1}"] = drawing
    return named


def _slug(name: str) -> str:
    """Make part of a file name of what a task or a data set calls itself."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")[:40] or "x"


def _unbroken(text: str) -> str:
    """Keep an interval on one line of the page."""
    return re.sub(r"95 % (\S+) to (\S+)", lambda found: found.group().replace(" ", "\N{NO-BREAK SPACE}"), text)


FILTERS: Mapping[str, Callable[..., Any]] = {
    "score": score_text,
    "metric": metric_text,
    "difference": difference_text,
    "interval": interval_text,
    "range": range_text,
    "p": p_text,
    "shorten": lambda text: cut(text, MOST_CHARACTERS),
    "unbroken": _unbroken,
    "breakable": lambda name: escape(name).replace("_", Markup("_<wbr>")),
    "flat": lambda tree: tuple(flat(tree)),
}
"""What the template writes numbers and names by."""
