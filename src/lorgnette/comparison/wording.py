"""How numbers, names and verdicts of a comparison are written, the same in the terminal and on the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from lorgnette.comparison.effects import ALPHA, BETTER, NOT_SHOWN, WORSE, TaskComparison
from lorgnette.comparison.folders import AFTER, BEFORE
from lorgnette.comparison.statistics import Interval
from lorgnette.pages import printable

MINUS = "\N{MINUS SIGN}"
METHODS = (
    "Intervals are 95 %: of a score Wilson's where every score is at an end of its scale or all are equal, a bootstrap "
    "otherwise; of a difference the paired bootstrap. p-values are two-sided: McNemar's exact test where every score "
    "is 0 or 1, random sign flips otherwise, random swaps of rows for metrics of the whole corpus. They are corrected "
    "by Holm's method: over all tasks and candidates together, within each grouping, and over the further metrics of a "
    "task. Better and worse are said only where the corrected p-value is below "
    f"{ALPHA} and the interval leaves out zero."
)


def score_text(score: float) -> str:
    """Format a score: 0.913."""
    return f"{score:.3f}".replace("-", MINUS)


def difference_text(difference: float) -> str:
    """Format a difference with its sign: +0.840. What rounds to zero has a plus, never a minus."""
    return f"{round(difference, 3) + 0.0:+.3f}".replace("-", MINUS)


def interval_text(interval: Interval) -> str:
    """Format an interval of a difference: +0.820 to +0.860."""
    return f"{difference_text(interval.low)} to {difference_text(interval.high)}"


def range_text(interval: Interval) -> str:
    """Format an interval of a score: 0.901–0.924."""
    return f"{score_text(interval.low)}\N{EN DASH}{score_text(interval.high)}"


def p_text(p: float) -> str:
    """Format a p-value: 0.021, or `< 0.001`."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def count_text(count: int | None) -> str:
    """Format a count: 1,530; a dash where there is none."""
    return "–" if count is None else f"{count:,}"


def shortened(text: str, longest: int) -> str:
    """Cut a long name, and make it printable."""
    clean = printable(text)
    return clean if len(clean) <= longest else clean[: longest - 1] + "\N{HORIZONTAL ELLIPSIS}"


def effect_text(comparison: TaskComparison) -> str:
    """Say how large a difference is: "+23.0 points, 95 % 21.1 to 24.9".

    A point is a hundredth where scores lie between 0 and 1; other scores keep their own scale: "+0.113 cider".
    """
    factor, digits, unit = (100.0, 1, "points") if comparison.shares else (1.0, 3, comparison.metric)
    low, middle, high = (
        round(value * factor, digits) + 0.0
        for value in (comparison.interval.low, comparison.difference, comparison.interval.high)
    )
    text = f"{middle:+.{digits}f} {unit}, 95 % {low:.{digits}f} to {high:.{digits}f}"
    return text.replace("-", MINUS)


def sentence(comparisons: Sequence[TaskComparison]) -> str:
    """Say what the comparisons of one candidate show, in a sentence without its full stop.

    "better on MMBench-ru: +23.0 points, 95 % 21.1 to 24.9; no difference shown on GQA-ru". What got worse is never
    left out, and what shows no difference is not called equal.
    """
    said = [f"{v} on {c.task}: {effect_text(c)}" for v in (BETTER, WORSE) for c in comparisons if c.verdict == v]
    silent = [c.task for c in comparisons if c.verdict == NOT_SHOWN]
    if silent:
        said.append(f"{NOT_SHOWN} on {', '.join(silent)}")
    return printable("; ".join(said))


def sentences(comparisons: Iterable[TaskComparison]) -> list[str]:
    """Say the same of every candidate, each with its name: "tuned against base: better on ...".

    A run's own before and after need no names.
    """
    found = []
    for names, own in groupby(comparisons, lambda c: (c.baseline, c.candidate)):
        said = sentence(list(own))
        run = names == (BEFORE, AFTER)
        found.append(
            said[0].upper() + said[1:] if run else f"{printable(names[1])} against {printable(names[0])}: {said}"
        )
    return found


def counts_text(comparison: TaskComparison) -> str:
    """Say how many answers changed for better and for worse: "1,530 answers better, 16 worse, 2,454 the same"."""
    wins, losses = comparison.wins or 0, comparison.losses or 0
    return f"{wins:,} answers better, {losses:,} worse, {comparison.n - wins - losses:,} the same"
