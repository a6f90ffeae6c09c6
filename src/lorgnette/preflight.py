"""What would fail hours later is found before anything costs time: names, files, parts, every row and image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from lorgnette.data.templates import require_template
from lorgnette.errors import InputError, RecipeError
from lorgnette.evaluation.tasks import read_documents
from lorgnette.leaks import find_leaks
from lorgnette.models.assembly import located
from lorgnette.models.conversion.huggingface import two_layers
from lorgnette.models.conversion.projector import read_projector
from lorgnette.models.learner import Learner
from lorgnette.models.loading import load_config
from lorgnette.processes import is_main, processes
from lorgnette.progress import progress_bar
from lorgnette.recipe.sections import Recipe, Source, Stage, TaskSpec
from lorgnette.recipe_data import task_of
from lorgnette.recipe_model import outline_of
from lorgnette.training.arguments import require_reports, training_arguments
from lorgnette.training.hand_over import needs_start
from lorgnette.training.samples import StageData, render_stage, samples_of
from lorgnette.training.stages import require_parts
from lorgnette.training.trained import is_trained


def check(recipe: Recipe) -> None:
    """Look in seconds at names, files, parts, the first sample of every source and the rows of every benchmark.

    Raises:
        InputError: if something is wrong; a recipe whose models can be read is told all of it at once.
    """
    build = recipe.model.build
    for name in (build.vision_tower, build.language_model) if build else (str(recipe.model.base),):
        load_config(located(name))
    outline = outline_of(recipe.model) if recipe.stages else None
    wrong: dict[str, InputError] = {}
    for look in _looks(recipe, outline):
        try:
            look()
        except InputError as error:
            wrong.setdefault(str(error), error)
    if len(wrong) > 1:
        raise RecipeError(f"{len(wrong)} things are wrong:\n" + "\n".join(f"- {told}" for told in wrong))
    if wrong:
        raise wrong.popitem()[1]


def _looks(recipe: Recipe, outline: Learner | None) -> Iterator[Callable[[], object]]:
    """Yield what has to be looked at, none of which depends on another."""
    for number, stage in enumerate(recipe.stages):
        if outline is not None:
            yield partial(require_parts, stage, outline)
        if recipe.model.quantization is not None:
            yield partial(_require_own_weights, recipe.stages[:number], stage)
        for template in (stage.chat_template, recipe.model.chat_template):
            yield partial(require_template, template)
        for source in (*stage.data, *stage.validation):
            yield partial(_first_sample, source)
        yield partial(_require_reports, stage, recipe.seed)
        if stage.init_projector is not None:
            yield partial(_read_projector, Path(stage.init_projector))
    tasks = recipe.evaluation.tasks if recipe.evaluation else ()
    yield partial(_require_names, tasks)
    for spec in tasks:
        yield partial(_read_benchmark, spec)


def _require_own_weights(walked: Sequence[Stage], stage: Stage) -> None:
    if needs_start(walked, stage):
        raise RecipeError(
            f"stages: {stage.name}: stands on a model that the stages before it changed, which would be quantized "
            "anew. Next: leave model.quantization out, or train only the projector before it."
        )


def _first_sample(source: Source) -> None:
    next(samples_of(source), None)


def _require_reports(stage: Stage, seed: int) -> None:
    require_reports(stage.name, training_arguments(stage, Path(stage.name), seed).report_to)


def _read_projector(file: Path) -> None:
    two_layers(read_projector(file))


def _require_names(tasks: Sequence[TaskSpec]) -> None:
    names: dict[str, str] = {}
    for spec in tasks:
        called = spec.name if spec.task else task_of(spec).name
        if called in names:
            raise RecipeError(
                f"evaluation.tasks: {names[called]} and {spec.name} both call themselves '{called}', so that their "
                f"results could not be told apart. Next: {{name: ANOTHER, task: {spec.benchmark}}}"
            )
        names[called] = spec.name


def _read_benchmark(spec: TaskSpec) -> None:
    read_documents(task_of(spec), spec.split, spec.limit)


def read_data(recipe: Recipe, output: Path, console: Console) -> dict[str, StageData]:
    """Read, judge and render the data of every stage that is yet to be trained: name of the stage -> data.

    Needs the tokenizer and the shapes of the model, not its weights.

    Raises:
        DataError: if a source cannot be read, or too many of its samples cannot be used.
    """
    left = [stage for stage in recipe.stages if not is_trained(output / "stages" / stage.name)]
    if not left or (output / "merged").exists():
        return {}
    model = outline_of(recipe.model)
    # what the main process opens and renders, the others find in the cache
    with processes().main_process_first(), progress_bar(console) as progress:
        return {stage.name: render_stage(stage, model, recipe.seed, recipe.max_bad_share, progress) for stage in left}


def warn_of_leaks(recipe: Recipe, console: Console) -> dict[str, list[str]]:
    """Look for the benchmarks in the training data, open all their images, and say what was found.

    Returns:
        name of the task -> what a reader of its score must know.

    Raises:
        DataError: if a benchmark or one of its images cannot be used.
    """
    with processes().main_process_first(), progress_bar(console) as progress:
        leaks = find_leaks(recipe, progress) if is_main() else {}
    for name, leak in leaks.items():
        for warning in leak.warnings:
            console.print(f"warning: {name}: {warning}", style="yellow", markup=False, soft_wrap=True)
    return {name: leak.warnings for name, leak in leaks.items()}
