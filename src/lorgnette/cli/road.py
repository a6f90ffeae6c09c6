"""Commands that walk the road of a recipe: quickstart, run, train."""

from __future__ import annotations

import shlex
import sys
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from lorgnette.cli.terminal import Output, Overrides, RecipeFile, console, say, settle

if TYPE_CHECKING:
    from lorgnette.recipe.sections import Recipe


PROVENANCE = "provenance.jsonl"
"""In a run folder from its first start on."""


def quickstart(overrides: Overrides = None, output: Output = None) -> None:
    """Build a small LLaVA, tune it and prove that it got better, on a CPU in minutes.

    Example: lorgnette quickstart
    """
    with resources.as_file(resources.files("lorgnette") / "starter" / "quickstart.yaml") as file:
        _run(file, overrides, output)
    say("      lorgnette run recipes/smollm2-dinov2-easyvqa.yaml      (the same with real pretrained models)")


def run(recipe: RecipeFile, overrides: Overrides = None, output: Output = None) -> None:
    """Walk the whole road of a recipe: base, measure, train, merge, measure, report. Goes on where it stopped.

    Example: lorgnette run recipes/smollm2-dinov2-easyvqa.yaml --set seed=7
    """
    _run(recipe, overrides, output)


def train(recipe: RecipeFile, overrides: Overrides = None, output: Output = None) -> None:
    """Run only the training stages of a recipe, and merge their result.

    Example: lorgnette train recipes/smollm2-dinov2-easyvqa.yaml
    """
    settle()
    from lorgnette import experiment  # noqa: PLC0415
    from lorgnette.locking import locked  # noqa: PLC0415

    read, folder = _read(recipe, overrides, output)
    with locked(folder):
        _, data = experiment.begin(read, folder, sys.argv, console)
        experiment.build_base(read, folder, console)
        merged = experiment.train(read, folder, data, console)
    kept = str(folder / "recipe.yaml")  # with what --set changed
    words = ["run", kept] if read.evaluation else ["evaluate", merged, "--task", "NAME"]
    say(f"\nThe model is in {merged}\nNext: lorgnette {shlex.join(words)}      (to measure it)")


def _read(recipe: Path, overrides: list[str] | None, output: Path | None) -> tuple[Recipe, Path]:
    from lorgnette.recipe.reading import read_recipe  # noqa: PLC0415

    read = read_recipe(recipe, overrides or [])
    if output is None and (recipe.parent / PROVENANCE).exists() and recipe.name == "recipe.yaml":
        return read, recipe.parent  # the recipe that a run has kept goes on with that run
    return read, output or Path(read.output or Path("runs") / recipe.stem)


def _run(recipe: Path, overrides: list[str] | None, output: Path | None) -> None:
    settle()
    from lorgnette.experiment import run_recipe  # noqa: PLC0415

    read, folder = _read(recipe, overrides, output)
    comparisons = run_recipe(read, folder, sys.argv, console)
    say(f"\nEverything is in {folder}")
    steps = [f"open {shlex.quote(str(folder / 'report.html'))}"] if comparisons else []
    steps.append(f"lorgnette serve {shlex.quote(str(folder / 'merged'))}      (to ask it yourself)")
    say("Next: " + "\n      ".join(steps))
