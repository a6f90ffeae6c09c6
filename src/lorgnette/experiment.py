"""The whole road on one screen: base, measure, stages, merge, measure, compare, report.

The one place where training, evaluation and comparison meet. Every step leaves a folder or file that is whole or
absent, so calling it again does only what is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from lorgnette.data.templates import require_template
from lorgnette.errors import InputError, RecipeError
from lorgnette.evaluation.evaluate import Settings, evaluate
from lorgnette.evaluation.schema import RESULT
from lorgnette.evaluation.tasks import find_task, read_documents
from lorgnette.locking import locked
from lorgnette.models.assembly import located
from lorgnette.models.conversion.huggingface import two_layers
from lorgnette.models.conversion.projector import read_projector
from lorgnette.models.fingerprint import fingerprint
from lorgnette.models.learner import load_model, save_model
from lorgnette.models.loading import DTYPES, load_config
from lorgnette.processes import is_main, processes
from lorgnette.recipe.reading import differences, read_recipe, resolved_yaml
from lorgnette.recipe.sections import Recipe, Stage
from lorgnette.recipe_model import built, outline_of, plan_of
from lorgnette.run import RECORD, append_json_line, provenance, read_json_object, write_text
from lorgnette.training.arguments import training_arguments
from lorgnette.training.hand_over import brings_projector, merged_model, needs_start, put_projector
from lorgnette.training.samples import samples_of
from lorgnette.training.stages import (
    require_parts,
    restore_stage,
    run_stage,
)
from lorgnette.training.trained import is_trained


def run_recipe(recipe: Recipe, output: Path, command: Sequence[str], console: Console) -> list[TaskComparison]:
    """Walk the whole road of a recipe, or what is left of it, into the run folder.

    Several processes share the training batches and the benchmarks' documents; the rest is the main process's.

    Raises:
        InputError: if the recipe, its data or models cannot be used, or the folder holds another recipe's run.
        RunError: if training or the merge fails.
    """
    with locked(output):
        about, base = begin(recipe, output, command, console)
        measure(recipe, base, output / "evaluation" / BEFORE, about, console, plan_of(recipe.model))
        merged = train(recipe, output, console)
        measure(recipe, merged, output / "evaluation" / AFTER, about, console)
        return report(recipe, output, console)


def begin(recipe: Recipe, output: Path, command: Sequence[str], console: Console) -> tuple[dict[str, Any], str]:
    """Check a recipe, keep it in the run folder, and build its base: (this start's provenance, base)."""
    check(recipe)
    with processes().main_process_first():
        keep_recipe(recipe, output)
        about = record_start(recipe, output, command)
        return about, build_base(recipe, output, console)


def check(recipe: Recipe) -> None:
    """Find what would fail later before anything costs time: names, files, parts, the first sample of every source.

    Raises:
        InputError: for the first thing that is wrong.
    """
    build = recipe.model.build
    for name in (build.vision_tower, build.language_model) if build else (str(recipe.model.base),):
        load_config(located(name))
    outline = outline_of(recipe.model) if recipe.stages else None
    for number, stage in enumerate(recipe.stages):
        if outline is not None:
            require_parts(stage, outline)
        if recipe.model.quantization is not None and needs_start(recipe.stages[:number], stage):
            raise RecipeError(
                f"stages: {stage.name}: stands on a model that the stages before it changed, which would be quantized "
                "anew. Next: leave model.quantization out, or train only the projector before it."
            )
        for template in (stage.chat_template, recipe.model.chat_template):
            require_template(template)
        for source in (*stage.data, *stage.validation):
            next(samples_of(source), None)
        training_arguments(stage, Path(stage.name), recipe.seed)
        if stage.init_projector is not None:
            two_layers(read_projector(Path(stage.init_projector)))
    for spec in recipe.evaluation.tasks if recipe.evaluation else ():
        read_documents(find_task(spec.name, spec.task_options()), spec.split, spec.limit)


def keep_recipe(recipe: Recipe, output: Path) -> None:
    """Write the resolved recipe into the run folder, or check that it is the one already there.

    Raises:
        InputError: if the folder holds a run of another recipe, or something else.
    """
    file = output / "recipe.yaml"
    if not file.exists():
        foreign = [path.name for path in output.iterdir() if path.name not in (".lock", "recipe.yaml.unfinished")]
        if foreign:  # a `base` or `merged` among them would be taken for the run's own
            raise InputError(
                f"{output}: holds other things than a run ({', '.join(sorted(foreign)[:5])}). They are left as they "
                "are. Next: choose another --output."
            )
        write_text(file, resolved_yaml(recipe))
        return
    # where the run lies is no part of what it does
    changed = differences(read_recipe(file), recipe)
    changed = [line for line in changed if not line.startswith("output:")]
    if changed:
        raise InputError(
            f"{output}: holds a run of another recipe. It is left as it is. What differs:\n  "
            + "\n  ".join(changed)
            + "\nNext: choose another --output, or delete the folder."
        )


def record_start(recipe: Recipe, output: Path, command: Sequence[str]) -> dict[str, Any]:
    """Append this start to provenance.jsonl and return it."""
    about = provenance(command) | {"seed": recipe.seed, "processes": processes().num_processes}
    if is_main():
        append_json_line(output / "provenance.jsonl", about)
    return about


def build_base(recipe: Recipe, output: Path, console: Console) -> str:
    """Assemble the model that the run starts from into `base/`; return its folder, or the given base's name."""
    if recipe.model.base is not None:
        return recipe.model.base
    build, folder = recipe.model.build, output / "base"
    assert build is not None
    if not folder.exists():
        console.print(f"assembling {build.vision_tower} + {build.language_model}", markup=False)
        save_model(
            built(recipe.model, recipe.seed),
            folder,
            {"kind": "base", "build": build.model_dump(mode="json"), "seed": recipe.seed},
        )
    return str(folder)


def measure(
    recipe: Recipe,
    model: str,
    folder: Path,
    about: dict[str, Any],
    console: Console,
    plan: dict[str, Any] | None = None,
) -> None:
    """Run every task of the recipe that has no result yet on a model, in 4 bits if there is a plan for them.

    Raises:
        InputError: if a result that is there was measured on another model.
    """
    if recipe.evaluation is None:
        return
    named = {"path": model, "fingerprint": fingerprint(model), "dtype": recipe.model.dtype, "quantization": plan}
    missing = []
    for task in recipe.evaluation.tasks:
        result = folder / task.name / RESULT
        if not result.exists():
            missing.append(task)
        elif _measured_on(result) != named["fingerprint"]:
            raise InputError(
                f"{result}: was measured on another model than {model} is now. It is left as it is. Next: delete "
                f"{folder}, or choose another --output."
            )
    if not missing:
        return
    learner = load_model(model, DTYPES[recipe.model.dtype], recipe.model.chat_template, plan)
    for spec in missing:
        settings = Settings(spec.split, spec.limit, spec.max_new_tokens, spec.prompt, recipe.evaluation.batch_size)
        evaluate(
            learner,
            find_task(spec.name, spec.task_options()),
            folder / spec.name,
            settings,
            model=named,
            versions=about["versions"],
            console=console,
            label=f"{folder.name} {spec.name}",
        )


def _measured_on(result: Path) -> object:
    """Return the fingerprint of the model that a result says it was measured on; None where it says nothing."""
    model = read_json_object(result).get("model")
    return model.get("fingerprint") if isinstance(model, dict) else None


def train(recipe: Recipe, output: Path, console: Console) -> str:
    """Run the stages that have not ended, one after another, and merge the last one's result into `merged/`.

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
                place,
                seed=recipe.seed,
                max_bad_share=recipe.max_bad_share,
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
