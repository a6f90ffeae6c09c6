"""The whole road on one screen: base, measure, stages, merge, measure, compare, report.

The one place where training, evaluation and comparison meet. Every step leaves a folder or file that is whole or
absent, so calling it again does only what is missing.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import set_seed

from lorgnette.comparison.compare import compare_sides
from lorgnette.comparison.effects import TaskComparison
from lorgnette.comparison.folders import run_sides
from lorgnette.comparison.report import write_report
from lorgnette.comparison.tables import print_tables, write_tables
from lorgnette.comparison.training_record import read_training
from lorgnette.data.dataset import RowCollator
from lorgnette.data.templates import require_template
from lorgnette.errors import InputError
from lorgnette.evaluation.evaluate import Settings, evaluate
from lorgnette.evaluation.results import RESULT
from lorgnette.evaluation.tasks import find_task, read_documents
from lorgnette.models.adapters import merge, require_equal_logits
from lorgnette.models.assembly import assemble, located
from lorgnette.models.forward import prepare_for_rows, row_logits
from lorgnette.models.loading import DTYPES, Llava, fingerprint, load_config, load_llava
from lorgnette.models.saving import save_llava
from lorgnette.recipe.reading import differences, read_recipe, resolved_yaml
from lorgnette.recipe.sections import Evaluation, Recipe, Stage
from lorgnette.run import append_json_line, locked, provenance, read_json, write_text
from lorgnette.training.stages import (
    is_trained,
    restore_stage,
    run_stage,
    samples_of,
    training_arguments,
    usable_samples,
)

MERGE_TOLERANCE = 1e-5
"""Largest difference of a merged model's logits, in float32 and relative to the largest logit."""


def run_recipe(recipe: Recipe, output: Path, command: Sequence[str], console: Console) -> list[TaskComparison]:
    """Walk the whole road of a recipe, or what is left of it, into the run folder.

    Raises:
        InputError: if the recipe, its data or models cannot be used, or the folder holds another recipe's run.
        RunError: if training or the merge fails.
    """
    with locked(output):
        check(recipe)
        keep_recipe(recipe, output)
        about = record_start(recipe, output, command)
        base = build_base(recipe, output, console)
        measure(recipe.evaluation, base, recipe, output / "evaluation" / "before", about, console)
        merged = train(recipe, output, console)
        measure(recipe.evaluation, merged, recipe, output / "evaluation" / "after", about, console)
        return report(recipe, output, console)


def check(recipe: Recipe) -> None:
    """Find what would fail later before anything costs time: names, files, the first sample of every source.

    Raises:
        InputError: for the first thing that is wrong.
    """
    build = recipe.model.build
    for name in (build.vision_tower, build.language_model) if build else (str(recipe.model.base),):
        load_config(located(name))
    for stage in recipe.stages:
        for template in (stage.chat_template, recipe.model.chat_template):
            require_template(template)
        for source in (*stage.data, *stage.validation):
            next(samples_of(source), None)
        training_arguments(stage, Path(stage.name), recipe.seed)
    for spec in recipe.evaluation.tasks if recipe.evaluation else ():
        read_documents(find_task(spec.name, spec.task_options()), spec.split)


def keep_recipe(recipe: Recipe, output: Path) -> None:
    """Write the resolved recipe into the run folder, or check that it is the one already there.

    Raises:
        InputError: if the folder holds a run of another recipe.
    """
    file = output / "recipe.yaml"
    if not file.exists():
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
    about = provenance(command) | {"seed": recipe.seed}
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
        llava = assemble(
            build.vision_tower,
            build.language_model,
            vision_feature_layer=build.vision_feature_layer,
            vision_feature_select_strategy=build.vision_feature_select_strategy,
            image_size=build.image_size,
            template=recipe.model.chat_template,
            dtype=DTYPES[recipe.model.dtype],
            seed=recipe.seed,
        )
        save_llava(llava, folder, {"kind": "base", "build": build.model_dump(mode="json"), "seed": recipe.seed})
    return str(folder)


def measure(
    evaluation: Evaluation | None,
    model: str,
    recipe: Recipe,
    folder: Path,
    about: dict[str, Any],
    console: Console,
) -> None:
    """Run every task of the recipe that has no result yet on a model."""
    if evaluation is None:
        return
    named = {"path": model, "fingerprint": fingerprint(model), "dtype": recipe.model.dtype}
    missing = []
    for task in evaluation.tasks:
        result = folder / task.name / RESULT
        if not result.exists():
            missing.append(task)
        elif read_json(result)["model"]["fingerprint"] != named["fingerprint"]:
            raise InputError(
                f"{result}: was measured on another model than {model} is now. It is left as it is. Next: delete "
                f"{folder}, or choose another --output."
            )
    if not missing:
        return
    llava = load_llava(model, DTYPES[recipe.model.dtype], recipe.model.chat_template)
    for spec in missing:
        settings = Settings(spec.split, spec.limit, spec.max_new_tokens, spec.prompt, evaluation.batch_size)
        evaluate(
            llava,
            find_task(spec.name, spec.task_options()),
            folder / spec.name,
            settings,
            model=named,
            versions=about["versions"],
            console=console,
            label=f"{folder.name} {spec.name}",
        )


def train(recipe: Recipe, output: Path, console: Console) -> str:
    """Run the stages that have not ended, one after another, and merge the last one's result into `merged/`."""
    folder = output / "merged"
    if (folder / "lorgnette.json").exists():
        return str(folder)
    if folder.exists():
        raise InputError(f"{folder}: is no model that Lorgnette merged. It is left as it is. Next: move it away.")
    base = recipe.model.base or str(output / "base")
    llava = load_llava(base, DTYPES[recipe.model.dtype], recipe.model.chat_template)
    for number, stage in enumerate(recipe.stages):
        set_seed(recipe.seed)
        place = output / "stages" / stage.name
        if number and "lora" in recipe.stages[number - 1].train.model_dump().values():
            llava, _ = merged_model(llava, recipe.stages[number - 1], recipe)
            if not (place / "start").exists():  # the adapter of this stage belongs to this model, not to the base
                save_llava(llava, place / "start", {"kind": "start", "base": base, "stage": stage.name})
            llava.core.name_or_path = str(place / "start")
        if is_trained(place):
            llava = restore_stage(stage, llava, place)
        else:
            llava = run_stage(
                stage,
                llava,
                place,
                seed=recipe.seed,
                max_bad_share=recipe.max_bad_share,
                metrics=output / "metrics.jsonl",
                console=console,
            )
    difference = None
    if recipe.stages:
        llava, difference = merged_model(llava, recipe.stages[-1], recipe)
    record = {"kind": "merged", "base": base, "base_fingerprint": fingerprint(base), "merge_difference": difference}
    save_llava(llava, folder, record)
    return str(folder)


def merged_model(llava: Llava, stage: Stage, recipe: Recipe) -> tuple[Llava, float | None]:
    """Fold a stage's LoRA into the model, prove on samples of its data that logits stay, and return both.

    The comparison is made in float32; the model comes back in the recipe's dtype. Without LoRA nothing is to be merged.

    Raises:
        RunError: if the merged model answers otherwise.
    """
    llava.model.eval()
    if llava.model is llava.core:
        return replace(llava, model=llava.core.to(DTYPES[recipe.model.dtype])), None
    llava.model.to(torch.float32)
    before = _sample_logits(llava, stage)
    plain = merge(llava.model)
    prepare_for_rows(plain)
    result = replace(llava, model=plain)
    difference = require_equal_logits(before, _sample_logits(result, stage), MERGE_TOLERANCE)
    plain.to(DTYPES[recipe.model.dtype])
    return result, difference


@torch.inference_mode()
def _sample_logits(llava: Llava, stage: Stage, count: int = 8) -> torch.Tensor:
    rendered = list(itertools.islice(usable_samples(stage, llava), count))
    row = RowCollator(llava.processor.image_processor, llava.core.config.image_token_id)(rendered)["row"]
    return row_logits(llava.model, llava.core, row, llava.scale)


def report(recipe: Recipe, output: Path, console: Console) -> list[TaskComparison]:
    """Compare before and after, print the table, write it in every form and report.html with its plots."""
    if recipe.evaluation is None:
        return []
    compared = compare_sides(run_sides(output))
    write_tables(output, compared)
    write_report(output, title=output.name, compared=compared, trainings=[read_training(output)])
    comparisons = [made.numbers for made in compared]
    print_tables(comparisons, console)
    return comparisons
