"""Rows of tables: JSON and JSON lines, Parquet, TSV and CSV on disk, and data sets of the hub.

Local files are read here, batch by batch, so that every row has a number. The hub is streamed by `datasets`, which
runs no loading scripts (from version 4 on). Images stay bytes: nothing is decoded.
"""

from __future__ import annotations

import csv
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lorgnette.data.readers.json_rows import LONGEST_ROW, WINDOW, BrokenLine, json_rows, no_text, open_text
from lorgnette.data.sample import Origin
from lorgnette.errors import DataError, MissingExtra, RowError, nearest

EXTRA = "datasets"
BATCH = 64
"""Rows of a Parquet file in memory at once; rows with images have 0.1 to 1 MB each."""
SUFFIXES = (".json", ".jsonl", ".ndjson", ".json.gz", ".jsonl.gz", ".parquet", ".tsv", ".csv")
HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")

Row = Mapping[str, Any]
Rows = Iterator[tuple[Origin, Row] | RowError]
Record = TypeVar("Record")


@dataclass(frozen=True, slots=True)
class Columns:
    """What is read of a table; the other columns stay on disk where the format allows it. Without names: all."""

    required: tuple[str, ...] = ()
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
        return [name for name in found if not self.required or name in self.required or name in self.optional]


def table_rows(path: str, split: str | None, columns: Columns, config: str | None = None) -> Rows:
    """Yield the rows of a file, of a folder laid out like a data set of the hub, or of one on the hub.

    Raises:
        DataError: if there is no such table, it lacks a required column, or reading it fails.
        MissingExtra: if the format needs a library that is not installed.
    """
    place = Path(path)
    if place.is_dir():
        for file in find_tables(place, split, config):
            yield from file_rows(file, columns)
    elif is_on_hub(path):
        yield from hub_rows(path, split, columns, config)
    else:
        yield from file_rows(place, columns)


def is_on_hub(path: str) -> bool:
    """Tell whether a path can only be the name of a data set on the hub: not on disk, and not named like a file."""
    named_like_file = path.lower().endswith((*SUFFIXES, ".gz"))
    return HUB_NAME.fullmatch(path) is not None and not named_like_file and not Path(path).exists()


def find_tables(folder: Path, split: str | None, config: str | None = None) -> list[Path]:
    """Return the files of a split, all shards of it in order.

    The files are in `folder/config`, else in `folder`, `folder/data` or `folder/default`. A file is of a split if its
    name has it as a word: `testdev-00000-of-00002.parquet`, `mmbench_ru_dev.parquet`.

    Raises:
        DataError: if there are none, shards are missing, or several tables fit.
    """
    places = [folder / config] if config is not None else [folder, folder / "data", folder / "default"]
    files = next(filter(None, (_tables_in(place) for place in places)), [])
    if not files:
        near = sorted(entry.name for entry in folder.iterdir())
        raise DataError(
            f"{places[0]}: no data file. Allowed: {', '.join(SUFFIXES)}. {folder} has: "
            f"{', '.join(near[:20]) or 'nothing'}.{nearest(config or '', near)}"
        )
    fitting = [file for file in files if split is None or f"_{_words(split)}_" in f"_{_words(file.name)}_"]
    tables = {re.sub(r"-\d+-of-\d+(?=\.)", "", file.name) for file in fitting}
    if len(tables) != 1:
        wanted = "" if split is None else f" with '{split}' in its name"
        problem = f"{len(tables)} data files{wanted}" if fitting else f"no data file{wanted}"
        names = ", ".join(sorted(tables) or [file.name for file in files][:20])
        raise DataError(
            f"{files[0].parent}: {problem}. The files are: {names}. Next: give the file as `path`, or a `split`."
        )
    shards = re.search(r"-\d+-of-(\d+)\.", fitting[0].name)
    if shards and len(fitting) != int(shards[1]):
        names = ", ".join(file.name for file in fitting[:20])
        raise DataError(
            f"{files[0].parent}: {len(fitting)} of {int(shards[1])} shards are there: {names}. Next: get the others."
        )
    return fitting


def _tables_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(file for file in folder.iterdir() if file.is_file() and file.name.lower().endswith(SUFFIXES))


def _words(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower())


def file_rows(file: Path, columns: Columns) -> Rows:
    """Yield the rows of one file, by its suffix; any that is no table is read as JSON.

    Raises:
        DataError: if the file is missing, empty, truncated or of another kind, or lacks a required column.
        MissingExtra: if it is Parquet and `pyarrow` is not installed.
    """
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        yield from _parquet_rows(file, columns)
    elif suffix in (".tsv", ".csv"):
        yield from _delimited_rows(file, columns, "\t" if suffix == ".tsv" else ",")
    else:
        yield from object_rows(json_rows(file), str(file))


def _parquet_rows(file: Path, columns: Columns) -> Iterator[tuple[Origin, Row]]:
    try:
        import pyarrow as arrow  # noqa: PLC0415
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtra("pyarrow", EXTRA) from error
    number = 0
    try:
        open_text(file).close()  # says what is wrong with the path
        if file.stat().st_size == 0:
            raise DataError(f"{file}: the file is empty. Next: copy it anew.")
        # by default the whole file is read ahead, and without a buffer whole columns are: gigabytes of images
        with parquet.ParquetFile(file, buffer_size=2**20, pre_buffer=False) as table:
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


def _delimited_rows(file: Path, columns: Columns, delimiter: str) -> Rows:
    """Read TSV or CSV, quoted as pandas and spreadsheets do. The header is no row; a row may span lines."""
    csv.field_size_limit(LONGEST_ROW)  # base64 images are longer than Python's own limit of 131,072
    number = -1
    try:
        with open_text(file, newline="") as text:
            lines = csv.reader(text, delimiter=delimiter, strict=True)
            header = next(lines, [])
            if not header:
                raise DataError(f"{file}: the file is empty. Allowed: a header, then a row a line.")
            places = {name: header.index(name) for name in columns.among(header, str(file))}
            for number, cells in enumerate(filter(None, lines)):
                origin = Origin(str(file), number)
                if len(cells) == len(header):
                    yield origin, {name: cells[place] for name, place in places.items()}
                else:
                    reason = f"{len(cells)} cells, but the header names {len(header)} columns."
                    yield RowError("number of cells", str(origin), reason)
    except (csv.Error, OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(
            f"{file}, row {number + 1}: cannot be read from here on ({error}). Allowed: UTF-8, cells separated by a "
            'tab (.tsv) or a comma (.csv), quoted with ". Next: the file may be truncated; copy it anew.'
        ) from error


def object_rows(rows: Iterable[Any], file: str, first: int = 0) -> Rows:
    """Yield the objects among the values of a JSON file with their rows, counted from `first`; others as errors."""
    for number, row in enumerate(rows, start=first):
        origin = Origin(file, number)
        if isinstance(row, dict):
            yield origin, row
        elif isinstance(row, BrokenLine):
            yield RowError("no JSON", str(origin), str(row))
        else:
            yield RowError("row is no object", str(origin), f"the row is a {type(row).__name__}. Allowed: an object.")


def holds_list(file: Path) -> bool:
    """Tell whether a JSON file is a list, which is best read row by row.

    Raises:
        DataError: if the file is missing or no UTF-8.
    """
    with _explained(file), open_text(file) as stream:
        return stream.read(WINDOW).lstrip().startswith("[")


def records_of(rows: Rows, make: Callable[[Origin, Row], Record]) -> Iterator[Record | RowError]:
    """Yield what `make` makes of every row, in place of a row that it refuses its error."""
    for entry in rows:
        if isinstance(entry, RowError):
            yield entry
            continue
        try:
            record = make(*entry)
        except RowError as error:
            yield error
        else:
            yield record


def read_json(file: Path, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """Read a whole JSON file; `object_hook` may make the objects in it smaller while they are read.

    Raises:
        DataError: if the file is missing, empty, truncated, no UTF-8 or no JSON.
    """
    with _explained(file), open_text(file) as stream:
        text = stream.read()
        if not text.strip():
            raise DataError(f"{file}: the file is empty. Next: copy it anew.")
        return json.loads(text, object_hook=object_hook)


@contextmanager
def _explained(file: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise DataError(no_text(file, error)) from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file}: cannot be read ({error!s:.200}). Next: copy it anew.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{file}: no valid JSON ({error!s:.200}). Next: the file may be truncated; copy it anew."
        ) from error


def hub_rows(name: str, split: str | None, columns: Columns, config: str | None) -> Iterator[tuple[Origin, Row]]:
    """Stream the rows of a data set of the hub; nothing is read beyond the rows that are asked for.

    Raises:
        DataError: if there is no such data set, config or split, a column is missing, or the connection breaks.
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
        stream = datasets.load_dataset(name, config, split=split, streaming=True)
        names: list[str] = []
        # of JSON and CSV the columns' kinds are not known beforehand; nothing in them would be decoded
        for row in stream if stream.features is None else stream.decode(False):
            names = names or columns.among(list(row), where)
            yield Origin(where, number), {column: row[column] for column in names}
            number += 1
    except DataError:
        raise
    except Exception as error:  # what the hub, the network and a dozen formats raise has no common class
        raise DataError(
            f"{where}, row {number}: there is no such file or folder, and it cannot be read from the hub "
            f"({type(error).__name__}: {error!s:.300}). Next: check path, config and split; for a gated set log in "
            "with `hf auth login`; or give a local folder."
        ) from error
