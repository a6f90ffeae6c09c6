"""Rows of a source with their origins: JSON and JSON lines, Parquet, TSV, CSV, folders of them, the hub."""

from __future__ import annotations

import csv
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lorgnette.data.readers.image_lookup import CocoFolder, ImageFolder, image_folder
from lorgnette.data.readers.json_rows import LONGEST_ROW, BrokenLine, json_rows, open_text
from lorgnette.data.readers.source import SourceSpec
from lorgnette.data.sample import Origin
from lorgnette.errors import DataError, MissingExtra, RowError

EXTRA = "datasets"
BATCH = 64
"""Rows of a Parquet file in memory at once; images inside it are large."""
SUFFIXES = (".json", ".jsonl", ".ndjson", ".json.gz", ".jsonl.gz", ".parquet", ".tsv", ".csv")
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def source_rows(spec: SourceSpec, config: str | None = None) -> Iterator[tuple[Origin, Any] | RowError]:
    """Yield the rows of a file, of the file of a split in a folder, or of a split on the hub.

    Raises:
        DataError: if there is no such source, or it cannot be read.
        MissingExtra: if it needs a library that is not installed.
    """
    place = Path(spec.path)
    if place.is_dir():
        yield from file_rows(file_of_split(place, spec.split))
    elif is_on_hub(spec.path):
        yield from hub_rows(spec.path, spec.split, config)
    elif spec.split is not None:
        raise DataError(f"{spec.path}: a file has no splits. Next: leave `split` out.")
    else:
        yield from file_rows(place)


def folder_of_images(spec: SourceSpec, *, outside: bool) -> ImageFolder | CocoFolder:
    """Return where the images of a source are looked up: `images`, or beside the data.

    Raises:
        DataError: if COCO's folder does not exist.
    """
    place = Path(spec.path)
    beside = None if is_on_hub(spec.path) else str(place if place.is_dir() else place.parent)
    return image_folder(spec.images, beside, outside=outside)


def is_on_hub(path: str) -> bool:
    """Tell whether a path can only be the name of a data set on the hub: not on disk, and not named like a file."""
    named_like_file = path.lower().endswith((*SUFFIXES, ".gz"))
    return HUB_NAME.fullmatch(path) is not None and not named_like_file and not Path(path).exists()


def file_of_split(folder: Path, split: str | None) -> Path:
    """Return the one file of a folder that has the split as a word in its name; the only file where none is given.

    Raises:
        DataError: if no file fits, or several do.
    """
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name.lower().endswith(SUFFIXES))
    words = [set(re.split(r"[^a-z0-9]+", file.name.lower())) for file in files]
    fitting = [file for file, found in zip(files, words, strict=True) if split is None or split.lower() in found]
    if len(fitting) == 1:
        return fitting[0]
    wanted = "" if split is None else f" with '{split}' in its name"
    names = ", ".join(file.name for file in (fitting or files)[:20]) or "none"
    problem = f"{len(fitting)} data files{wanted}" if fitting else f"no data file{wanted}"
    raise DataError(f"{folder}: {problem}. The files are: {names}. Next: give the file as `path`, or a `split`.")


def file_rows(file: Path) -> Iterator[tuple[Origin, Any] | RowError]:
    """Yield the rows of one file, by its suffix; any that is no table is read as JSON.

    Raises:
        DataError: if the file cannot be read.
        MissingExtra: if it is Parquet and `pyarrow` is not installed.
    """
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        yield from _parquet_rows(file)
    elif suffix in (".tsv", ".csv"):
        yield from _delimited_rows(file, "\t" if suffix == ".tsv" else ",")
    else:
        for number, row in enumerate(json_rows(file)):
            origin = Origin(str(file), number)
            yield RowError("no JSON", str(origin), str(row)) if isinstance(row, BrokenLine) else (origin, row)


def _parquet_rows(file: Path) -> Iterator[tuple[Origin, Any]]:
    try:
        import pyarrow as arrow  # noqa: PLC0415
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtra("pyarrow", EXTRA) from error
    number = 0
    try:
        with parquet.ParquetFile(file) as table:
            for batch in table.iter_batches(BATCH, use_threads=False):
                for row in batch.to_pylist():
                    yield Origin(str(file), number), row
                    number += 1
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{file}, row {number}: cannot be read as Parquet from here on ({error!s:.300}). Next: copy the file anew."
        ) from error


def _delimited_rows(file: Path, delimiter: str) -> Iterator[tuple[Origin, Any] | RowError]:
    """Read TSV or CSV, quoted as spreadsheets do. The header is no row; a row may span lines."""
    csv.field_size_limit(LONGEST_ROW)
    number = -1
    try:
        with open_text(file, newline="") as text:
            lines = csv.reader(text, delimiter=delimiter, strict=True)
            header = next(lines, [])
            if not header:
                raise DataError(f"{file}: the file is empty. Allowed: a header, then a row a line.")
            for number, cells in enumerate(filter(None, lines)):
                origin = Origin(str(file), number)
                if len(cells) == len(header):
                    yield origin, dict(zip(header, cells, strict=True))
                else:
                    reason = f"{len(cells)} cells, but the header names {len(header)} columns."
                    yield RowError("number of cells", str(origin), reason)
    except (csv.Error, OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise DataError(
            f"{file}, row {number + 1}: cannot be read from here on ({error}). Allowed: UTF-8, cells separated by a "
            'tab (.tsv) or a comma (.csv), quoted with ". Next: the file may be truncated; copy it anew.'
        ) from error


def hub_rows(name: str, split: str | None, config: str | None) -> Iterator[tuple[Origin, Any]]:
    """Stream a split of a data set on the hub; images stay bytes. `datasets` runs no loading scripts from 4.0 on.

    Raises:
        DataError: if there is no such data set or split, or the connection breaks.
        MissingExtra: if `datasets` is not installed.
    """
    if split is None:
        raise DataError(f"{name}: there is no such file; a data set on the hub is read by split. Next: give `split`.")
    try:
        import datasets  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtra("datasets", EXTRA) from error
    where = "/".join(filter(None, [name, config, split]))
    number = 0
    try:
        for row in datasets.load_dataset(name, config, split=split, streaming=True).decode(False):
            yield Origin(where, number), row
            number += 1
    except Exception as error:  # what the hub, the network and a dozen formats raise has no common class
        raise DataError(
            f"{where}, row {number}: there is no such file or folder, and it cannot be read from the hub "
            f"({type(error).__name__}: {error!s:.300}). Next: check path, config and split; for a gated set log in "
            "with `hf auth login`; or give a local folder."
        ) from error
