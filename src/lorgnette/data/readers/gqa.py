"""GQA: questions about scenes, answered with a word or two (Hudson and Manning 2019), and its translations.

Three layouts, told apart by what is there:

- a data set of the hub, `deepvk/GQA-ru` or `lmms-lab/GQA`, or a folder of its Parquet files: a config of
  instructions and a config of images, joined by `imageId`;
- the same instructions with the images in a folder, `IMAGES/<imageId>.jpg`;
- the original JSON, `{question id: {question, answer, imageId, ...}}`, with a folder of images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorgnette.data.readers.cells import one_image, optional_text, required_text
from lorgnette.data.readers.image_lookup import CocoFolder, FoundImage, ImageFolder, image_folder
from lorgnette.data.readers.questions import QuestionOptions, question_sample
from lorgnette.data.readers.source import SourceSpec, read_options
from lorgnette.data.readers.tables import Columns, Row, is_on_hub, object_rows, read_json, records_of, table_rows
from lorgnette.data.sample import Origin, Sample
from lorgnette.errors import DataError, RowError

QUESTIONS = Columns(("id", "imageId", "question", "answer"), ("fullAnswer", "types", "groups"))
IMAGES = Columns(("id", "image"))
Find = Callable[[str, str], FoundImage]
"""(imageId, where it is asked for) -> its image."""


@dataclass(frozen=True, slots=True)
class GQAQuestion:
    """One question of GQA.

    Attributes:
        full_answer: the answer as a sentence, "" where the set has none.
        types: "structural" (choose, compare, logical, query, verify), "semantic" (attr, cat, global, obj, rel) and
            "detailed", as far as the set has them.
        groups: "global" (such as "color") and "local" (such as "06-person_in"), as far as the set has them.
        mended: what was put right to find the image.
    """

    id: str
    image_id: str
    image: str
    question: str
    answer: str
    full_answer: str
    types: Mapping[str, str]
    groups: Mapping[str, str]
    origin: Origin
    mended: tuple[str, ...] = ()


def gqa_questions(
    path: str, split: str | None, images: str | None, *, outside: bool = False
) -> Iterator[GQAQuestion | RowError]:
    """Yield the questions of a split, each with its image; a row that cannot be used as an error.

    Args:
        path: the name of a data set on the hub, its folder, or a file of the original JSON.
        split: "train", "testdev"... for the balanced questions, "train_all", "testdev_all"... for all of them.
        images: a folder of `<imageId>.jpg`; without it, the images of the data set, or `images` beside the JSON.
        outside: image paths may lead out of that folder.

    Raises:
        DataError: if the source cannot be read.
        MissingExtra: if it needs a library that is not installed.
    """
    place = Path(path)
    base = f"{split}_balanced" if split is not None and "_" not in split else split
    original = place if place.suffix.lower() == ".json" else place / f"{base}_questions.json"
    if original == place and split is not None:
        raise DataError(f"{path}: a file of questions has no splits. Next: leave `split` out.")
    if original == place or original.is_file():
        folder = image_folder(images, str(original.parent / "images"), outside=outside)
        yield from _original(original, lambda image_id, where: folder.find(f"{image_id}.jpg", where))
        return
    if base is None:
        raise DataError(f"{path}: GQA is read by split. Next: give `split`, such as train or testdev.")
    if images is None and place.is_file():
        raise DataError(
            f"{path}: a file of questions without their images. Next: give the folder that holds {base}_instructions "
            f"and {base}_images as `path`, or a folder of <imageId>.jpg as `images`."
        )
    table_split = base.partition("_")[0]
    folder = image_folder(images, None if is_on_hub(path) else path, outside=outside)
    table = _ImageTable(path, table_split, f"{base}_images", folder)
    find = table.find if images is None else lambda image_id, where: folder.find(f"{image_id}.jpg", where)
    rows = table_rows(path, table_split, QUESTIONS, f"{base}_instructions")
    for question in records_of(rows, lambda origin, row: _question(origin, row, find)):
        yield question
        yield from table.take_errors()


def read_gqa(spec: SourceSpec) -> Iterator[Sample | DataError]:
    """Yield one question and its short answer a sample.

    Raises:
        DataError: as `gqa_questions`, or if an option is wrong.
    """
    options = read_options(QuestionOptions, spec)
    if options.config is not None:
        raise DataError(f"{spec.path}: options: the configs of GQA follow from its split. Next: leave `config` out.")
    for row in gqa_questions(spec.path, spec.split, spec.images, outside=options.outside_images):
        if isinstance(row, RowError):
            yield row
        else:
            yield question_sample(row.id, row.image, row.question, row.answer, row.origin, row.mended, options.prompt)


class _ImageTable:
    """Images by their id, read from their table only as far as the questions ask.

    The pictures go to the cache of images one by one; what stays in memory is a path each.
    """

    def __init__(self, path: str, split: str, config: str, folder: ImageFolder | CocoFolder) -> None:
        self._rows = table_rows(path, split, IMAGES, config)
        self._folder = folder
        self._found: dict[str, FoundImage] = {}
        self._errors: list[RowError] = []
        self._where = f"{path} ({config})"

    def find(self, image_id: str, where: str) -> FoundImage:
        while image_id not in self._found:
            row = next(self._rows, None)
            if row is None:
                raise RowError("image missing", where, f"{self._where} has no image '{image_id:.100}'.")
            try:
                self._keep(row)
            except RowError as error:
                self._errors.append(error)
        return self._found[image_id]

    def _keep(self, row: tuple[Origin, Row] | RowError) -> None:
        if isinstance(row, RowError):
            raise row
        origin, cells = row
        name = required_text(cells, "id", str(origin))
        image = one_image(cells.get("image"), self._folder, f"{origin} (id {name:.100})")
        if self._found.setdefault(name, image) != image:
            raise RowError("two images of one id", str(origin), f"another picture has the id '{name:.100}', too.")

    def take_errors(self) -> list[RowError]:
        """Return what was wrong with images since the last time."""
        errors, self._errors = self._errors, []
        return errors


def _original(file: Path, find: Find) -> Iterator[GQAQuestion | RowError]:
    questions = read_json(file, _without_programs)
    if not isinstance(questions, dict) or not questions:
        raise DataError(
            f"{file}: no GQA questions. Allowed: an object of {{question id: {{question, answer, imageId}}}}, "
            f"with at least one. Got: {type(questions).__name__}."
        )
    rows = ({**row, "id": key} if isinstance(row, dict) else row for key, row in questions.items())
    yield from records_of(object_rows(rows, str(file)), lambda origin, row: _question(origin, row, find))


def _without_programs(values: dict[str, Any]) -> dict[str, Any]:
    """Keep what we read of a question: its program and its objects are most of a file of gigabytes."""
    if "imageId" not in values:
        return values
    return {name: values[name] for name in (*QUESTIONS.required, *QUESTIONS.optional) if name in values}


def _question(origin: Origin, row: Row, find: Find) -> GQAQuestion:
    name = required_text(row, "id", str(origin))
    where = f"{origin} (id {name:.100})"
    image_id = required_text(row, "imageId", where)
    question, answer = (required_text(row, column, where) for column in ("question", "answer"))
    full_answer = optional_text(row, "fullAnswer", where)
    types, groups = (_texts(row.get(column), column, where) for column in ("types", "groups"))
    path, mended = find(image_id, where)
    more = (mended,) if mended is not None else ()
    return GQAQuestion(name, image_id, path, question, answer, full_answer, types, groups, origin, more)


def _texts(cell: Any, column: str, where: str) -> dict[str, str]:
    if cell is None:
        return {}
    if not isinstance(cell, dict):
        raise RowError(f"{column} is no object", where, f"`{column}` is {cell!r:.80}. Allowed: an object of texts.")
    return {name: text for name in cell if (text := optional_text(cell, name, where))}
