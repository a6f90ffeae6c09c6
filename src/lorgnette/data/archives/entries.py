"""The members of zip and tar archives, one after another, with what makes each of them dangerous.

Archives come from strangers: nothing that they say about their size is believed, no header is read that would fill the
memory, and what the standard library raises on damaged ones is one exception here. Writes nothing.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

CHUNK = 1 << 20
MOST_READ = 4 << 20
"""Nothing needs to be read in larger pieces; tarfile would read a header of gigabytes into memory."""

DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    RuntimeError,
    LookupError,
    ArithmeticError,
)
"""What the standard library raises on archives that are cut, damaged, encrypted or packed in an unknown way."""


class Refused(Exception):
    """An entry that makes its archive unacceptable."""


class Damaged(Exception):
    """An archive that cannot be read to its end."""


Reading = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Entry:
    """A member of an archive; `open` is None for a folder, `refused` says what else it is if it is no file."""

    name: str
    refused: str
    open: Callable[[], Reading] | None


def archive_entries(stream: IO[bytes], count: Callable[[int], None], most_entries: int) -> Iterator[Entry]:
    """Yield the members of an archive in their order; what it is, its first bytes say."""
    start = stream.read(6)
    stream.seek(0)
    if start[:2] == b"PK":
        return _zip_entries(stream, count, most_entries)
    with reading():
        if start[:2] == b"\x1f\x8b":
            stream = gzip.GzipFile(fileobj=stream)  # type: ignore[assignment]
        elif start[:3] == b"BZh":
            stream = bz2.BZ2File(stream)
        elif start == b"\xfd7zXZ\0":
            stream = lzma.LZMAFile(stream)  # noqa: SIM115
    return _tar_entries(_Counted(stream, count))


def _zip_entries(stream: IO[bytes], count: Callable[[int], None], most_entries: int) -> Iterator[Entry]:
    with reading():
        _check_directory(stream, most_entries)
        file = zipfile.ZipFile(stream)
    for info in file.infolist():
        mode = info.external_attr >> 16
        special = stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR)
        refused = _special(stat.S_ISLNK(mode)) if special else "encrypted" if info.flag_bits & 1 else ""

        def opened(info: zipfile.ZipInfo = info) -> Reading:
            with reading():
                return _Counted(file.open(info), count).read

        # `filename` is mended by zipfile already; what the archive says is in `orig_filename`
        yield Entry(info.orig_filename, refused, None if info.is_dir() else opened)


def _check_directory(stream: IO[bytes], most_entries: int) -> None:
    """Refuse a directory of too many entries before zipfile makes an object of each."""
    size = stream.seek(0, io.SEEK_END)
    stream.seek(max(0, size - 65_557 - 76))
    tail = stream.read()
    place = tail.rfind(b"PK\x05\x06")
    if place < 0 or len(tail) < place + 22:
        raise zipfile.BadZipFile("its end is missing")
    (total,) = struct.unpack_from("<H", tail, place + 10)
    (length,) = struct.unpack_from("<I", tail, place + 12)
    if place >= 76 and tail[place - 76 : place - 72] == b"PK\x06\x06":
        total, length = struct.unpack_from("<QQ", tail, place - 76 + 32)
    if total > most_entries or length > 512 * most_entries:
        raise Refused(f"more than {most_entries:,} entries")


def _tar_entries(stream: _Counted) -> Iterator[Entry]:
    with reading():
        tar = tarfile.open(fileobj=stream, mode="r:")  # noqa: SIM115
    while True:
        with reading():
            member = tar.next()
        if member is None:
            break
        special = not (member.isreg() or member.isdir()) or member.issparse()
        refused = _special(member.issym() or member.islnk()) if special else ""

        def opened(member: tarfile.TarInfo = member) -> Reading:
            with reading():
                source = tar.extractfile(member)
            assert source is not None  # it is a regular file
            return source.read

        yield Entry(member.name, refused, None if member.isdir() else opened)
    if any(stream.last) or not stream.last:  # tarfile takes a cut archive for one that ends
        raise Damaged("it ends without the mark of its end: it was cut off, or its last part is missing")


def _special(link: bool) -> str:
    return "a link" if link else "a device, a pipe or another special file"


class _Counted(io.RawIOBase):
    """A stream that counts what is read of it, and goes forward only."""

    def __init__(self, stream: IO[bytes], count: Callable[[int], None]) -> None:
        self.stream = stream
        self.count = count
        self.position = 0
        self.last = b""

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MOST_READ:
            raise Refused(f"a header of more than {MOST_READ:,} bytes")
        self.last = self.stream.read(size)
        self.position += len(self.last)
        self.count(len(self.last))
        return self.last

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET or offset < self.position:
            raise io.UnsupportedOperation("forward only")
        while self.position < offset and self.read(min(CHUNK, offset - self.position)):
            pass
        return self.position

    def close(self) -> None:
        self.stream.close()
        super().close()


def safe_parts(name: str) -> tuple[str, ...]:
    """Split the path of an entry; backslashes count as slashes.

    Raises:
        Refused: if it would lead out of the folder.
    """
    path = name.replace("\\", "/")
    parts = tuple(part for part in path.split("/") if part not in ("", "."))
    if path.startswith("/") or re.match("[A-Za-z]:", path):
        raise Refused("an absolute path")
    if ".." in parts:
        raise Refused("a path that leaves the folder")
    if "\0" in path:
        raise Refused("a path with a zero byte")
    return parts


@contextmanager
def reading() -> Iterator[None]:
    """Tell an archive that cannot be read from a disk that cannot be written.

    Raises:
        Damaged: for whatever the standard library raises on a damaged archive.
    """
    try:
        yield
    except DAMAGE as error:
        raise Damaged(str(error) or type(error).__name__) from error
