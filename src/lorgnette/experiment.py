"""The whole road on one screen: base, measure, stages, merge, measure, compare, report.

The one place where training, evaluation and comparison meet. Every step leaves a folder or file that is whole or
absent, so calling it again does only what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import set_seed

from lorgnette.comparison.compare import compare_sides
from lorgnette.comparison.effects import TaskComparison
from lorgnette.comparison.folders import AFTER, BEFORE, run_sides
from lorgnette.comparison.report import write_report
from lorgnette.comparison.tables import print_tables, write_tables
from lorgnette.comparison.training_record import read_training
from lorgnette.errors import InputError
from lorgnette.evaluation.evaluate import Settings, evaluate
from lorgnette.evaluation.schema import RESULT
from lorgnette.kept_recipe import keep_recipe
from lorgnette.locking import locked
from lorgnette.models.fingerprint import fingerprint
from lorgnette.models.learner import load_model, save_model
from lorgnette.models.loading import DTYPES
from lorgnette.preflight import check, read_data, warn_of_leaks
from lorgnette.processes import is_main, processes
from lorgnette.recipe.sections import Recipe, Stage, TaskSpec
from lorgnette.recipe_data import task_of
from lorgnette.recipe_model import built, plan_of
from lorgnette.run import RECORD, append_json_line, provenance, read_json_object
from lorgnette.training.hand_over import brings_projector, merged_model, needs_start, put_projector
from lorgnette.training.samples import StageData
from lorgnette.training.stages import restore_stage, run_stage
from lorgnette.training.trained import is_trained


def run_recipe(recipe: Recipe, output: Path, command: Sequence[str], console: Console) -> list[TaskComparison]:
    """Walk the whole road of a recipe, or what is left of it, into the run folder.

    Several processes share the training batches and the benchmarks' documents; the rest is the main process's.

    Raises:
        InputError: if the recipe, its data or models cannot be used, or the folder holds another recipe's run.
        RunError: if training or the merge fails.
    """
    with locked(output):
        about, data = begin(recipe, output, command, console)
        to_measure = recipe.stages and _unmeasured(recipe, output / "evaluation" / AFTER)
        warnings = warn_of_leaks(recipe, console) if to_measure else {}
        base = build_base(recipe, output, console)
        measure(recipe, base, output / "evaluation" / BEFORE, about, console, plan_of(recipe.model))
        merged = train(recipe, output, data, console)
        measure(recipe, merged, output / "evaluation" / AFTER, about, console, warnings=warnings)
        return report(recipe, output, console)


def begin(
    recipe: Recipe, output: Path, command: Sequence[str], console: Console
) -> tuple[dict[str, Any], dict[str, StageData]]:
    """Check a recipe and all its data, and keep it in the run folder: (this start's provenance, data by stage)."""
    check(recipe)
    with processes().main_process_first():
        changed = keep_recipe(recipe, output)
        about = record_start(recipe, output, command, changed)
    if changed:
        console.print("changed in the recipe since the last start:", *changed, sep="\n  ", markup=False)
    return about, read_data(recipe, output, console)


def record_start(recipe: Recipe, output: Path, command: Sequence[str], changed: Sequence[str]) -> dict[str, Any]:
    """Append this start to provenance.jsonl, with what it changed in the recipe, and return it."""
    about = provenance(command) | {"seed": recipe.seed, "processes": processes().num_processes}
    if is_main():
        append_json_line(output / "provenance.jsonl", about | ({"recipe_changed": changed} if changed else {}))
    return about


def build_base(recipe: Recipe, output: Path, console: Console) -> str:
    """Assemble the model that the run starts from into `base/`; return its folder, or the given base's name."""
    if recipe.model.base is not None:
        return recipe.model.base
    build, folder = recipe.model.build, output / "base"
    assert build is not None
    with processes().main_process_first():
        if not folder.exists():
            console.print(f"assembling {build.vision_tower} + {build.language_model}", markup=False)
            record = {"kind": "base", "build": build.model_dump(mode="json"), "seed": recipe.seed}
            save_model(built(recipe.model, recipe.seed), folder, record)
    return str(folder)


def measure(
    recipe: Recipe,
    model: str,
    folder: Path,
    about: dict[str, Any],
    console: Console,
    plan: dict[str, Any] | None = None,
    warnings: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Run every task of the recipe that has no result yet on a model, in 4 bits if there is a plan for them.

    Args:
        warnings: by task, what must be known before its scores are believed.

    Raises:
        InputError: if a result that is there was measured on another model.
    """
    if recipe.evaluation is None:
        return
    named = {"path": model, "fingerprint": fingerprint(model), "dtype": recipe.model.dtype, "quantization": plan}
    missing = _unmeasured(recipe, folder)
    for task in recipe.evaluation.tasks:
        result = folder / task.name / RESULT
        if result.exists() and _measured_on(result) != named["fingerprint"]:
            raise InputError(
                f"{result}: was measured on another model than {model} is now. It is left as it is. Next: delete "
                f"{folder}, or choose another --output."
            )
    if not missing:
        return
    learner = load_model(model, DTYPES[recipe.model.dtype], recipe.model.chat_template, plan)
    for spec in missing:
        settings = Settings(spec.split, spec.limit, spec.max_new_tokens, spec.prompt, recipe.evaluation.batch_size)
        measured = evaluate(
            learner,
            task_of(spec),
            folder / spec.name,
            settings,
            model=named,
            versions=about["versions"],
            console=console,
            label=f"{folder.name} {spec.name}",
            name=spec.name if spec.task else None,
            warnings=(warnings or {}).get(spec.name, ()),
        )
        console.print(f"{folder.name} {spec.name}: {measured['metric']} {measured['score']:.3f}", markup=False)


def _unmeasured(recipe: Recipe, folder: Path) -> list[TaskSpec]:
    """Return the tasks that have no result in a folder yet."""
    tasks = recipe.evaluation.tasks if recipe.evaluation else ()
    return [task for task in tasks if not (folder / task.name / RESULT).exists()]


def _measured_on(result: Path) -> object:
    """Return the fingerprint of the model that a result says it was measured on; None where it says nothing."""
    model = read_json_object(result).get("model")
    return model.get("fingerprint") if isinstance(model, dict) else None


def train(recipe: Recipe, output: Path, data: dict[str, StageData], console: Console) -> str:
    """Run the stages that have not ended, one after another, and merge the last one's result into `merged/`.

    Args:
        data: of these stages; each is let go when its stage has ended.

    Raises:
        InputError: if `merged/` holds something else, or a model that a stage stood on has changed.
        RunError: if training fails, or the merged model answers otherwise.
    """
    folder = output / "merged"
    if (folder / RECORD).exists():
        return str(folder)
    if folder.exists():
        raise InputError(f"{folder}: is no model that Lorgnette merged. It is left as it is. Next: move it away.")
    base = recipe.model.base or str(output / "base")
    learner = load_model(base, DTYPES[recipe.model.dtype], recipe.model.chat_template, plan_of(recipe.model))
    walked: list[Stage] = []  # since the folder that `learner` comes from
    for stage in recipe.stages:
        set_seed(recipe.seed)
        place = output / "stages" / stage.name
        if needs_start(walked, stage):
            if walked:
                learner, _ = merged_model(learner, walked, recipe.model, output / "stages")
            put_projector(stage, learner)
            with processes().main_process_first():
                if not (place / "start").exists():  # the adapter of this stage belongs to this model, not to the base
                    save_model(learner, place / "start", {"kind": "start", "base": base, "stage": stage.name})
            learner = replace(learner, source=str(place / "start"))
            learner.core.name_or_path = learner.source
            walked = []
        else:
            put_projector(stage, learner)
        keep_projector = brings_projector(walked, stage)
        if is_trained(place):
            learner = restore_stage(stage, learner, place, keep_projector=keep_projector)
        else:
            learner = run_stage(
                stage,
                learner,
                data.pop(stage.name),
                place,
                seed=recipe.seed,
                metrics=output / "metrics.jsonl",
                console=console,
                keep_projector=keep_projector,
            )
        walked.append(stage)
    difference = None
    if walked:
        learner, difference = merged_model(learner, walked, recipe.model, output / "stages")
    record = {"kind": "merged", "base": base, "base_fingerprint": fingerprint(base), "merge_difference": difference}
    with processes().main_process_first():
        if not folder.exists():
            save_model(learner, folder, record)
    return str(folder)


def report(recipe: Recipe, output: Path, console: Console) -> list[TaskComparison]:
    """Compare before and after, print the table, write it in every form and report.html with its plots."""
    if recipe.evaluation is None or not is_main():
        return []
    compared = compare_sides(run_sides(output))
    write_tables(output, compared)
    write_report(output, title=output.name, compared=compared, trainings=[read_training(output)])
    comparisons = [made.numbers for made in compared]
    print_tables(comparisons, console)
    return comparisons
