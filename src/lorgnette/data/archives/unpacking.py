"""Unpack zip and tar archives from strangers: into their folder, bounded, regular files only.

An archive with a path that leads elsewhere, a link, a device or more content than a bomb's bounds allow is refused as a
whole, by the name of the entry: nothing of it stays. What is in the files is not looked at.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from lorgnette.data.archives.entries import CHUNK, Damaged, Reading, Refused, archive_entries, reading, safe_parts
from lorgnette.data.archives.volumes import Archive, find_archives, is_archive_name, open_archive
from lorgnette.errors import DataError


@dataclass(frozen=True, slots=True)
class Bounds:
    """What an archive, with all archives in it, may unpack to.

    Attributes:
        ratio: bytes unpacked by byte of the outermost archive, counted from `free_bytes` on. Deflate reaches 1,032 on
            zeros; photographs stay under 2, JSON under 20.
        depth: archives within archives.
    """

    entries: int = 1_000_000
    total_bytes: int = 500 << 30
    ratio: int = 100
    free_bytes: int = 64 << 20
    depth: int = 3


@dataclass
class Unpacked:
    """What was unpacked so far, nested archives included.

    Attributes:
        left: entries that `wanted` did not ask for.
    """

    bounds: Bounds
    packed_bytes: int
    entries: int = 0
    total_bytes: int = 0
    files: int = 0
    left: int = 0
    archives: int = 0

    def count_entry(self) -> None:
        """Count an entry.

        Raises:
            Refused: if there are too many.
        """
        self.entries += 1
        if self.entries > self.bounds.entries:
            raise Refused(f"more than {self.bounds.entries:,} entries")

    def count_bytes(self, number: int) -> None:
        """Count unpacked bytes.

        Raises:
            Refused: if there are too many, or too many for the size of the archive.
        """
        self.total_bytes += number
        most = min(self.bounds.total_bytes, self.bounds.free_bytes + self.bounds.ratio * self.packed_bytes)
        if self.total_bytes > most:
            raise Refused(f"a bomb: {self.packed_bytes:,} bytes unpack to more than {most:,}")


@dataclass
class _Place:
    """Which entry is being read, for the message."""

    entry: str = ""


def unpack(
    archive: Archive, folder: Path, wanted: Callable[[str], bool] = lambda name: True, bounds: Bounds | None = None
) -> Unpacked:
    """Unpack an archive, and the archives in it, into a new folder, which is there in full or not at all.

    Only files whose name (without folders) is `wanted` are written, and archives. A nested archive becomes a folder of
    its name. The same entry twice is refused too: which of them is meant, only an attacker knows.

    Raises:
        DataError: if the archive is refused or damaged; the message names archive and entry.
    """
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    done = Unpacked(bounds or Bounds(), archive.size)
    try:
        _unpack_one(archive, unfinished, wanted, done, depth=0)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return done


def _unpack_one(archive: Archive, folder: Path, wanted: Callable[[str], bool], done: Unpacked, depth: int) -> None:
    done.archives += 1
    written = []
    with _explaining(archive) as at, open_archive(archive) as stream:
        for entry in archive_entries(stream, done.count_bytes, done.bounds.entries):
            at.entry = entry.name
            done.count_entry()
            parts = safe_parts(entry.name)
            if entry.refused:
                raise Refused(entry.refused)
            if entry.open is None:
                continue
            if not parts:
                raise Refused("no name")
            if not (is_archive_name(parts[-1]) or wanted(parts[-1])):
                done.left += 1
                continue
            written.append(folder.joinpath(*parts))
            with _making(written[-1]) as target:
                _copy(entry.open(), target)
    nested, incomplete = find_archives(path for path in written if is_archive_name(path.name))
    if incomplete:
        raise DataError(f"{archive.name}: in it {incomplete[0]}")
    done.files += len(written) - sum(len(inner.volumes) for inner in nested)
    for inner in nested:
        name = f"{archive.name}: {inner.name}"
        if depth == done.bounds.depth:
            raise DataError(
                f"{name}: Refused: archives in archives, more than {depth} deep. Nothing of it was kept. Next: "
                "unpack by hand what you trust."
            )
        place = inner.volumes[-1].with_name(f"{inner.name}.unpacked")
        _unpack_one(Archive(name, inner.volumes), place, wanted, done, depth + 1)
        for volume in inner.volumes:
            volume.unlink()


@contextmanager
def _making(path: Path) -> Iterator[IO[bytes]]:
    """Open a new file for an entry.

    Raises:
        Refused: if the archive has something else of that name, or the system takes no such name.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("xb")
    except (FileExistsError, NotADirectoryError) as error:
        raise Refused("a name that another entry has already") from error
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ):
            raise Refused(f"a name that the system refuses ({error.strerror})") from error
        raise
    with stream:
        yield stream


def _copy(read: Reading, target: IO[bytes]) -> None:
    while True:
        with reading():
            chunk = read(CHUNK)
        if not chunk:
            return
        target.write(chunk)


@contextmanager
def _explaining(archive: Archive) -> Iterator[_Place]:
    """Say which entry of which archive made it unacceptable."""
    place = _Place()
    try:
        yield place
    except Refused as error:
        raise DataError(
            f"{archive.name}: entry {place.entry!r:.200}: {error}. Refused, and nothing of the "
            "archive was kept. Next: get it from its authors, or unpack by hand what you trust."
        ) from error
    except Damaged as error:
        where = f"after entry {place.entry!r:.200}" if place.entry else "from its start"
        raise DataError(
            f"{archive.name}: cannot be read {where} ({error}). Next: it may be cut, or a part may be "
            "missing; fetch it anew."
        ) from error
