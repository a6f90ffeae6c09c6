"""Commands about results: evaluate, score."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lorgnette.cli.terminal import console, named_values, say, settle
from lorgnette.errors import InputError, typed

TASK_HELP = "easy-vqa, gqa, gqa-ru, mmbench, mmbench-ru, vqa, captions, instruct, or your own as package.module:Name."
Name = Annotated[
    str | None,
    typer.Option(help="What the result is called where TASK is measured on several sets.", show_default=False),
]
Images = Annotated[str | None, typer.Option(help="The folder of its images.", show_default=False)]
TaskOption = Annotated[
    list[str] | None, typer.Option(help="What the task can be told.", metavar="NAME=VALUE", show_default=False)
]
Split = Annotated[str | None, typer.Option(help="Which part of it; the one that its authors score if not given.")]


def evaluate(
    model: Annotated[
        str, typer.Argument(help="A LLaVA, a T5, or `trained/` of a stage: folder or hub name.", show_default=False)
    ],
    task: Annotated[str, typer.Option(help=TASK_HELP, show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option(
            help="Result folder; results/MODEL/TASK if not given, a-merged/TASK for runs/a/merged.", show_default=False
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Its documents: hub name, folder or file.", show_default=False)
    ] = None,
    name: Name = None,
    images: Images = None,
    option: TaskOption = None,
    prompt: Annotated[
        str | None, typer.Option(help="Text around a question, with {question}.", show_default=False)
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens of an answer.")] = None,
    split: Split = None,
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
    from lorgnette.locking import locked  # noqa: PLC0415
    from lorgnette.models.adapted import load_model_or_adapter  # noqa: PLC0415
    from lorgnette.models.fingerprint import fingerprint  # noqa: PLC0415
    from lorgnette.models.loading import dtype_name  # noqa: PLC0415
    from lorgnette.run import provenance  # noqa: PLC0415

    found = find_task(task, task_options(data, images, option))
    folder = output or Path("results") / result_name(model) / result_folder(task, name)
    learner = load_model_or_adapter(model)
    named = {
        "path": model,
        "fingerprint": fingerprint(model),
        "dtype": dtype_name(learner.core.dtype),
        "quantization": learner.quantization,
    }
    if learner.source != model:
        named["base_fingerprint"] = fingerprint(learner.source)
    with locked(folder):
        result = ask(
            learner,
            found,
            folder,
            Settings(split, limit, max_new_tokens, prompt, batch_size),
            model=named,
            versions=provenance(sys.argv)["versions"],
            console=console,
            label=name or task,
            name=name,
        )
    show_result(result)
    say(f"Results are in {folder}\nNext: lorgnette compare {typed(folder)} OTHER-RESULT")


def score(
    predictions: Annotated[Path, typer.Argument(help="Answers of any tool, JSON or JSON lines.", show_default=False)],
    task: Annotated[str, typer.Option(help=TASK_HELP, show_default=False)],
    references: Annotated[
        str | None,
        typer.Option(help="Its documents: file, folder or hub name; the task's own if not given.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Result folder; results/FILE/TASK if not given, FILE as answers.json.", show_default=False),
    ] = None,
    name: Name = None,
    images: Images = None,
    option: TaskOption = None,
    split: Split = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many documents.")] = None,
    id_field: Annotated[str | None, typer.Option(help="The column with the ids.", show_default=False)] = None,
    answer_field: Annotated[str | None, typer.Option(help="The column with the answers.", show_default=False)] = None,
    unmatched: Annotated[
        Literal["error", "wrong", "drop"], typer.Option(help="Documents without an answer: refuse, count, leave out.")
    ] = "error",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")] = False,
) -> None:
    """Score answers that are there already, of any tool: the same numbers as `evaluate`, and no model is loaded.

    Example: lorgnette score final.json --task captions --references dataset_rsicd.json
    """
    from lorgnette.evaluation.score_file import score_file  # noqa: PLC0415
    from lorgnette.evaluation.tasks import find_task  # noqa: PLC0415
    from lorgnette.locking import locked  # noqa: PLC0415

    found = find_task(task, task_options(references, images, option))
    folder = output or Path("results") / predictions.name / result_folder(task, name)
    with locked(folder):
        result = score_file(
            predictions,
            found,
            None if references is None else Path(references),
            folder,
            split=split,
            limit=limit,
            id_name=id_field,
            answer_name=answer_field,
            unmatched=unmatched,
            name=name,
        )
    if as_json:
        print(json.dumps(result, indent=2, ensure_ascii=False))
        return
    show_result(result)
    say(
        f"Results are in {folder}\nNext: lorgnette compare {typed(folder)} OTHER-RESULT",
        "      --intersect where the other is of `evaluate`: nobody knows how these answers were asked for",
    )


def result_name(model: str) -> str:
    """Return what a model's results are called where nobody says: runs/quickstart/merged is quickstart-merged.

    Every run's model is called `merged`, so the last folder alone would mix them up: the name is what follows `runs`
    without `stages`, or else a relative path or hub name whole, and of an absolute path its last two names.
    """
    path = Path(os.path.expanduser(model))
    if path.is_absolute() or not path.parts or ".." in path.parts:
        path = path.resolve()
    places = list(path.parts)
    after = places[len(places) - places[::-1].index("runs") :] if "runs" in places else []
    if not after:
        after = places[1:][-2:] if path.is_absolute() else places
    if "runs" in places:
        after = [name for name in after if name != "stages"] or after
    return "-".join(after).replace(":", ".") or "model"


def result_folder(task: str, name: str | None) -> str:
    """Return the name of the folder of a task's result.

    Raises:
        InputError: if the name is none that a recipe could give.
    """
    from lorgnette.recipe.sections import TASK_NAME  # noqa: PLC0415

    if name is not None and re.fullmatch(TASK_NAME, name) is None:
        raise InputError(
            f"--name: got {name!r:.80}. Allowed: letters, digits and _.:- as in a recipe. Next: --name ucm"
        )
    return (name or task).replace(":", ".")


def task_options(data: str | None, images: str | None, options: list[str] | None) -> dict[str, str]:
    """Return what a task is made with, from --data, --images and --option NAME=VALUE.

    Raises:
        InputError: if an option has no name or no `=`.
    """
    places = {name: value for name, value in (("path", data), ("images", images)) if value is not None}
    return places | named_values(options)


def show_result(result: dict[str, Any]) -> None:
    """Print the scores of a result with their intervals, what was counted, and what to know about them."""
    from lorgnette.evaluation.metrics.aggregate import metric_text  # noqa: PLC0415

    main = result["metric"]
    for name in [main, *(name for name in result["scores"] if name != main)]:
        found = result["scores"][name]
        low, high = found["interval"]
        indent = "" if name == main else "  "
        of = "documents" if found["n"] == result["n"] else f"of {result['n']:,} documents"
        value = f"{found['score']:.3f} on {found['n']:,} {of} (95 % interval {low:.3f} to {high:.3f})"
        say(f"{indent}{metric_text(name)} {value}")
    for grouping, groups in {"kind": result["kinds"], **result["groups"]}.items():
        if groups and grouping != "kind":
            say(f"  by {grouping}")
        for name, group in groups.items():
            say(f"  {name}: {group['score']:.3f} on {group['n']:,}")
    for name, share in (("unread", result["unread_share"]), ("stopped_by_length", result["stopped_by_length_share"])):
        if result[name]:
            say(f"  {name.replace('_', ' ')}: {result[name]:,} ({share:.1%})")
    for name, count in (result["counts"] | result["data"]["unusable"]).items():
        if count:
            say(f"  {name.replace('_', ' ')}: {count:,}")
    made_by = {**result["options"], **(result["decoding"] or {})}
    told = [f"{name} {value}" for name, value in made_by.items() if value is not None]
    if result["prompt"]:
        told.append(f"prompt {json.dumps(result['prompt'], ensure_ascii=False)}")
    if told:
        say(f"  with {', '.join(told)}")
    for warning in result["warnings"]:
        console.print(f"warning: {warning}", style="yellow", markup=False, soft_wrap=not console.is_terminal)
