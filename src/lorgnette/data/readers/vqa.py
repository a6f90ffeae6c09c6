"""Questions about images: RSVQA, VQA v2, and plain tables of question, answer and image.

Told apart by what is in the files:

- RSVQA (Lobry et al. 2020): `LR_split_train_questions.json` and `..._answers.json`; images `<img_id>.tif` in
  `Images_LR` beside them. Rows with `"active": false` are stubs of other splits: they are left out and counted.
- VQA v2 (Goyal et al. 2017): `v2_OpenEnded_mscoco_train2014_questions.json` and `v2_mscoco_train2014_annotations.json`;
  images as COCO names them.
- A table (JSON, JSON lines, CSV, TSV, Parquet, a data set of the hub) with the columns `question`, `image`, and
  `answer` or a list of `answers`; `id` and `type` are taken where they are.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lorgnette.data.readers.cells import checked_text, is_blank, one_image, optional_text, required_text, whole_number
from lorgnette.data.readers.image_lookup import CocoFolder, ImageFolder, image_folder
from lorgnette.data.readers.json_rows import json_rows
from lorgnette.data.readers.questions import QuestionOptions, question_sample
from lorgnette.data.readers.source import SourceSpec, folder_of_images, read_options
from lorgnette.data.readers.tables import Columns, Row, Rows, holds_list, object_rows, read_json, records_of, table_rows
from lorgnette.data.sample import Origin, Sample
from lorgnette.errors import DataError, LeftOut, RowError

COLUMNS = Columns(
    ("question", "image"),
    ("id", "question_id", "answer", "multiple_choice_answer", "answers", "type", "answer_type", "question_type"),
)
RANGES = ((0, "0"), (10, "between 1 and 10"), (100, "between 11 and 100"), (1000, "between 101 and 1000"))
"""Highest count -> the answer that stands for it in RSVQA-LR."""


@dataclass(frozen=True, slots=True)
class VQAQuestion:
    """One question about an image.

    Attributes:
        answer: the one to learn: the only one, or the most frequent. Counts of RSVQA-LR are ranges, see `count_range`.
        answers: all that people gave (ten in VQA v2), `(answer,)` where the set has one.
        raw_answer: the answer as the file has it, so the number where `answer` is a range.
        kind: the type of question or answer that scores are grouped by: "presence", "count", "comp", "rural_urban"
            (RSVQA), "yes/no", "number", "other" (VQA v2), the column `type` of a table; "" where there is none.
        question_type: VQA v2's "what color is the"...; "" elsewhere.
        mended: what was put right: the image found elsewhere, the count given as a range.
    """

    id: str
    image: str
    question: str
    answer: str
    answers: tuple[str, ...]
    raw_answer: str
    kind: str
    question_type: str
    origin: Origin
    mended: tuple[str, ...] = ()


class VQAOptions(QuestionOptions):
    """How a question is asked and a count is answered."""

    counts: Literal["ranges", "numbers"] | None = None
    """Answers of RSVQA to "how many": ranges, or numbers; null: as papers have it, ranges for the set LR alone."""


def vqa_questions(
    path: str,
    split: str | None,
    images: str | None,
    *,
    outside: bool = False,
    config: str | None = None,
    counts: Literal["ranges", "numbers"] | None = None,
) -> Iterator[VQAQuestion | RowError]:
    """Yield the questions in the file's order; a stub of RSVQA is a `LeftOut`.

    Args:
        path: a file of questions, a table, a folder of either, or the name of a data set on the hub.
        split: which files of a folder or which part of a hub's set: "train", "val2014"...; null for a file.
        images: the folder of the images, `coco`, or `coco:FOLDER`; null: beside the file.
        outside: image paths may lead out of that folder.
        config: the configuration of a data set on the hub that has several.
        counts: see `VQAOptions`.

    Raises:
        DataError: if the source cannot be read, or is of no layout.
        MissingExtra: if it needs a library that is not installed.
    """
    folder = folder_of_images(SourceSpec(path, images=images), outside=outside)
    layout = _layout(path, split, config)
    if layout.name == "RSVQA":
        yield from _rsvqa(layout, _beside(layout.file, images, outside=outside), counts)
    elif layout.name == "VQA v2":
        yield from _vqa_v2(layout, folder)
    else:
        yield from records_of(layout.rows, lambda origin, row: _plain(origin, row, folder))


def read_vqa(spec: SourceSpec) -> Iterator[Sample | DataError]:
    """Yield one question and its answer a sample.

    Raises:
        DataError: as `vqa_questions`, or if an option is wrong.
    """
    options = read_options(VQAOptions, spec)
    rows = vqa_questions(
        spec.path,
        spec.split,
        spec.images,
        outside=options.outside_images,
        config=options.config,
        counts=options.counts,
    )
    for row in rows:
        if isinstance(row, RowError):
            yield row
        else:
            yield question_sample(row.id, row.image, row.question, row.answer, row.origin, row.mended, options.prompt)


def vqa_variants(spec: SourceSpec) -> Iterator[str]:
    """Yield for every row which layout the source has: what a check of the data counts and prints.

    Raises:
        DataError: as `vqa_questions`.
    """
    layout = _layout(spec.path, spec.split, read_options(VQAOptions, spec).config)
    yield from (layout.name for _ in layout.rows)


def count_range(answer: str) -> str:
    """Return the range that stands for a count in RSVQA-LR: with yes, no, rural, urban there are nine answers.

    Answers that are no count come back as they are, so that references and predictions can both be put through it.
    Source: the classes of answers of Lobry et al. 2020, "RSVQA: Visual Question Answering for Remote Sensing Data".
    """
    if not re.fullmatch(r"\d{1,9}", answer.strip()):
        return answer
    count = int(answer)
    return next((words for highest, words in RANGES if count <= highest), "more than 1000")


class _Layout(NamedTuple):
    """How questions are written, in which file; `subtype` is VQA v2's "train2014"."""

    name: Literal["RSVQA", "VQA v2", "table"]
    file: Path
    rows: Rows
    subtype: Any = None


def _layout(path: str, split: str | None, config: str | None) -> _Layout:
    place = Path(path)
    if place.is_dir() and (found := _questions_in(place, split)) is not None:
        place = found
    elif place.is_file() and split is not None:
        raise DataError(f"{path}: a file has no splits. Next: leave `split` out.")
    if not place.name.lower().endswith((".json", ".json.gz")):
        return _Layout("table", place, table_rows(path, split, COLUMNS, config))
    if holds_list(place):
        return _Layout("table", place, object_rows(json_rows(place), str(place)))
    content = read_json(place)
    rows = content.get("questions") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not rows:
        raise DataError(
            f"{place}: no questions that we know. Allowed: a list of objects, or `questions` as RSVQA and VQA v2 have "
            f"them. Got: {type(content).__name__}."
        )
    of_coco = any(isinstance(row, dict) and "image_id" in row for row in rows)
    name: Literal["VQA v2", "RSVQA"] = "VQA v2" if of_coco else "RSVQA"
    return _Layout(name, place, object_rows(rows, str(place)), content.get("data_subtype"))


def _questions_in(folder: Path, split: str | None) -> Path | None:
    """Return the file of questions of a split in a folder, None if the folder is laid out otherwise."""
    files = sorted(folder.glob("*_questions.json"))
    if not files:
        return None
    names = ", ".join(file.name for file in files[:20])
    fitting = [file for file in files if re.search(rf"_{re.escape(split or '')}(\d{{4}})?_questions$", file.stem)]
    if split is None or len(fitting) != 1:
        raise DataError(f"{folder}: {len(fitting)} files of questions are of split '{split}'. The files are: {names}.")
    return fitting[0]


def _beside(file: Path, images: str | None, *, outside: bool) -> ImageFolder | CocoFolder:
    """Return the folder of RSVQA's images: `Images_LR` beside the file, as the low-resolution set is packed."""
    packed = file.parent / "Images_LR"
    return image_folder(images, str(packed if packed.is_dir() else file.parent), outside=outside)


def _rsvqa(
    layout: _Layout, folder: ImageFolder | CocoFolder, counts: Literal["ranges", "numbers"] | None
) -> Iterator[VQAQuestion | RowError]:
    file = layout.file
    answers = _partner(file, file.name.replace("questions", "answers"), "answers", "id")
    # papers score the low-resolution set by ranges; nothing in the files but their name says which set they are
    ranges = counts == "ranges" or (counts is None and file.name.startswith("LR_"))

    def question(origin: Origin, row: Row) -> VQAQuestion:
        where = f"{origin} (id {row.get('id')!s:.100})"
        if row.get("active") is False:
            raise LeftOut("inactive", where, "the row is a stub: the set marks it as inactive.")
        name = required_text(row, "id", str(origin))
        text, kind = (required_text(row, column, where) for column in ("question", "type"))
        ids = row.get("answers_ids")
        given = answers.get(str(ids[0])) if isinstance(ids, list) and ids else None
        if given is None or given.get("active") is False:
            raise RowError("no answer", where, f"`answers_ids` is {ids!r:.80}: there is no such active answer.")
        raw = required_text(given, "answer", where)
        answer = count_range(raw) if kind == "count" and ranges else raw
        path, found = folder.find(f"{whole_number(row, 'img_id', where)}.tif", where)
        mended = (*filter(None, [found]), *(["count given as a range"] if answer != raw else []))
        return VQAQuestion(name, path, text, answer, (answer,), raw, kind, "", origin, mended)

    return records_of(layout.rows, question)


def _vqa_v2(layout: _Layout, folder: ImageFolder | CocoFolder) -> Iterator[VQAQuestion | RowError]:
    file, subtype = layout.file, layout.subtype
    partner = file.name.replace("OpenEnded_", "").replace("questions", "annotations")
    answers = _partner(file, partner, "annotations", "question_id")
    if not isinstance(subtype, str) or not re.fullmatch(r"\w+", subtype):
        raise DataError(f"{file}: `data_subtype` is {subtype!r:.80}. Allowed: train2014, val2014, ...")
    within = f"{subtype}/" if isinstance(folder, CocoFolder) or Path(str(folder.root), subtype).is_dir() else ""

    def question(origin: Origin, row: Row) -> VQAQuestion:
        name = required_text(row, "question_id", str(origin))
        where = f"{origin} (id {name:.100})"
        number = whole_number(row, "image_id", where)
        text = required_text(row, "question", where)
        given = answers.get(name)
        if given is None:
            raise RowError("no answer", where, f"{partner} has no such question.")
        answer = required_text(given, "multiple_choice_answer", where)
        people = _answers(given.get("answers"), where)
        kind, question_type = (optional_text(given, column, where) for column in ("answer_type", "question_type"))
        path, found = folder.find(f"{within}COCO_{subtype}_{number:012d}.jpg", where)
        mended = tuple(filter(None, [found]))
        return VQAQuestion(name, path, text, answer, people, answer, kind, question_type, origin, mended)

    return records_of(layout.rows, question)


def _plain(origin: Origin, row: Row, folder: ImageFolder | CocoFolder) -> VQAQuestion:
    own = next((row[name] for name in ("id", "question_id") if not is_blank(row.get(name))), None)
    # rows are counted anew in every shard of a table
    name = f"{Path(origin.file).name}-{origin.row}" if own is None else checked_text(own, "id", str(origin))
    where = f"{origin} (id {name:.100})"
    text = required_text(row, "question", where)
    people = () if row.get("answers") is None else _answers(row["answers"], where)
    column = "multiple_choice_answer" if is_blank(row.get("answer")) else "answer"
    answer = optional_text(row, column, where) or next((given for given, _ in Counter(people).most_common(1)), "")
    if not answer:
        raise RowError("no answer", where, "neither `answer` nor `answers` holds one.")
    kind = optional_text(row, "answer_type" if is_blank(row.get("type")) else "type", where)
    question_type = optional_text(row, "question_type", where)
    path, found = one_image(row.get("image"), folder, where)
    mended = tuple(filter(None, [found]))
    return VQAQuestion(name, path, text, answer, people or (answer,), answer, kind, question_type, origin, mended)


def _answers(cell: Any, where: str) -> tuple[str, ...]:
    """Return what people answered: texts, or VQA v2's objects with `answer`."""
    if not isinstance(cell, list) or not cell:
        raise RowError("answers is no list", where, f"`answers` is {cell!r:.80}. Allowed: a list of texts.")
    texts = [given.get("answer") if isinstance(given, dict) else given for given in cell]
    return tuple(required_text({"answers": text}, "answers", where) for text in texts)


def _partner(file: Path, name: str, key: str, column: str) -> Mapping[str, Row]:
    """Read the file of answers that belongs to a file of questions: its rows by a column."""
    partner = file.with_name(name)
    if partner == file:
        raise DataError(f"{file}: the file of answers is found by its name, so this one needs `questions` in it.")
    content = read_json(partner, _lean)
    rows = content.get(key) if isinstance(content, dict) else None
    if not isinstance(rows, list):
        raise DataError(f"{partner}: there is no list `{key}`. Next: copy the file anew.")
    return {str(row.get(column)): row for row in rows if isinstance(row, dict)}


def _lean(values: dict[str, Any]) -> Any:
    """Keep the text alone of each of VQA v2's millions of answers, and each text once."""
    answer = values.get("answer")
    return sys.intern(answer) if "answer_confidence" in values and type(answer) is str else values
