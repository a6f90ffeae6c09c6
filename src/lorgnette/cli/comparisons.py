"""The command that compares results: compare."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lorgnette.cli.terminal import console, errors, say
from lorgnette.errors import InputError

if TYPE_CHECKING:
    from lorgnette.comparison.effects import Compared
    from lorgnette.comparison.folders import Side


def compare(
    results: Annotated[
        list[Path],
        typer.Argument(
            help="Two or more of: a result folder, a folder of result folders, a run folder (its results after the "
            "training). The first is the baseline. One run folder alone: before against after.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            help="Write comparison.json, .csv and .md, changes.jsonl (every win and loss), report.html and plots/ "
            "into this folder.",
            show_default=False,
        ),
    ] = None,
    intersect: Annotated[
        bool,
        typer.Option("--intersect", help="Compare what is equal although documents, prompts or tasks differ."),
    ] = False,
    fail_if_worse: Annotated[
        bool,
        typer.Option(
            "--fail-if-worse",
            help="Exit with 1 if a candidate is significantly worse on a task: Holm-corrected p-value below 0.05 and "
            "the whole 95 % interval of the difference below zero.",
        ),
    ] = False,
    samples: Annotated[int, typer.Option(min=0, help="Also print so many losses and wins a task.")] = 0,
) -> None:
    """Compare results on the same documents: difference, interval, corrected p-value, per category, wins and losses.

    Example: lorgnette compare results/base results/tuned --output comparisons/tuned --fail-if-worse
    """
    from lorgnette.comparison.compare import compare_sides  # noqa: PLC0415
    from lorgnette.comparison.effects import WORSE  # noqa: PLC0415
    from lorgnette.comparison.folders import read_sides  # noqa: PLC0415
    from lorgnette.comparison.tables import print_changes, print_tables  # noqa: PLC0415

    if output is not None and output.exists() and not output.is_dir():
        raise InputError(f"{output}: is a file, and --output is a folder. Next: choose another --output.")
    sides = read_sides(results)
    compared = compare_sides(sides, intersect=intersect)
    comparisons = [made.numbers for made in compared]
    print_tables(comparisons, console)
    if samples:
        print_changes(compared, samples, console)
    if output is None:
        line = "Next: add --output FOLDER for tables, every changed answer and report.html"
    else:
        line = f"Results are in {output}\nNext: open {_write(output, _title(results, sides), sides, compared)}"
    say(line)
    worse = [comparison for comparison in comparisons if comparison.verdict == WORSE]
    if fail_if_worse and worse:
        names = ", ".join(f"{comparison.candidate} on {comparison.task}" for comparison in worse)
        errors.print(f"significantly worse: {names}", soft_wrap=True, markup=False)
        raise typer.Exit(1)


def _title(results: Sequence[Path], sides: Sequence[Side]) -> str:
    """Call the page as what was compared: a run by its name."""
    if len(results) == 1:
        return results[0].resolve().name
    return f"{', '.join(side.name for side in sides[1:])} against {sides[0].name}"


def _write(folder: Path, title: str, sides: Sequence[Side], compared: Sequence[Compared]) -> Path:
    """Write everything about a comparison into a folder; return the page."""
    from lorgnette.comparison.report import write_report  # noqa: PLC0415
    from lorgnette.comparison.tables import write_tables  # noqa: PLC0415
    from lorgnette.comparison.training_record import read_training  # noqa: PLC0415

    runs = list(dict.fromkeys(side.run for side in sides if side.run is not None))
    write_tables(folder, compared)
    write_report(folder, title=title, compared=compared, trainings=[read_training(run) for run in runs])
    return folder / "report.html"
