"""Rows of tables: Parquet, TSV, CSV, JSON and JSON lines on disk, and data sets of the hub.

Local files are read here, batch by batch where the format allows it, so that every row has a number. The hub is
streamed by `datasets`, which runs no loading scripts (from version 4 on). Images stay bytes: nothing is decoded.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorgnette.data.sample import Origin
from lorgnette.errors import DataError, MissingExtra, RowError, nearest

EXTRA = "datasets"
BATCH = 64
"""Rows of a Parquet file in memory at once; rows with images have 0.1 to 1 MB each."""
MAX_CELL = 256 * 2**20
"""Characters of a cell of TSV or CSV; base64 images are longer than Python's own limit of 131,072."""

Row = Mapping[str, Any]
Rows = Iterator[tuple[Origin, Row] | RowError]


@dataclass(frozen=True, slots=True)
class Columns:
    """What is read of a table; the other columns stay on disk where the format allows it."""

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()

    def among(self, found: Sequence[str], where: str) -> list[str]:
        """Return the columns to read of those that a table has.

        Raises:
            DataError: if a required one is missing.
        """
        missing = [name for name in self.required if name not in found]
        if missing:
            raise DataError(
                f"{where}: there is no column {', '.join(missing)}. The columns are: {', '.join(found) or 'none'}."
                f"{nearest(missing[0], found)}"
            )
        return [name for name in found if name in self.required or name in self.optional]


def table_rows(path: str, split: str | None, columns: Columns, config: str | None = None) -> Rows:
    """Yield the rows of a file, of a folder laid out like a data set of the hub, or of one on the hub.

    Raises:
        DataError: if there is no such table, it lacks a required column, or reading it fails.
        MissingExtra: if the format needs a library that is not installed.
    """
    place = Path(path)
    if place.is_file():
        yield from file_rows(place, columns)
    elif place.is_dir():
        for file in find_tables(place, split, config):
            yield from file_rows(file, columns)
    elif is_hub_name(path):
        yield from hub_rows(path, split, columns, config)
    else:
        near = [entry.name for entry in place.parent.iterdir()] if place.parent.is_dir() else []
        raise DataError(f"{path}: there is no such file or folder.{nearest(place.name, near)}")


def is_hub_name(path: str) -> bool:
    """Say whether a path that is not on disk may be the name of a data set of the hub, `owner/name`."""
    return bool(re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", path)) and Path(path).suffix.lower() not in FORMATS


def find_tables(folder: Path, split: str | None, config: str | None = None) -> list[Path]:
    """Return the files of a split, all shards of it in order.

    The files are in `folder/config`, else in `folder`, `folder/data` or `folder/default`. A file is of a split if its
    name has it as a word: `testdev-00000-of-00002.parquet`, `mmbench_ru_dev.parquet`.

    Raises:
        DataError: if there are none, shards are missing, or several tables fit.
    """
    places = [folder / config] if config is not None else [folder, folder / "data", folder / "default"]
    found = [sorted(_tables_in(place)) for place in places]
    here = next(filter(None, found), [])
    if not here:
        near = sorted(entry.name for entry in folder.iterdir())
        raise DataError(
            f"{places[0]}: there is no table. Allowed: {', '.join(FORMATS)}. {folder} has: "
            f"{', '.join(near[:20]) or 'nothing'}.{nearest(config or '', near)}"
        )
    fitting = [file for file in here if split is None or f"_{_words(split)}_" in f"_{_words(file.stem)}_"]
    where = f"{here[0].parent}: split '{split}'" if split is not None else f"{here[0].parent}"
    names = ", ".join(file.name for file in here[:20])
    if not fitting:
        raise DataError(f"{where}: no file has it in its name. The files are: {names}.")
    tables = {re.sub(r"-\d+-of-\d+$", "", file.stem) + file.suffix for file in fitting}
    if len(tables) > 1:
        raise DataError(f"{where}: several tables fit: {', '.join(sorted(tables))}. Next: name the file, or a split.")
    shards = re.search(r"-\d+-of-(\d+)$", fitting[0].stem)
    if shards and len(fitting) != int(shards[1]):
        raise DataError(f"{where}: {len(fitting)} of {int(shards[1])} shards are there: {names}. Next: get the others.")
    return fitting


def _tables_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [file for file in folder.iterdir() if file.is_file() and file.suffix.lower() in FORMATS]


def _words(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower())


def file_rows(file: Path, columns: Columns) -> Rows:
    """Yield the rows of one file, by its suffix.

    Raises:
        DataError: if the file is missing, empty, truncated or of another kind, or lacks a required column.
        MissingExtra: if it is Parquet and `pyarrow` is not installed.
    """
    if file.suffix.lower() not in FORMATS:
        raise DataError(f"{file}: no table by its name. Allowed: {', '.join(FORMATS)}.")
    try:
        if file.stat().st_size == 0:
            raise DataError(f"{file}: the file is empty. Next: copy it anew.")
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error}).") from error
    nothing = True
    for row in FORMATS[file.suffix.lower()](file, columns):
        nothing = False
        yield row
    if nothing:
        raise DataError(f"{file}: the table has no rows.")


def _parquet_rows(file: Path, columns: Columns) -> Iterator[tuple[Origin, Row]]:
    try:
        import pyarrow as arrow  # noqa: PLC0415
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtra("pyarrow", EXTRA) from error
    number = 0
    try:
        with parquet.ParquetFile(file, buffer_size=2**20) as table:
            names = columns.among(table.schema_arrow.names, str(file))
            for batch in table.iter_batches(BATCH, columns=names, use_threads=False):
                for row in batch.to_pylist():
                    yield Origin(str(file), number), row
                    number += 1
    except (arrow.ArrowException, OSError, ValueError, MemoryError) as error:
        raise DataError(
            f"{file}, row {number}: cannot be read as Parquet from here on ({error!s:.300}). Next: the file may be "
            "truncated; copy it anew."
        ) from error


def _delimited_rows(file: Path, columns: Columns) -> Rows:
    """Read TSV or CSV, quoted as pandas and spreadsheets do. The header is no row; a row may span lines."""
    csv.field_size_limit(MAX_CELL)
    number = -1
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            lines = csv.reader(text, delimiter="\t" if file.suffix.lower() == ".tsv" else ",", strict=True)
            header = next(lines, [])
            wanted = columns.among(header, str(file))
            places = {name: header.index(name) for name in wanted}
            for number, cells in enumerate(filter(None, lines)):
                origin = Origin(str(file), number)
                if len(cells) != len(header):
                    reason = f"{len(cells)} cells, but the header names {len(header)} columns."
                    yield RowError("number of cells", str(origin), reason)
                else:
                    yield origin, {name: cells[place] for name, place in places.items()}
    except (csv.Error, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{file}, row {number + 1}: cannot be read from here on ({error}). Allowed: UTF-8, cells separated by "
            'a tab (.tsv) or a comma (.csv), quoted with ". Next: the file may be truncated; copy it anew.'
        ) from error


def _json_rows(file: Path, columns: Columns) -> Rows:
    rows = read_json(file)
    if not isinstance(rows, list):
        raise DataError(f"{file}: the JSON is a {type(rows).__name__}. Allowed: a list of objects.")
    yield from object_rows(rows, str(file))


def object_rows(rows: Sequence[Any], file: str, first: int = 0) -> Rows:
    """Yield the objects of a list of a JSON file with their rows, counted from `first`; anything else is an error."""
    for number, row in enumerate(rows, start=first):
        yield _object(row, Origin(file, number))


def _json_line_rows(file: Path, columns: Columns) -> Rows:
    """Read one object a line. A line that is no JSON is a bad row, but the first such line means another format."""
    number = -1
    try:
        with file.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(filter(str.strip, lines)):
                origin = Origin(str(file), number)
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    if number == 0:
                        raise DataError(f"{file}, row 0: no valid JSON ({error!s:.200}).") from error
                    yield RowError("no JSON", str(origin), f"no valid JSON ({error!s:.200}).")
                else:
                    yield _object(row, origin)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}, row {number + 1}: cannot be read as UTF-8 text ({error}).") from error


def _object(row: Any, origin: Origin) -> tuple[Origin, Row] | RowError:
    if isinstance(row, dict):
        return origin, row
    return RowError("no object", str(origin), f"the row is a {type(row).__name__}. Allowed: an object.")


FORMATS: Mapping[str, Callable[[Path, Columns], Rows]] = {
    ".parquet": _parquet_rows,
    ".tsv": _delimited_rows,
    ".csv": _delimited_rows,
    ".json": _json_rows,
    ".jsonl": _json_line_rows,
}


def read_json(file: Path, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """Read a JSON file; `object_hook` may make objects smaller while they are read.

    Raises:
        DataError: if the file is missing, empty, truncated, no UTF-8 or no JSON.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
        if not text.strip():
            raise DataError(f"{file}: the file is empty. Next: copy it anew.")
        return json.loads(text, object_hook=object_hook)
    except FileNotFoundError as error:
        near = [entry.name for entry in file.parent.iterdir()] if file.parent.is_dir() else []
        raise DataError(f"{file}: there is no such file.{nearest(file.name, near)}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as UTF-8 text ({error!s:.200}).") from error
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{file}: no valid JSON ({error!s:.200}). Next: the file may be truncated; copy it anew."
        ) from error


def hub_rows(name: str, split: str | None, columns: Columns, config: str | None = None) -> Iterator[tuple[Origin, Row]]:
    """Stream the rows of a data set of the hub; nothing is read beyond the rows that are asked for.

    Raises:
        DataError: if there is no such data set, config or split, a column is missing, or the connection breaks.
        MissingExtra: if `datasets` is not installed.
    """
    try:
        import datasets  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtra("datasets", EXTRA) from error
    where = "/".join(filter(None, [name, config, split]))
    if split is None:
        raise DataError(f"{name}: a data set of the hub is read by split. Next: give `split`.")
    number = 0
    try:
        stream = datasets.load_dataset(name, config, split=split, streaming=True)
        names: list[str] = []
        for row in stream.decode(False):
            names = names or columns.among(list(row), where)
            yield Origin(where, number), {column: row[column] for column in names}
            number += 1
    except DataError:
        raise
    except Exception as error:  # what the hub, the network and a dozen formats raise has no common class
        raise DataError(
            f"{where}, row {number}: the hub gives no more ({type(error).__name__}: {error!s:.300}). "
            "Next: check name, config and split; for a gated set log in with `hf auth login`; or give a local folder."
        ) from error
