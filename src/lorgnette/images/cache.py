"""Facts of images, remembered by content in one SQLite file of the cache folder.

It holds facts by the hash of a file's bytes, and the hash by path, size and times of the file, so that a second look
costs one `stat` an image. Pixels are never kept. Deleting the file costs only time.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path

import PIL

from lorgnette.errors import InputError, RowError
from lorgnette.images.facts import ImageFacts
from lorgnette.images.opening import require_file
from lorgnette.run import cache_folder

MADE_BY = f"1, pillow {PIL.__version__}"
"""Facts that another Pillow found are not used. The number is raised when `ImageFacts` changes."""

Mark = tuple[int, int, int]
"""Size and times of a file: while they stay, so does its content."""

TABLES = """
CREATE TABLE IF NOT EXISTS facts (sha256 TEXT, made_by TEXT, facts TEXT, PRIMARY KEY (sha256, made_by));
CREATE TABLE IF NOT EXISTS files (path BLOB PRIMARY KEY, size INTEGER, modified INTEGER, changed INTEGER, sha256 TEXT);
"""


@contextmanager
def image_cache(*, writable: bool) -> Iterator[sqlite3.Connection]:
    """Open the cache; one that is only read and does not exist yet is an empty one.

    Raises:
        InputError: if the file cannot be made or is no cache.
    """
    file = cache_folder("image-facts") / "facts.sqlite"
    try:
        if writable:
            file.parent.mkdir(parents=True, exist_ok=True)
        is_kept = writable or file.is_file()
    except OSError as error:
        raise _unusable(file, error) from error
    place = f"{file.absolute().as_uri()}{'' if writable else '?mode=ro'}" if is_kept else ":memory:"
    try:
        with closing(sqlite3.connect(place, uri=True, timeout=60)) as connection:
            if writable or not is_kept:
                connection.executescript(TABLES)
            yield connection
    except sqlite3.Error as error:  # also one that is raised where the cache is used
        raise _unusable(file, error) from error


def _unusable(file: Path, error: Exception) -> InputError:
    return InputError(
        f"{file}: the cache of image facts cannot be used ({error}). Next: delete this file, or set XDG_CACHE_HOME to "
        "a folder that can be written."
    )


def mark_of(path: str) -> Mark:
    """Return size and times of an image file.

    Raises:
        RowError: of kind "image missing".
    """
    found = require_file(path)
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def recall_file(cache: sqlite3.Connection, path: str, mark: Mark) -> ImageFacts | None:
    """Return the facts of a file that was looked at before and has not changed since."""
    row = cache.execute(
        "SELECT sha256 FROM files WHERE path = ? AND size = ? AND modified = ? AND changed = ?", (_key(path), *mark)
    ).fetchone()
    return None if row is None else recall_content(cache, row[0])


def recall_content(cache: sqlite3.Connection, sha256: str) -> ImageFacts | None:
    """Return the facts of an image by the hash of its bytes, wherever it lay."""
    row = cache.execute("SELECT facts FROM facts WHERE sha256 = ? AND made_by = ?", (sha256, MADE_BY)).fetchone()
    if row is None:
        return None
    facts = json.loads(row[0])
    return ImageFacts(**facts | {"problem": tuple(facts["problem"]) if facts["problem"] else None})


def remember(cache: sqlite3.Connection, found: Mapping[str, tuple[Mark, ImageFacts]]) -> None:
    """Write facts, by path, in one transaction."""
    readable = [(path, mark, facts) for path, (mark, facts) in found.items() if facts.sha256 is not None]
    with cache:
        cache.executemany(
            "INSERT OR REPLACE INTO facts VALUES (?, ?, ?)",
            [(facts.sha256, MADE_BY, json.dumps(asdict(facts))) for _, _, facts in readable],
        )
        cache.executemany(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)",
            [(_key(path), *mark, facts.sha256) for path, mark, facts in readable],
        )


def refusal(path: str, facts: ImageFacts) -> RowError | None:
    """Return why an image cannot be used, as an error; None if it can."""
    return None if facts.problem is None else RowError(facts.problem[0], path[:200], facts.problem[1])


def _key(path: str) -> bytes:
    return os.fsencode(os.path.abspath(path))
