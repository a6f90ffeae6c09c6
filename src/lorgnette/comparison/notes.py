"""What must be said beside the numbers of a comparison so that nobody believes more than they show."""

from __future__ import annotations

from collections.abc import Iterator

from lorgnette.comparison.comparable import flat
from lorgnette.comparison.effects import NOT_SHOWN, TaskComparison
from lorgnette.comparison.reading import Result
from lorgnette.comparison.statistics import Interval
from lorgnette.comparison.wording import interval_text

WIDER = 1.2
"""From this factor on it is said that questions about one image hang together."""
FEW_SAMPLES = 30
"""Below this a percentile bootstrap is visibly too narrow."""
OF_THE_MODEL = ("model.", "versions.")


def notes(numbers: TaskComparison, before: Result, after: Result) -> tuple[str, ...]:
    """Collect the notes on a comparison, the most important first."""
    return (
        *_warnings(numbers, before, after),
        *_answers(numbers, before, after),
        *_metrics(numbers, before, after),
        *_images(numbers),
        *_few(numbers),
        *_conditions(before, after),
    )


def _warnings(numbers: TaskComparison, before: Result, after: Result) -> Iterator[str]:
    """Repeat what the evaluation warned of."""
    warned = {name: result.summary.get("warnings") for name, result in _named(numbers, before, after)}
    lists = {name: [str(line) for line in lines] for name, lines in warned.items() if isinstance(lines, list)}
    for line in dict.fromkeys(line for lines in lists.values() for line in lines):
        having = [name for name, lines in lists.items() if line in lines]
        yield line if len(having) == 2 else f"{line} (only in {having[0]})"


def _answers(numbers: TaskComparison, before: Result, after: Result) -> Iterator[str]:
    """Count the answers that say little of what a model knows: a wrong prompt or template looks like a bad model."""
    for what, counted in (
        ("unread, and so wrong", lambda row: not row.read),
        ("cut at the most tokens that an answer may have", lambda row: row.stopped_by == "length"),
    ):
        first, second = (sum(map(counted, result.predictions)) for result in (before, after))
        if first or second:
            yield f"{what}: {first:,} of {numbers.n:,} answers in {numbers.baseline}, {second:,} in {numbers.candidate}"


def _metrics(numbers: TaskComparison, before: Result, after: Result) -> Iterator[str]:
    """Name the metrics that cannot be compared because only one result has them, or has them made otherwise."""
    first, second = before.summary["scores"], after.summary["scores"]
    names = numbers.baseline, numbers.candidate
    for name in sorted(first.keys() ^ second.keys()):
        yield f"{name} is not compared: only {numbers.baseline if name in first else numbers.candidate} has it"
    for name in sorted(first.keys() & second.keys()):
        if first[name].get("aggregate") != second[name].get("aggregate"):
            yield f"{name} is not compared: it is aggregated in two ways"
        elif first[name].get("note") != second[name].get("note"):
            made = (
                f"{scores[name].get('note')} in {model}" for model, scores in zip(names, (first, second), strict=True)
            )
            yield f"{name} was computed in two ways: {', '.join(made)}"


def _images(numbers: TaskComparison) -> Iterator[str]:
    """Say how much wider the interval is when the questions on one image do not count as independent."""
    if numbers.image_factor < WIDER:
        return
    middle, factor = numbers.difference, numbers.image_factor
    wide = Interval(
        middle - factor * (middle - numbers.interval.low), middle + factor * (numbers.interval.high - middle)
    )
    lost = numbers.verdict != NOT_SHOWN and wide.low <= 0.0 <= wide.high
    yield (
        f"answers to questions on one image hang together; counted by images the interval is {factor:.1f} times as "
        f"wide, {interval_text(wide)}" + (", and the difference is no longer shown" if lost else "")
    )


def _few(numbers: TaskComparison) -> Iterator[str]:
    """Name where there are too few documents for an interval by resampling."""
    few = [effect.value for effects in numbers.groups.values() for effect in effects if effect.n < FEW_SAMPLES]
    if numbers.n < FEW_SAMPLES or few:
        yield f"where n is below {FEW_SAMPLES} the interval is narrower than it should be: look at the p-value there"


def _conditions(before: Result, after: Result) -> Iterator[str]:
    """Name what else differs but says nothing about the documents: batch size, template, limits."""
    compared_already = ("task", "metric", "prompt", "options", "decoding", "data")
    measured = ("n", "score", "stderr", "interval", "kinds", "groups", "scores", "counts", "warnings")
    counted = ("unread", "unread_share", "stopped_by_length", "stopped_by_length_share")
    left_out = (*compared_already, *measured, *counted, *OF_THE_MODEL)
    first, second = (
        dict(flat({name: value for name, value in result.summary.items() if name not in left_out}))
        for result in (before, after)
    )
    names = [name for name in dict.fromkeys([*first, *second]) if first.get(name) != second.get(name)]
    names = [name for name in names if not name.startswith(OF_THE_MODEL)]
    if names:
        yield f"also different: {', '.join(names)}"


def _named(numbers: TaskComparison, before: Result, after: Result) -> tuple[tuple[str, Result], tuple[str, Result]]:
    return (numbers.baseline, before), (numbers.candidate, after)
