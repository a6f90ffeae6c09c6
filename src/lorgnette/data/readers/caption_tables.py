"""Captions in tables: Parquet, CSV, JSON lines, and data sets of the hub such as `arampacha/rsicd`.

A row is an image and what is said about it: a list in `captions`, `sentences`, `references` or `answer`, or one text in
`caption`. Rows with one text each and the same id are about one image and come together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from lorgnette.data.readers.cells import checked_text, is_blank, one_image, optional_text, required_text
from lorgnette.data.readers.image_lookup import CocoFolder, ImageFolder
from lorgnette.data.readers.tables import SUFFIXES, Columns, Row, is_on_hub, records_of, table_rows
from lorgnette.data.sample import Origin
from lorgnette.errors import DataError, RowError, nearest

CAPTIONS = ("captions", "sentences", "references", "caption", "answer")
IDS = ("imgid", "image_id", "img_id", "id", "question_id", "filename")
TABLES = tuple(suffix for suffix in SUFFIXES if not suffix.startswith(".json") or suffix.startswith(".jsonl"))
"""Suffixes of files that hold a row of an image each; `.json` has layouts of its own."""


class HasSplit(Protocol):
    """A row that says which split it is of, "" where it says nothing."""

    @property
    def split(self) -> str: ...  # noqa: D102


Of = TypeVar("Of", bound=HasSplit)


@dataclass(frozen=True, slots=True)
class CaptionedImage:
    """One image and all that is said about it.

    Attributes:
        references: the captions in the file's order; a caption that the set repeats (RSICD does, to have five) is
            repeated here.
        prompt: the question of the set with its image tag (CC3M has one), else "".
        split: "train", "val", "test"... where the file has splits, else "".
        category: the scene class where the set has one (NWPU), else "".
        mended: what was put right to find the image.
    """

    id: str
    image: str
    references: tuple[str, ...]
    prompt: str
    split: str
    category: str
    origin: Origin
    mended: tuple[str, ...] = ()


def captions_source(path: str, split: str | None) -> str:
    """Return the JSON file of captions that a folder stands for; any other path, and a folder of tables, as it is.

    Of several files it is `chat.json` of LLaVA-CC3M, beside which lies `metadata.json` of the same images; else the one
    whose name has the split as a word: `captions_val2014.json` for "val2014". COCO's other annotations are none.

    Raises:
        DataError: if a folder has several files, and not one of them is of the split.
    """
    place = Path(path)
    if not place.is_dir():
        return path
    if (place / "chat.json").is_file():
        return str(place / "chat.json")
    files = sorted(file for within in (place, place / "annotations") for file in within.glob("*.json"))
    files = [file for file in files if file.name.startswith("captions_")] or files
    if len(files) > 1:
        named = [file for file in files if _is_of(file, split)]
        if len(named) != 1:
            names = ", ".join(file.name for file in files[:20])
            raise DataError(f"{path}: which file of captions is meant? There are: {names}. Next: give the file.")
        files = named
    return str(files[0]) if files else path


def rows_of_split(rows: Iterable[Of | RowError], split: str | None, source: str) -> Iterator[Of | RowError]:
    """Yield the rows of a split, and all errors.

    A row that names no split is of the one that the source was chosen by: the part of a set on the hub, the folder's
    file, the name of the file itself.

    Raises:
        DataError: if no row is of the split.
    """
    chosen = not Path(source).is_file() or _is_of(Path(source), split)
    found: dict[str, None] = {}
    for row in rows:
        if isinstance(row, RowError):
            yield row
            continue
        own = split if chosen and split is not None and not row.split else row.split
        found[own] = None
        if split is None or own == split:
            yield row
    if split is not None and split not in found:
        has = ", ".join(sorted(filter(None, found)))
        raise DataError(
            f"{source}: there is no split '{split}'. The file has: {has or 'no splits; leave `split` out'}."
            f"{nearest(split, found)}"
        )


def is_table(path: str) -> bool:
    """Tell whether captions come as rows of a table: a folder, a data set on the hub, or a file by its suffix."""
    return Path(path).is_dir() or is_on_hub(path) or path.lower().endswith(TABLES)


def captions_of_table(
    path: str, split: str | None, folder: ImageFolder | CocoFolder, config: str | None = None
) -> Iterator[CaptionedImage | RowError]:
    """Yield the images of a table with their captions.

    Rows with a list are given as they come. Those with one caption are given after the last row, since a caption of the
    same image may stand in any of them; what is kept of a picture is its path.

    Args:
        split: which part of a folder or of a set on the hub; null for a file.

    Raises:
        DataError: if there is no such table, it has no images, or it cannot be read.
        MissingExtra: if it needs a library that is not installed.
    """
    found: dict[str, CaptionedImage] = {}
    given: set[str] = set()
    rows = table_rows(path, split, Columns(("image",), (*CAPTIONS, *IDS, "split", "category")), config)
    for entry in records_of(rows, lambda origin, cells: _captioned(origin, cells, folder)):
        if isinstance(entry, RowError):
            yield entry
            continue
        row, whole = entry
        before = found.get(row.id)
        if row.id in given or (before is not None and (whole or before.image != row.image)):
            yield RowError("id twice", f"{row.origin} (id {row.id:.100})", "another image has this id, too.")
        elif whole:
            given.add(row.id)
            yield row
        else:
            found[row.id] = row if before is None else replace(before, references=before.references + row.references)
    yield from found.values()


def _is_of(file: Path, split: str | None) -> bool:
    return split is not None and split in file.stem.replace("-", "_").split("_")


def _captioned(origin: Origin, row: Row, folder: ImageFolder | CocoFolder) -> tuple[CaptionedImage, bool]:
    """Return an image, and whether the row has all its captions: a list of them."""
    own = next((row[name] for name in IDS if not is_blank(row.get(name))), None)
    cell = row.get("image")
    if own is None and isinstance(cell, str):
        own = cell
    # rows are counted anew in every shard of a table
    name = f"{Path(origin.file).name}-{origin.row}" if own is None else checked_text(own, "id", str(origin))
    where = f"{origin} (id {name:.100})"
    given = next((row[column] for column in CAPTIONS if row.get(column) is not None), None)
    said = [one.get("raw") if isinstance(one, dict) else one for one in (given if isinstance(given, list) else [given])]
    if all(is_blank(text) for text in said):
        raise RowError("no caption", where, f"none of {', '.join(CAPTIONS)} holds one.")
    captions: list[dict[str, Any]] = [{"caption": text} for text in said]
    references = tuple(required_text(one, "caption", f"{where}, caption {n}") for n, one in enumerate(captions))
    image, mended = one_image(cell, folder, where)
    split, category = (optional_text(row, column, where) for column in ("split", "category"))
    more = tuple(filter(None, [mended]))
    return CaptionedImage(name, image, references, "", split, category, origin, more), isinstance(given, list)
