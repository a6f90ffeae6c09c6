"""Benchmark questions that stand in the training data: what is measured on them says nothing about new ones.

The same keys as in `lorgnette data check`: images by the hash of their bytes, questions by their words.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rich.progress import Progress

from lorgnette.data.identity import question_keys
from lorgnette.data.reading_ahead import read_ahead
from lorgnette.data.rules import Usable, judge_document
from lorgnette.data.sample import Sample
from lorgnette.errors import DataError
from lorgnette.images.store import ImageStore, cores, image_store
from lorgnette.progress import counted
from lorgnette.recipe.sections import Recipe, Stage, TaskSpec
from lorgnette.recipe_data import documents_of
from lorgnette.training.samples import FEW_IMAGES, samples_of


@dataclass(frozen=True, slots=True)
class Leak:
    """How much of a benchmark stands in the training data.

    Attributes:
        questions: how many questions it has.
        asked: how many of them are asked there in the same words about the same image (without one: and answered so).
        shown: how many others are about an image that is shown there.
    """

    questions: int
    asked: int
    shown: int

    @property
    def warnings(self) -> list[str]:
        """Say what a reader of the score must know."""
        said = []
        if self.asked:
            said.append(
                f"{self.asked:,} of {self.questions:,} questions stand in the training data too: how they are answered "
                "says nothing about new ones"
            )
        if self.shown:
            said.append(
                f"{self.shown:,} of {self.questions:,} questions are about an image that is in the training data too, "
                "where other things are asked, or the same in other words"
            )
        return said


def find_leaks(recipe: Recipe, progress: Progress) -> dict[str, Leak]:
    """Look for every benchmark's questions and images in the sources of the stages: name of the task -> leak.

    Rows of a source that a weight below 1 or a limit on length leaves out count too: they are the same set.

    Raises:
        DataError: if a source or a benchmark cannot be read, or an image of a benchmark cannot be opened.
    """
    tasks = recipe.evaluation.tasks if recipe.evaluation else ()
    with image_store(cores(), alone=FEW_IMAGES) as store:
        asked = {task.name: _asked(task, store, progress) for task in tasks}
        questions, images = _trained_on(recipe.stages, asked.values(), store, progress)
    return {name: _leak(documents, questions, images) for name, documents in asked.items()}


_Keys = tuple[list[bytes], list[str]]
"""Of one sample: its questions, and the hashes of its images."""


def _asked(task: TaskSpec, store: ImageStore, progress: Progress) -> list[_Keys]:
    keys = []
    for document in counted(progress, read_ahead(documents_of(task), store), f"opening the images of {task.name}"):
        verdict = judge_document(document, store.require_image)
        if not isinstance(verdict, Usable):
            raise DataError(f"{verdict} Every document of a benchmark is asked. Next: mend it.")
        keys.append(_keys_of(verdict.sample, store))
    return keys


def _keys_of(sample: Sample, store: ImageStore) -> _Keys:
    images = [store.facts(image).sha256 or image for image in sample.images]
    return question_keys(sample, images), images


def _trained_on(
    stages: Sequence[Stage], asked: Collection[list[_Keys]], store: ImageStore, progress: Progress
) -> tuple[set[bytes], set[str]]:
    """Return those of the benchmarks' questions and images that the stages train on."""
    wanted = {key for documents in asked for keys, _ in documents for key in keys}
    wanted_images = {image for documents in asked for _, images in documents for image in images}
    questions: set[bytes] = set()
    seen: set[str] = set()
    for source in {source.model_dump_json(): source for stage in stages for source in stage.data}.values():
        rows = counted(progress, read_ahead(samples_of(source), store), f"comparing {source.path} with the benchmarks")
        for row in rows:
            if isinstance(row, Sample):
                keys, images = _keys_of(row, store)
                questions |= wanted.intersection(keys)
                seen |= wanted_images.intersection(images)
    return questions, seen


def _leak(documents: Sequence[_Keys], questions: set[bytes], images: set[str]) -> Leak:
    asked = [not questions.isdisjoint(keys) for keys, _ in documents]
    shown = [not images.isdisjoint(own) for _, own in documents]
    return Leak(len(documents), sum(asked), sum(s and not a for a, s in zip(asked, shown, strict=True)))
