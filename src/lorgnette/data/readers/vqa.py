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
from typing import Any

from lorgnette.data.readers.cells import (
    checked_text,
    image_cell,
    image_path,
    is_blank,
    optional_text,
    required_text,
    whole_number,
)
from lorgnette.data.readers.tables import Columns, Row, Rows, object_rows, read_json, table_rows
from lorgnette.data.sample import IMAGE_TAG, Origin, Sample, Turn
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


def vqa_questions(path: str, split: str | None, images: str | None) -> Iterator[VQAQuestion | RowError]:
    """Yield the questions in the file's order; a stub of RSVQA is a `LeftOut`.

    Args:
        path: a file of questions, a table, a folder of either, or the name of a data set on the hub.
        split: which files of a folder or which part of a hub's set: "train", "val2014"...; null for a file.
        images: the folder of the images; null: beside the file.

    Raises:
        DataError: if the source cannot be read, or is of no layout.
        MissingExtra: if it needs a library that is not installed.
    """
    place = Path(path)
    if place.is_dir() and (found := _questions_in(place, split)) is not None:
        place = found
    elif place.is_file() and split is not None:
        raise DataError(f"{path}: a file has no splits. Next: leave `split` out.")
    folder = Path(images) if images is not None else None
    if place.suffix.lower() != ".json":
        yield from _plain(table_rows(path, split, COLUMNS), folder)
        return
    content = read_json(place)
    if isinstance(content, list):
        yield from _plain(object_rows(content, str(place)), folder)
        return
    rows = content.get("questions") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not rows:
        raise DataError(
            f"{place}: no questions that we know. Allowed: a list of objects, or `questions` as RSVQA and VQA v2 have "
            f"them. Got: {type(content).__name__}."
        )
    if any(isinstance(row, dict) and "image_id" in row for row in rows):
        yield from _vqa_v2(rows, content.get("data_subtype"), place, folder)
    else:
        yield from _rsvqa(rows, place, folder)


def read_vqa(path: str, split: str | None, images: str | None) -> Iterator[Sample | DataError]:
    """Yield one question and its answer a sample."""
    for row in vqa_questions(path, split, images):
        if isinstance(row, RowError):
            yield row
        else:
            turns = (Turn("user", f"{IMAGE_TAG}\n{row.question}"), Turn("assistant", row.answer))
            mended = ("count given as a range",) if row.answer != row.raw_answer else ()
            yield Sample(row.id, (row.image,), turns, row.origin, mended)


def count_range(answer: str) -> str:
    """Return the range that stands for a count in RSVQA-LR: with yes, no, rural, urban there are nine answers.

    Answers that are no count come back as they are, so that references and predictions can both be put through it.
    Source: the classes of answers of Lobry et al. 2020, "RSVQA: Visual Question Answering for Remote Sensing Data".
    """
    if not re.fullmatch(r"\d{1,9}", answer.strip()):
        return answer
    count = int(answer)
    return next((words for highest, words in RANGES if count <= highest), "more than 1000")


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


def _rsvqa(rows: list[Any], file: Path, images: Path | None) -> Iterator[VQAQuestion | RowError]:
    answers = _by_id(_partner(file, file.name.replace("questions", "answers"), "answers"), "id")
    beside = file.parent / "Images_LR"
    folder = images or (beside if beside.is_dir() else file.parent)
    for entry in object_rows(rows, str(file)):
        try:
            if isinstance(entry, RowError):
                raise entry
            origin, row = entry
            where = f"{origin} (id {row.get('id')!s:.100})"
            if row.get("active") is False:
                raise LeftOut("inactive", where, "the row is a stub: the set marks it as inactive.")
            name = required_text(row, "id", str(origin))
            image = image_path(folder, f"{whole_number(row, 'img_id', where)}.tif", where)
            question, kind = (required_text(row, column, where) for column in ("question", "type"))
            ids = row.get("answers_ids")
            given = answers.get(_key(ids[0])) if isinstance(ids, list) and ids else None
            if given is None or given.get("active") is False:
                raise RowError("no answer", where, f"`answers_ids` is {ids!r:.80}: there is no such active answer.")
            raw = required_text(given, "answer", where)
            # only the low-resolution set has ranges; nothing in the files but their name says which set they are
            answer = count_range(raw) if kind == "count" and file.name.startswith("LR_") else raw
            yield VQAQuestion(name, image, question, answer, (answer,), raw, kind, "", origin)
        except RowError as error:
            yield error


def _vqa_v2(rows: list[Any], subtype: Any, file: Path, images: Path | None) -> Iterator[VQAQuestion | RowError]:
    name = file.name.replace("OpenEnded_", "").replace("questions", "annotations")
    answers = _by_id(_partner(file, name, "annotations"), "question_id")
    if not isinstance(subtype, str) or not re.fullmatch(r"\w+", subtype):
        raise DataError(f"{file}: `data_subtype` is {subtype!r:.80}. Allowed: train2014, val2014, ...")
    folder = images or file.parent
    if (folder / subtype).is_dir():
        folder = folder / subtype
    for entry in object_rows(rows, str(file)):
        try:
            if isinstance(entry, RowError):
                raise entry
            origin, row = entry
            key = required_text(row, "question_id", str(origin))
            where = f"{origin} (id {key:.100})"
            number = whole_number(row, "image_id", where)
            question = required_text(row, "question", where)
            given = answers.get(_key(row["question_id"]))
            if given is None:
                raise RowError("no answer", where, f"{name} has no such question.")
            answer = required_text(given, "multiple_choice_answer", where)
            people = _answers(given.get("answers"), where)
            kind, question_type = (optional_text(given, column, where) for column in ("answer_type", "question_type"))
            image = image_path(folder, f"COCO_{subtype}_{number:012d}.jpg", where)
            yield VQAQuestion(key, image, question, answer, people, answer, kind, question_type, origin)
        except RowError as error:
            yield error


def _plain(rows: Rows, images: Path | None) -> Iterator[VQAQuestion | RowError]:
    for entry in rows:
        try:
            if isinstance(entry, RowError):
                raise entry
            origin, row = entry
            key = next((row[name] for name in ("id", "question_id") if not is_blank(row.get(name))), origin.row)
            name = checked_text(key, "id", str(origin))
            where = f"{origin} (id {name:.100})"
            question = required_text(row, "question", where)
            people = () if row.get("answers") is None else _answers(row["answers"], where)
            column = "multiple_choice_answer" if is_blank(row.get("answer")) else "answer"
            answer = optional_text(row, column, where) or next((text for text, _ in Counter(people).most_common(1)), "")
            if not answer:
                raise RowError("no answer", where, "neither `answer` nor `answers` holds one.")
            kind = optional_text(row, "answer_type" if is_blank(row.get("type")) else "type", where)
            question_type = optional_text(row, "question_type", where)
            image = image_cell(row.get("image"), images or Path(origin.file).parent, where)
            yield VQAQuestion(name, image, question, answer, people or (answer,), answer, kind, question_type, origin)
        except RowError as error:
            yield error


def _answers(cell: Any, where: str) -> tuple[str, ...]:
    """Return what people answered: texts, or VQA v2's objects with `answer`."""
    if not isinstance(cell, list) or not cell:
        raise RowError("answers is no list", where, f"`answers` is {cell!r:.80}. Allowed: a list of texts.")
    texts = [given.get("answer") if isinstance(given, dict) else given for given in cell]
    return tuple(required_text({"answers": text}, "answers", where) for text in texts)


def _partner(file: Path, name: str, key: str) -> list[Any]:
    """Read the file of answers that belongs to a file of questions."""
    partner = file.with_name(name)
    if partner == file:
        raise DataError(f"{file}: the file of answers is found by its name, so this one needs `questions` in it.")
    content = read_json(partner, _lean)
    rows = content.get(key) if isinstance(content, dict) else None
    if not isinstance(rows, list):
        raise DataError(f"{partner}: there is no list `{key}`. Next: copy the file anew.")
    return rows


def _lean(values: dict[str, Any]) -> Any:
    """Keep the text alone of each of VQA v2's millions of answers, and each text once."""
    answer = values.get("answer")
    return sys.intern(answer) if "answer_confidence" in values and type(answer) is str else values


def _by_id(rows: list[Any], column: str) -> Mapping[str | None, Row]:
    return {_key(row.get(column)): row for row in rows if isinstance(row, dict)}


def _key(value: Any) -> str | None:
    return str(value) if isinstance(value, int | str) else None
