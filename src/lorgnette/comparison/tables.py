"""The numbers of comparisons as tables: in the terminal, as JSON, CSV and Markdown; and every win and loss."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lorgnette.comparison.effects import Compared, Effect, TaskComparison
from lorgnette.comparison.wording import (
    METHODS,
    count_text,
    counts_text,
    difference_text,
    interval_text,
    p_text,
    score_text,
    sentences,
    shortened,
)
from lorgnette.evaluation.metrics.aggregate import metric_text
from lorgnette.pages import printable
from lorgnette.progress import print_table
from lorgnette.run import write_json, write_json_lines, write_text

COLUMNS = (
    *("task", "baseline", "candidate", "metric", "grouping", "value", "n", "before", "before_low", "before_high"),
    *("after", "after_low", "after_high", "difference", "difference_low", "difference_high"),
    *("p_value", "p_corrected", "test", "wins", "losses", "verdict"),
)
LONGEST_HEADING = 8


def write_tables(folder: Path, compared: Sequence[Compared]) -> None:
    """Write comparison.json, .csv and .md and changes.jsonl, each whole or not at all."""
    numbers = [made.numbers for made in compared]
    write_json(folder / "comparison.json", {"tasks": [comparison.as_json() for comparison in numbers]})
    write_text(folder / "comparison.csv", as_csv(numbers))
    write_text(folder / "comparison.md", as_markdown(numbers))
    write_json_lines(folder / "changes.jsonl", [row for made in compared for row in changes(made)])


def changes(compared: Compared) -> Iterator[dict[str, Any]]:
    """Yield every win and loss: the question and both answers with their scores, losses first."""
    numbers = compared.numbers
    pairs = list(zip(compared.before.predictions, compared.after.predictions, strict=True))
    for change, sign in (("loss", -1), ("win", 1)):
        for before, after in pairs:
            if (after.score - before.score) * sign > 0:
                yield {
                    "task": numbers.task,
                    "baseline": numbers.baseline,
                    "candidate": numbers.candidate,
                    "id": before.id,
                    "change": change,
                    "before": before.score,
                    "after": after.score,
                    "image": before.image,
                    "question": before.question,
                    "references": list(before.references),
                    "answer_before": before.answer,
                    "answer_after": after.answer,
                }


def print_tables(comparisons: Sequence[TaskComparison], console: Console) -> None:
    """Print a table a candidate, what must be said beside it, and what it shows in a sentence."""
    whole = not console.is_terminal  # a person reads lines broken between words, a program reads whole lines
    for candidate in dict.fromkeys(comparison.candidate for comparison in comparisons):
        own = [comparison for comparison in comparisons if comparison.candidate == candidate]
        print_table(_table(own), console, first_gives=True)
        for comparison in own:
            name = printable(f"{comparison.task}, {metric_text(comparison.metric)}")
            console.print(Text(f"{name}: {counts_text(comparison)}"), soft_wrap=whole)
            for note in comparison.notes:
                console.print(Text(f"{name}: {printable(note)}", "yellow"), soft_wrap=whole)
    console.print(Text("p-values are Holm-corrected; below a task, within each of its groupings", "dim"))
    for line in sentences(comparisons):
        console.print(Text(line, "bold"), soft_wrap=whole)


def print_changes(compared: Sequence[Compared], most: int, console: Console) -> None:
    """Print some losses and wins of every comparison, chosen by the order of ids."""
    for made in compared:
        rows = list(changes(made))
        for change in ("loss", "win"):
            some = [row for row in rows if row["change"] == change]
            name = f"{printable(made.numbers.candidate)} on {printable(made.numbers.task)}"
            plural = {"loss": "losses", "win": "wins"}[change]
            console.print(Text(f"\n{name}: {min(most, len(some))} of {len(some):,} {plural}", "bold"))
            for row in some[:most]:
                lines = (
                    f"{row['id']}: {row['question']}",
                    f"reference: {' | '.join(row['references'])}",
                    f"{made.numbers.baseline}: {row['answer_before']} ({score_text(row['before'])})",
                    f"{made.numbers.candidate}: {row['answer_after']} ({score_text(row['after'])})",
                )
                for indent, line in zip(("  ", *3 * ("    ",)), lines, strict=True):
                    console.print(Text(indent + shortened(line, 300)), soft_wrap=True)


def rows_of(comparison: TaskComparison) -> Iterator[tuple[str, str, str, Effect]]:
    """Yield every line of a table as (metric, grouping, value, effect): task, groups, further metrics."""
    yield comparison.metric, "", "", comparison
    for grouping, effects in comparison.groups.items():
        for effect in effects:
            yield comparison.metric, grouping, effect.value, effect
    for other in comparison.metrics:
        yield other.metric, "", "", other


def as_csv(comparisons: Sequence[TaskComparison]) -> str:
    """Return all numbers in full precision, a line a task, group and metric; columns are `COLUMNS`."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for comparison in comparisons:
        for metric, grouping, value, e in rows_of(comparison):
            names = (comparison.task, comparison.baseline, comparison.candidate, metric, grouping, value)
            numbers = (e.n, e.before, *e.before_interval, e.after, *e.after_interval, e.difference, *e.interval)
            verdict = e.verdict if e is comparison else ""
            rest = (e.p_value, e.p_corrected, e.test, e.wins, e.losses, verdict)
            writer.writerow([*map(_no_formula, names), *numbers, *rest])
    return stream.getvalue()


def as_markdown(comparisons: Sequence[TaskComparison]) -> str:
    """Return a table a candidate for a README or a pull request, and the sentence that says what it shows."""
    lines = []
    for line in sentences(comparisons):
        lines += [f"**{_plain_markdown(line)}**", ""]
    for candidate in dict.fromkeys(comparison.candidate for comparison in comparisons):
        own = [comparison for comparison in comparisons if comparison.candidate == candidate]
        before, after = _plain_markdown(own[0].baseline), _plain_markdown(candidate)
        lines += [f"| | n | {before} | {after} | difference | 95 % interval | p-value | better | worse |"]
        lines += ["|---|---:|---:|---:|---:|---|---|---:|---:|"]
        for comparison in own:
            for metric, grouping, value, effect in rows_of(comparison):
                main = effect is comparison
                name = f"{comparison.task}, {metric_text(metric)}" if main else _line_name(metric, grouping, value)
                cells = (_plain_markdown(name), *_cells(effect), count_text(effect.wins), count_text(effect.losses))
                lines.append(f"| {' | '.join(cells)} |")
        lines += ["", *(f"- {_plain_markdown(f'{c.task}: {note}')}" for c in own for note in c.notes), ""]
    return "\n".join([*lines, METHODS, ""])


def _table(comparisons: Sequence[TaskComparison]) -> Table:
    """Make one candidate's table: a line a task, and indented below it a line a group and a further metric."""
    baseline, candidate = comparisons[0].baseline, comparisons[0].candidate
    table = Table(
        title=Text(f"{printable(candidate)} against {printable(baseline)}"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("task")  # the only column that gives way where the terminal is narrow
    for heading in ("n", *headings(baseline, candidate), "diff.", "95 % interval", "p-value"):
        table.add_column(Text(heading), justify="right", no_wrap=True)
    for comparison in comparisons:
        table.add_section()
        last = "kind"  # the grouping that needs no line of its own
        for metric, grouping, value, effect in rows_of(comparison):
            main = effect is comparison
            if grouping not in ("", last):
                table.add_row(_line(f"  by {grouping}"), style="dim")
            last = grouping or "kind"
            table.add_row(
                _line(comparison.task if main else f"  {value or metric_text(metric)}"),
                *_cells(effect),
                style="bold" if main else "",
            )
    return table


def headings(baseline: str, candidate: str) -> tuple[str, str]:
    """Return two short names that differ, for columns; the title above has the whole ones.

    >>> headings("gemma-merged", "gemma-finetune")
    ('merged', 'finetune')
    """
    same = len(os.path.commonprefix([baseline, candidate]))
    for first, second in ((baseline, candidate), (baseline[same:], candidate[same:])):
        short = (shortened(first, LONGEST_HEADING), shortened(second, LONGEST_HEADING))
        if all(short) and short[0] != short[1]:
            return short
    return "baseline", "other"


def _line(name: str) -> Text:
    """Write a name on one line; never markup, for a group is whatever the data set calls it."""
    return Text(printable(name), no_wrap=True, overflow="ellipsis")


def _cells(effect: Effect) -> tuple[str, ...]:
    """Write the numbers of one line."""
    return (
        f"{effect.n:,}",
        score_text(effect.before),
        score_text(effect.after),
        difference_text(effect.difference),
        interval_text(effect.interval),
        p_text(effect.p_corrected),
    )


def _line_name(metric: str, grouping: str, value: str) -> str:
    """Name a line below its task: a group by its value, and by its grouping where that says more than "kind"."""
    if not grouping:
        return metric_text(metric)
    return value if grouping == "kind" else f"{grouping}: {value}"


def _no_formula(text: str) -> str:
    """Keep a spreadsheet from computing a name that a data set chose (OWASP, "CSV Injection")."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _plain_markdown(text: str) -> str:
    """Keep a name from being read as Markdown or HTML."""
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]<>|#" else letter for letter in printable(text))
