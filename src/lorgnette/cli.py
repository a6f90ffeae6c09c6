"""The command line: one short function a command.

Commands import what they need when they run: `lorgnette --help` should not wait for torch.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import psutil
import typer
from rich.console import Console
from rich.text import Text
from safetensors import SafetensorError

from lorgnette import __version__
from lorgnette.errors import LorgnetteError

if TYPE_CHECKING:
    from lorgnette.recipe.sections import Recipe

app = typer.Typer(
    help="Give a language model eyes, teach it your pictures and your language, and prove that it got better.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
recipe_app = typer.Typer(help="Look at recipes.", no_args_is_help=True)
app.add_typer(recipe_app, name="recipe")

BUSY_PERCENT = 25
"""Threads that spin while they wait are 1.3 times as fast on an idle machine, but 2 to 15 times as slow where other
work shares the cores (a training step of 4 s took 15 to 110 s beside one busy process, 7 s with sleeping threads)."""

console = Console()
errors = Console(stderr=True)

RecipeFile = Annotated[Path, typer.Argument(help="The recipe, a YAML file.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a field: --set stages.0.training.max_steps=50", metavar="FIELD=VALUE"),
]
Output = Annotated[
    Path | None, typer.Option("--output", help="The run folder; runs/RECIPE if not given.", show_default=False)
]


def main() -> None:
    """Run a command; explain what went wrong in one message, with exit code 2 for wrong input and 1 otherwise."""
    try:
        app()
    except LorgnetteError as error:
        errors.print(Text.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)
        sys.exit(error.exit_code)
    except (OSError, SafetensorError) as error:
        errors.print(Text.assemble(("error: ", "bold red"), f"the system refused: {error}"), soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        errors.print("\ninterrupted. Call the same command again: it goes on from here.")
        sys.exit(130)


def _version(value: bool) -> None:
    if value:
        console.print(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Hold the options of every command."""


@app.command()
def quickstart(overrides: Overrides = None, output: Output = None) -> None:
    """Build a small LLaVA, tune it and prove that it got better, on a CPU in minutes.

    Example: lorgnette quickstart
    """
    with resources.as_file(resources.files("lorgnette") / "starter" / "quickstart.yaml") as file:
        _run(file, overrides, output)
    console.print(
        "      lorgnette run recipes/smollm2-dinov2-easyvqa.yaml      (the same with real pretrained models)",
        soft_wrap=True,
    )


@app.command()
def run(recipe: RecipeFile, overrides: Overrides = None, output: Output = None) -> None:
    """Walk the whole road of a recipe: base, measure, train, merge, measure, report. Goes on where it stopped.

    Example: lorgnette run recipes/smollm2-dinov2-easyvqa.yaml --set seed=7
    """
    _run(recipe, overrides, output)


@app.command()
def train(recipe: RecipeFile, overrides: Overrides = None, output: Output = None) -> None:
    """Run only the training stages of a recipe, and merge their result.

    Example: lorgnette train recipes/smollm2-dinov2-easyvqa.yaml
    """
    _settle()
    from lorgnette import experiment  # noqa: PLC0415
    from lorgnette.run import locked  # noqa: PLC0415

    read, folder = _read(recipe, overrides, output)
    with locked(folder):
        experiment.check(read)
        experiment.keep_recipe(read, folder)
        experiment.record_start(read, folder, sys.argv)
        experiment.build_base(read, folder, console)
        merged = experiment.train(read, folder, console)
    console.print(
        f"\nThe model is in {merged}\nNext: lorgnette run {recipe} --output {folder}      (to measure it)",
        soft_wrap=True,
    )


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A LLaVA: folder or hub name.", show_default=False)],
    task: Annotated[str, typer.Option(help="The benchmark, or package.module:Name.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option(help="Result folder; results/MODEL/TASK if not given.", show_default=False)
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Which part of it; the one that its authors score if not given.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many documents.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions at a time.")] = 256,
) -> None:
    """Ask a model a benchmark: predictions.jsonl and result.json. Goes on where it stopped.

    Example: lorgnette evaluate runs/quickstart/merged --task easy-vqa --limit 1000
    """
    _settle()
    from lorgnette.evaluation.evaluate import Settings  # noqa: PLC0415
    from lorgnette.evaluation.evaluate import evaluate as ask  # noqa: PLC0415
    from lorgnette.evaluation.tasks import find_task  # noqa: PLC0415
    from lorgnette.models.loading import fingerprint, load_llava  # noqa: PLC0415
    from lorgnette.run import locked, provenance  # noqa: PLC0415

    found = find_task(task)
    folder = output or Path("results") / Path(model).name / task.replace(":", ".")
    llava = load_llava(model)
    named = {"path": model, "fingerprint": fingerprint(model), "dtype": str(llava.core.dtype).removeprefix("torch.")}
    with locked(folder):
        result = ask(
            llava,
            found,
            folder,
            Settings(split=split, limit=limit, batch_size=batch_size),
            model=named,
            versions=provenance(sys.argv)["versions"],
            console=console,
            label=task,
        )
    low, high = result["interval"]
    console.print(
        f"{result['metric']} {result['score']:.3f} on {result['n']:,} documents (95 % interval {low:.3f} to {high:.3f})"
    )
    for kind, part in result["kinds"].items():
        console.print(f"  {kind}: {part['score']:.3f} on {part['n']:,}", markup=False)
    console.print(
        f"Results are in {folder}\nNext: lorgnette compare {folder} OTHER-RESULT", soft_wrap=True, markup=False
    )


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(help="A result folder.", show_default=False)],
    after: Annotated[Path, typer.Argument(help="A result folder on the same documents.", show_default=False)],
    output: Annotated[Path | None, typer.Option(help="Write comparison.json here.", show_default=False)] = None,
) -> None:
    """Compare two results on the same documents: difference, interval, p-value, per kind.

    Example: lorgnette compare runs/quickstart/evaluation/before/easy-vqa runs/quickstart/evaluation/after/easy-vqa
    """
    from lorgnette.comparison.compare import compare as pair  # noqa: PLC0415
    from lorgnette.comparison.compare import print_table, read_result, write_comparison  # noqa: PLC0415

    comparison = pair(read_result(before), read_result(after))
    print_table([comparison], console)
    if output is not None:
        write_comparison(output, [comparison])
        console.print(f"Written to {output}", soft_wrap=True, markup=False)


@recipe_app.command("schema")
def recipe_schema() -> None:
    """Print the JSON schema of recipes, for your editor.

    Example: lorgnette recipe schema > recipe.schema.json
    """
    from lorgnette.recipe.sections import recipe_schema as schema  # noqa: PLC0415

    print(json.dumps(schema(), indent=2, ensure_ascii=False))


@recipe_app.command("show")
def recipe_show(recipe: RecipeFile, overrides: Overrides = None) -> None:
    """Check a recipe and print it with every default filled in.

    Example: lorgnette recipe show recipes/smollm2-dinov2-easyvqa.yaml --set seed=7
    """
    from lorgnette.recipe.reading import read_recipe, resolved_yaml  # noqa: PLC0415

    print(resolved_yaml(read_recipe(recipe, overrides or [])), end="")


def _read(recipe: Path, overrides: list[str] | None, output: Path | None) -> tuple[Recipe, Path]:
    from lorgnette.recipe.reading import read_recipe  # noqa: PLC0415

    read = read_recipe(recipe, overrides or [])
    return read, output or Path(read.output or Path("runs") / recipe.stem)


def _run(recipe: Path, overrides: list[str] | None, output: Path | None) -> None:
    _settle()
    from lorgnette.experiment import run_recipe  # noqa: PLC0415

    read, folder = _read(recipe, overrides, output)
    comparisons = run_recipe(read, folder, sys.argv, console)
    console.print(f"\nEverything is in {folder}", soft_wrap=True, markup=False)
    if comparisons:
        console.print(f"Next: open {folder / 'report.html'}", soft_wrap=True, markup=False)
        console.print(
            f"      lorgnette evaluate {folder / 'merged'} --task {comparisons[0].task}", soft_wrap=True, markup=False
        )


def _settle() -> None:
    """Do what has to be done before torch is imported: choose how its threads wait, and quiet the libraries."""
    if psutil.cpu_percent(interval=0.2) > BUSY_PERCENT:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _quiet_libraries()


def _quiet_libraries() -> None:
    """Keep the libraries' own bars and hints off the screen; their errors still come through."""
    from transformers.utils import logging  # noqa: PLC0415

    # libraries that call each other by old names; nothing a user can act on
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft|accelerate)\.")
    logging.disable_progress_bar()
    logging.set_verbosity_error()
