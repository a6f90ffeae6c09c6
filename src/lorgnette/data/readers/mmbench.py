"""MMBench: questions with options A to E, each asked several times with the options turned round (Liu et al. 2023).

Read from `deepvk/MMBench-ru` and its kind (Parquet) and from the official TSV. Traps of these files, all seen to here:
a picture is base64 text, and a cell of fewer than 16 characters is the `index` of the row that has it; what is missing
is None, NaN or the text "nan"; options may be missing from C on; the column is `l2-category` or `L2-category`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lorgnette.data.readers.cells import is_blank, one_image, optional_text, required_text, whole_number
from lorgnette.data.readers.image_lookup import CocoFolder, FoundImage, ImageFolder
from lorgnette.data.readers.questions import QuestionOptions, question_sample
from lorgnette.data.readers.source import SourceSpec, folder_of_images, read_options
from lorgnette.data.readers.tables import Columns, Row, table_rows
from lorgnette.data.sample import Origin, Sample
from lorgnette.errors import DataError, RowError, nearest

LETTERS = ("A", "B", "C", "D", "E")
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
        mended: what was put right to find the image.
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
    mended: tuple[str, ...] = ()


def mmbench_questions(
    path: str, split: str | None, images: str | None, *, outside: bool = False, config: str | None = None
) -> Iterator[MMBenchQuestion | RowError]:
    """Yield the rows in the file's order, each with its image; a row that cannot be used as an error.

    All rows are read before the first is given, since a picture may stand in a later row; what is kept of a picture
    is its path.

    Args:
        path: a Parquet or TSV file, a folder of them, or the name of a data set on the hub.
        split: "dev"...; for a file, the rows whose column `split` says so, all where null.
        images: the folder of the images where the file names paths; null: its own folder.
        outside: image paths may lead out of that folder.
        config: the configuration of a data set on the hub that has several.

    Raises:
        DataError: if the source cannot be read, or no row is of the split.
        MissingExtra: if it needs a library that is not installed.
    """
    folder = folder_of_images(SourceSpec(path, images=images), outside=outside)
    by_row = split if Path(path).is_file() else None
    rows: list[tuple[MMBenchQuestion, int | None] | RowError] = []
    pictures: dict[int, FoundImage | None] = {}
    others: set[str] = set()
    for found in table_rows(path, split, COLUMNS, config):
        try:
            if isinstance(found, RowError):
                raise found
            row, pointer = _question(*found, folder, pictures)
        except RowError as error:
            rows.append(error)
            continue
        if by_row is None or row.split == by_row:
            rows.append((row, pointer))
        else:
            others.add(row.split)
    if not rows:
        raise DataError(
            f"{path}: no row is of split '{split}'. The column `split` has: {', '.join(sorted(others)) or 'no row'}."
            f"{nearest(split or '', others)}"
        )
    for entry in rows:
        yield entry if isinstance(entry, RowError) else _with_picture(*entry, pictures)


def read_mmbench(spec: SourceSpec) -> Iterator[Sample | DataError]:
    """Yield one question with its options, answered by a letter, a sample.

    Raises:
        DataError: as `mmbench_questions`, or if an option is wrong.
    """
    options = read_options(QuestionOptions, spec)
    rows = mmbench_questions(spec.path, spec.split, spec.images, outside=options.outside_images, config=options.config)
    for row in rows:
        if isinstance(row, RowError):
            yield row
        else:
            question = question_with_options(row)
            yield question_sample(row.id, row.image, question, row.answer, row.origin, row.mended, options.prompt)


def question_with_options(row: MMBenchQuestion) -> str:
    """Return hint, question and options as lmms-eval words them: the English header also stands in translations."""
    options = "\n".join(f"{letter}. {text}" for letter, text in row.options.items())
    return f"{row.hint} {row.question} There are several options:\n{options}".removeprefix(" ")


def _question(
    origin: Origin, row: Row, folder: ImageFolder | CocoFolder, pictures: dict[int, FoundImage | None]
) -> tuple[MMBenchQuestion, int | None]:
    """Return a row and the index of the row that has its picture, None if it has one itself; note its own picture."""
    row = {name: None if cell == "nan" else cell for name, cell in row.items()}
    index = whole_number(row, "index", str(origin))
    where = f"{origin} (id {index})"
    if index in pictures:
        raise RowError("index twice", where, f"another row has the index {index}, too.")
    cell = row.get("image")
    pointer = _pointer(cell, where)
    # the encoded picture is given as `bytes`, so that no other guess is made at what the text is
    encoded = {"bytes": cell} if isinstance(cell, str) and cell.strip() else cell
    pictures[index] = one_image(encoded, folder, where) if pointer is None else None
    options = {letter: text for letter in LETTERS if (text := optional_text(row, letter, where))}
    answer = required_text(row, "answer", where).strip()
    if answer not in options:
        among = f"The options are: {', '.join(options) or 'none'}."
        raise RowError("answer is no option", where, f"the answer is {answer!r:.80}. {among}")
    hint, category, source, split = (
        optional_text(row, name, where) for name in ("hint", "category", "source", "split")
    )
    l2_category = optional_text(row, "l2-category" if "l2-category" in row else "L2-category", where)
    question = required_text(row, "question", where)
    made = MMBenchQuestion(
        str(index), index, "", hint, question, options, answer, category, l2_category, source, split, origin
    )
    return made, pointer


def _pointer(cell: Any, where: str) -> int | None:
    """Return the index of the row that has the picture, None where the cell holds one itself."""
    short = isinstance(cell, str) and not is_blank(cell) and len(cell) < POINTER
    return whole_number({"image": cell}, "image", where) if short or isinstance(cell, int) else None


def _with_picture(
    row: MMBenchQuestion, pointer: int | None, pictures: Mapping[int, FoundImage | None]
) -> MMBenchQuestion | RowError:
    picture = pictures.get(row.index if pointer is None else pointer)
    if picture is None:
        where = f"{row.origin} (id {row.id})"
        return RowError(
            "image missing", where, f"`image` points to row {pointer}, which is not there or has no picture."
        )
    return replace(row, image=picture.path, mended=(picture.mended,) if picture.mended is not None else ())
