"""MMBench: questions with options A to E, each asked several times with the options turned round (Liu et al. 2023).

Read from `deepvk/MMBench-ru` and its kind (Parquet) and from the official TSV. Traps of these files, all seen to here:
a picture is base64 text, and a cell of fewer than 16 characters is the `index` of the row that has it; what is missing
is None, NaN or the text "nan"; options may be missing from C on; the column is `l2-category` or `L2-category`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from lorgnette.data.readers.cells import image_cell, is_blank, kept_image, optional_text, required_text, whole_number
from lorgnette.data.readers.tables import Columns, Row, table_rows
from lorgnette.data.sample import IMAGE_TAG, Origin, Sample, Turn
from lorgnette.errors import DataError, RowError, nearest

LETTERS = ("A", "B", "C", "D", "E")
CIRCLE = 1_000_000
"""`index % CIRCLE` is the question; rows from this index on are its turned copies."""
POINTER = 16
"""A cell of fewer characters than this is the index of another row; no picture is so short."""
COLUMNS = Columns(
    ("index", "question", "answer", "image"),
    (*LETTERS, "hint", "category", "l2-category", "L2-category", "source", "split"),
)


@dataclass(frozen=True, slots=True)
class MMBenchQuestion:
    """One row of MMBench.

    Attributes:
        id: the index as text.
        index: `index % 1_000_000` is the same for all rows of a circular group; below that is the main row.
        hint: "" where there is none.
        options: letter -> text, those that are there, in the order of letters.
        answer: a letter of `options`.
    """

    id: str
    index: int
    image: str
    hint: str
    question: str
    options: Mapping[str, str]
    answer: str
    category: str
    l2_category: str
    source: str
    split: str
    origin: Origin


def mmbench_questions(path: str, split: str | None, images: str | None) -> Iterator[MMBenchQuestion | RowError]:
    """Yield the rows in the file's order, each with its image; a row that cannot be used as an error.

    Args:
        path: a Parquet or TSV file, a folder of them, or the name of a data set on the hub.
        split: "dev"...; for a file, the rows whose column `split` says so, all where null.
        images: the folder of the images where the file names paths; null: its own folder.

    Raises:
        DataError: if the source cannot be read, or no row is of the split.
        MissingExtra: if it needs a library that is not installed.
    """
    by_row = split if Path(path).is_file() else None
    rows: list[tuple[MMBenchQuestion, int | None] | RowError] = []
    pictures: dict[int, str | None] = {}
    others: set[str] = set()
    for found in table_rows(path, split, COLUMNS):
        try:
            if isinstance(found, RowError):
                raise found
            row, pointer = _question(*found, Path(images) if images is not None else None, pictures)
        except RowError as error:
            rows.append(error)
            continue
        if by_row is None or row.split == by_row:
            rows.append((row, pointer))
        else:
            others.add(row.split)
    if not rows:
        raise DataError(
            f"{path}: no row is of split '{split}'. The column `split` has: {', '.join(sorted(others))}."
            f"{nearest(split or '', others)}"
        )
    for entry in rows:
        yield entry if isinstance(entry, RowError) else _with_picture(*entry, pictures)


def read_mmbench(path: str, split: str | None, images: str | None) -> Iterator[Sample | DataError]:
    """Yield one question with its options, answered by a letter, a sample."""
    for row in mmbench_questions(path, split, images):
        if isinstance(row, RowError):
            yield row
        else:
            turns = (Turn("user", f"{IMAGE_TAG}\n{question_with_options(row)}"), Turn("assistant", row.answer))
            yield Sample(row.id, (row.image,), turns, row.origin)


def question_with_options(row: MMBenchQuestion) -> str:
    """Return hint, question and options as lmms-eval words them: the English header also stands in translations."""
    options = "\n".join(f"{letter}. {text}" for letter, text in row.options.items())
    return f"{row.hint} {row.question} There are several options:\n{options}".removeprefix(" ")


def _question(
    origin: Origin, row: Row, images: Path | None, pictures: dict[int, str | None]
) -> tuple[MMBenchQuestion, int | None]:
    """Return a row and the index of the row that has its picture, None if it has one itself; note its own picture."""
    row = {name: None if cell == "nan" else cell for name, cell in row.items()}
    index = whole_number(row, "index", str(origin))
    where = f"{origin} (id {index})"
    if index in pictures:
        raise RowError("index twice", where, f"another row has the index {index}, too.")
    picture = _picture(row, images or Path(origin.file).parent, where)
    pictures[index] = picture if isinstance(picture, str) else None
    options = {letter: text for letter in LETTERS if (text := optional_text(row, letter, where))}
    answer = required_text(row, "answer", where).strip()
    if answer not in options:
        raise RowError(
            "answer is no option",
            where,
            f"the answer is {answer!r:.80}. The options are: {', '.join(options) or 'none'}.",
        )
    hint, category, source, split = (
        optional_text(row, name, where) for name in ("hint", "category", "source", "split")
    )
    l2_category = optional_text(row, "l2-category" if "l2-category" in row else "L2-category", where)
    question = required_text(row, "question", where)
    image = picture if isinstance(picture, str) else ""
    made = MMBenchQuestion(
        str(index), index, image, hint, question, options, answer, category, l2_category, source, split, origin
    )
    return made, picture if isinstance(picture, int) else None


def _picture(row: Row, folder: Path, where: str) -> str | int:
    """Return the path of a row's picture, or the index of the row that has it."""
    cell = row["image"]
    if not isinstance(cell, str) or is_blank(cell):
        return cell if isinstance(cell, int) else image_cell(cell, folder, where)
    if len(cell) < POINTER:
        return whole_number({"image": cell}, "image", where)
    try:
        data = base64.b64decode("".join(cell.split()), validate=True)
    except ValueError as error:
        raise RowError("image is no base64", where, f"`image` is {cell!r:.40} ({error}). Allowed: base64.") from error
    return kept_image(data)


def _with_picture(
    row: MMBenchQuestion, pointer: int | None, pictures: Mapping[int, str | None]
) -> MMBenchQuestion | RowError:
    if pointer is None:
        return row
    picture = pictures.get(pointer)
    if picture is None:
        where = f"{row.origin} (id {row.id})"
        return RowError(
            "image missing", where, f"`image` points to row {pointer}, which is not there or has no picture."
        )
    return replace(row, image=picture)
