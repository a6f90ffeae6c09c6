"""The data of a recipe, to be checked: what every stage learns from and is validated on, and the benchmarks.

Needs the tokenizer and the shapes of the recipe's model, not its weights.
"""

from __future__ import annotations

from collections.abc import Iterator

from lorgnette.data.pairs import AnyRenderer
from lorgnette.data.readers.source import SourceSpec
from lorgnette.data.sample import IMAGE_TAG, Origin, Sample, Turn
from lorgnette.data.used_source import Purpose, UsedSource, used_source
from lorgnette.evaluation.tasks import find_task, read_documents
from lorgnette.evaluation.tasks.task import Task
from lorgnette.models.outline import outline
from lorgnette.recipe.sections import Recipe, Source, TaskSpec
from lorgnette.recipe_model import outline_of
from lorgnette.training.samples import renderer_of


def sources_of_recipe(recipe: Recipe) -> list[UsedSource]:
    """Return every source of a recipe, stage after stage, and its benchmarks.

    Raises:
        InputError: if the model's tokenizer or configuration cannot be used.
    """
    model = outline_of(recipe.model)
    used = []
    for stage in recipe.stages:
        renderer = renderer_of(stage, model)
        uses: tuple[tuple[Purpose, tuple[Source, ...]], ...] = (("train", stage.data), ("validation", stage.validation))
        for purpose, sources in uses:
            for source in sources:
                spec = SourceSpec(source.path, source.split, source.images, source.options)
                used.append(
                    used_source(f"{stage.name} {purpose}", purpose, spec, source.format, source.limit, renderer)
                )
    return used + [_benchmark(task) for task in (recipe.evaluation.tasks if recipe.evaluation else ())]


def renderer_for(model: str, chat_template: str | None, max_text_tokens: int | None) -> AnyRenderer:
    """Return the renderer of a model, for data that belongs to no recipe yet.

    Raises:
        ModelError: if its tokenizer or configuration cannot be used.
    """
    return outline(model, chat_template).renderer(None, max_text_tokens)


def task_of(spec: TaskSpec) -> Task:
    """Make the benchmark that an entry of a recipe asks for.

    Raises:
        DataError: if there is none of that name, or it does not take these options.
    """
    return find_task(spec.benchmark, spec.task_options())


def documents_of(spec: TaskSpec) -> Iterator[Sample]:
    """Yield the documents of a benchmark as samples that ask and answer.

    Raises:
        DataError: if they cannot be read.
    """
    documents, _ = read_documents(task_of(spec), spec.split, spec.limit)
    for number, document in enumerate(documents):
        question = Turn("user", f"{IMAGE_TAG}\n" * len(document.images) + document.question)
        turns = (question, Turn("assistant", document.references[0]))
        yield Sample(document.id, document.images, turns, Origin(f"task {spec.name}", number))


def _benchmark(spec: TaskSpec) -> UsedSource:
    return UsedSource(f"benchmark {spec.name}", "test", spec.name, "documents", lambda: documents_of(spec))
