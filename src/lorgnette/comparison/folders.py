"""Which results a folder stands for: one result, a folder of results, or a whole run."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lorgnette.comparison.reading import Result, is_result, read_result
from lorgnette.errors import DataError, InputError, typed

BEFORE, AFTER = "before", "after"
ALLOWED = (
    "Allowed: a result folder (result.json and predictions.jsonl), a folder of result folders, or a run folder "
    "(evaluation/before and evaluation/after). Next: lorgnette evaluate MODEL --task NAME"
)


@dataclass(frozen=True, kw_only=True)
class Side:
    """What is compared with another: the results of one model by task, under one name.

    Attributes:
        run: the run folder that made the model, where the results lie in one.
    """

    name: str
    folder: Path
    results: Mapping[str, Result]
    run: Path | None = None


def read_sides(folders: Sequence[Path]) -> list[Side]:
    """Read what is to be compared; the first is the baseline.

    One run folder alone stands for its results before and after; among others it stands for those after.

    Raises:
        InputError: there are fewer than two sides, or one is given twice.
        DataError: a folder holds no result, or a result is broken.
    """
    if len(folders) == 1:
        folder = folders[0]
        if not (folder / "evaluation").is_dir():
            raise InputError(f"{folder}: one folder alone can only be a run folder, and this is none. {ALLOWED}")
        return run_sides(folder)
    twice = [str(folder) for folder, count in Counter(map(os.path.realpath, folders)).items() if count > 1]
    if twice:
        raise InputError(f"{twice[0]} is given twice. Next: name two different results.")
    return [
        Side(name=name, folder=folder, results=_results(folder), run=_run_of(folder))
        for folder, name in zip(folders, names(folders), strict=True)
    ]


def run_sides(run: Path) -> list[Side]:
    """Read what a run measured before and after its training.

    Raises:
        DataError: there is no result of one of the two, or a result is broken.
    """
    sides = []
    for name in (BEFORE, AFTER):
        folder = run / "evaluation" / name
        if not folder.is_dir():
            raise DataError(f"{run}: has no evaluation/{name}. Next: lorgnette run RECIPE --output {typed(run)}")
        sides.append(Side(name=name, folder=folder, results=_results(folder), run=run if name == AFTER else None))
    return sides


def names(folders: Sequence[Path]) -> list[str]:
    """Call each folder by the parts of its path that tell it from the others.

    >>> names([Path("results/base/gqa"), Path("results/tuned/gqa")])
    ['base', 'tuned']
    """
    parts = [Path(os.path.abspath(folder)).parts for folder in folders]
    start = len(os.path.commonprefix(parts))
    end = len(os.path.commonprefix([part[start:][::-1] for part in parts]))
    short = ["/".join(part[start : len(part) - end]) or part[-1] for part in parts]
    return short if len(set(short)) == len(short) else ["/".join(part) for part in parts]


def _results(folder: Path) -> dict[str, Result]:
    """Read the results that a folder stands for, by task."""
    after = folder / "evaluation" / AFTER
    if is_result(folder):
        found = [folder]
    elif (folder / "evaluation").is_dir():
        if not after.is_dir():
            raise DataError(
                f"{folder}: the run has no evaluation/{AFTER}. Next: lorgnette run RECIPE --output {typed(folder)}"
            )
        found = _results_in(after)
    elif folder.is_dir():
        found = _results_in(folder)
    else:
        raise DataError(f"{folder}: there is no such folder. {ALLOWED}")
    if not found:
        raise DataError(f"{folder}: holds no result. {ALLOWED}")
    results: dict[str, Result] = {}
    for result in map(read_result, found):
        if result.name in results:
            both = f"{results[result.name].folder} and {result.folder}"
            raise DataError(
                f"{folder}: holds two results of task {result.name}, {both}. Next: compare one of them, or evaluate "
                "one anew with a --name of its own."
            )
        results[result.name] = result
    return results


def _results_in(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_dir() and is_result(path)]


def _run_of(folder: Path) -> Path | None:
    """Find the run folder whose training made the measured model: results `after`, or the run folder itself."""
    real = folder.resolve()
    for path in (real, *real.parents):
        if path.name == AFTER and path.parent.name == "evaluation":
            return path.parent.parent
    return real if (real / "evaluation" / AFTER).is_dir() else None
