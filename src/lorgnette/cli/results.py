"""Commands about results: evaluate."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from lorgnette.cli.terminal import console, settle


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
    settle()
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
