"""Which files together are one archive, and how to read them as one file without joining them on the disk.

Big corpora are handed out in volumes: cut bytewise (`x.zip.001`, `x.tar.gz.partaa`) or by zip itself (`x.z01`, `x.zip`,
whose directory counts offsets from the start of each volume). Knows nothing about what is unpacked where.
"""

from __future__ import annotations

import bisect
import io
import re
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from lorgnette.errors import DataError

WHOLE = re.compile(r"(?i).+\.(zip|tar|tgz|tbz2|txz|tar\.(gz|bz2|xz))")
CUT = re.compile(rf"(?i)(?P<whole>{WHOLE.pattern[4:]})\.(part[-_.]?)?(?P<volume>\d{{1,4}}|[a-z]{{2}})")
ZIP_VOLUME = re.compile(r"(?i)(?P<stem>.+)\.z(?P<volume>\d{2,3})")
FOREIGN = re.compile(r"(?i).+\.(rar|7z|tar\.zst|tar\.lz4)(\.\d{3})?|.+\.r\d{2}")
"""Archives that Python cannot read; they have to be unpacked by hand."""

END_RECORD = struct.Struct("<4sHHHHIIH")
"""signature, this disk, disk of the directory, entries on it, entries, bytes and offset of the directory, comment"""


@dataclass(frozen=True, slots=True)
class Archive:
    """One archive in one or more files, its volumes, in their order."""

    name: str
    volumes: tuple[Path, ...]

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return sum(volume.stat().st_size for volume in self.volumes)


def is_archive_name(name: str) -> bool:
    """Tell whether a file is an archive that can be unpacked, or a volume of one."""
    return any(pattern.fullmatch(name) for pattern in (WHOLE, CUT, ZIP_VOLUME))


def find_archives(files: Iterable[Path]) -> tuple[list[Archive], list[DataError]]:
    """Put files together to archives, sorted by path; those of which a volume is missing are returned as errors."""
    wholes: dict[Path, Path] = {}
    cut: dict[Path, dict[str, Path]] = defaultdict(dict)
    split: dict[Path, dict[str, Path]] = defaultdict(dict)
    for file in sorted(files):
        if WHOLE.fullmatch(file.name):
            wholes[file] = file
        elif found := CUT.fullmatch(file.name):
            cut[file.with_name(found["whole"])][found["volume"].lower()] = file
        elif found := ZIP_VOLUME.fullmatch(file.name):
            split[file.with_name(f"{found['stem']}.zip")][found["volume"]] = file
    archives, errors = {}, []
    for whole, volumes in (*split.items(), *cut.items()):
        last = [wholes.pop(whole)] if whole in wholes else []
        try:
            if whole in split and not last:
                raise DataError(f"{whole}: this last part of the archive is missing. Next: put it beside the others.")
            # where somebody has joined x.zip.001 and so on to x.zip already, x.zip alone is read
            ordered = _in_order(whole, volumes) if whole in split or not last else []
            archives[whole] = (*ordered, *last)
        except DataError as error:
            errors.append(error)
    archives |= {whole: (whole,) for whole in wholes}
    return [Archive(whole.name, archives[whole]) for whole in sorted(archives)], errors


def _in_order(whole: Path, volumes: dict[str, Path]) -> list[Path]:
    """Sort volumes by number, or by letters, and miss none between the first and the last of them."""
    if len({(len(mark) if mark.isalpha() else 0) for mark in volumes}) > 1:
        raise DataError(
            f"{whole}: its parts are named in several ways ({', '.join(sorted(volumes))}). Next: join them."
        )
    numbers = {_number(mark): file for mark, file in volumes.items()}
    first = 0 if 0 in numbers or next(iter(volumes)).isalpha() else 1
    missing = [number for number in range(first, first + len(numbers)) if number not in numbers]
    if missing:
        raise DataError(
            f"{whole}: of its {max(numbers) + 1 - first} or more parts number {missing[0] + 1 - first} is missing "
            f"(there are {', '.join(sorted(volumes))}). Next: put it beside the others."
        )
    return [numbers[number] for number in sorted(numbers)]


def _number(mark: str) -> int:
    if mark.isdecimal():
        return int(mark)
    value = 0
    for letter in mark:
        value = value * 26 + ord(letter) - ord("a")
    return value


class _Joined(io.RawIOBase):
    """Several streams read as one; of each the first `lengths[i]` bytes."""

    def __init__(self, streams: Sequence[IO[bytes]], lengths: Sequence[int]) -> None:
        self.streams = streams
        self.starts = [sum(lengths[:number]) for number in range(len(lengths) + 1)]
        self.position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.starts[-1]}[whence]
        self.position = max(0, base + offset)
        return self.position

    def tell(self) -> int:
        return self.position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        if self.position >= self.starts[-1]:
            return 0
        number = bisect.bisect_right(self.starts, self.position) - 1
        stream = self.streams[number]
        stream.seek(self.position - self.starts[number])
        chunk = stream.read(min(len(buffer), self.starts[number + 1] - self.position))
        buffer[: len(chunk)] = chunk
        self.position += len(chunk)
        return len(chunk)


@contextmanager
def open_archive(archive: Archive) -> Iterator[IO[bytes]]:
    """Open an archive for reading as one seekable file.

    Raises:
        DataError: if it was split by zip in a way that cannot be read without joining it.
    """
    with ExitStack() as stack:
        streams: list[IO[bytes]] = [stack.enter_context(volume.open("rb")) for volume in archive.volumes]
        sizes = [volume.stat().st_size for volume in archive.volumes]
        if any(ZIP_VOLUME.fullmatch(volume.name) for volume in archive.volumes):
            yield _whole_zip(archive, streams, sizes)
        else:
            yield io.BufferedReader(_Joined(streams, sizes)) if len(streams) > 1 else streams[0]


def _whole_zip(archive: Archive, streams: list[IO[bytes]], sizes: list[int]) -> IO[bytes]:
    """Read a zip that was split by zip itself: the same bytes, but for a directory that counts from the start of all.

    Format: PKWARE's APPNOTE.TXT, sections 4.3.12 (an entry of the directory), 4.3.16 (its end) and 8 (splitting).
    """
    joined = io.BufferedReader(_Joined(streams, sizes))
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    joined.seek(max(0, sum(sizes) - END_RECORD.size - 65_535))
    tail = joined.read()
    place = tail.rfind(b"PK\x05\x06")
    try:
        if place < 0:
            raise ValueError("there is no end of a directory")
        _, _, disk, _, total, length, offset, _ = END_RECORD.unpack_from(tail, place)
        joined.seek(starts[disk] + offset)
        directory = _rebased(joined.read(length), total, starts)
    except (struct.error, IndexError, ValueError) as error:
        raise DataError(
            f"{archive.volumes[-1]}: a split zip that cannot be read part by part ({error}). Next: zip -s 0 "
            f"{archive.name} --out whole.zip, and delete the parts."
        ) from error
    start = starts[disk] + offset
    end = END_RECORD.pack(b"PK\x05\x06", 0, 0, total, total, length, start, 0)
    lengths = [min(size, max(0, start - begin)) for size, begin in zip(sizes, starts, strict=True)]
    changed = io.BytesIO(directory + end)
    return io.BufferedReader(_Joined([*streams, changed], [*lengths, len(directory) + len(end)]))


def _rebased(directory: bytes, total: int, starts: list[int]) -> bytes:
    """Let every entry of a zip's directory count from the start of the first volume.

    Raises:
        ValueError: if it is no directory, or an offset needs more than 32 bits; IndexError, struct.error: as well.
    """
    changed = bytearray(directory)
    place = 0
    for _ in range(total):
        if changed[place : place + 4] != b"PK\x01\x02":
            raise ValueError("its directory is damaged")
        lengths = struct.unpack_from("<HHH", changed, place + 28)
        (disk,) = struct.unpack_from("<H", changed, place + 34)
        (offset,) = struct.unpack_from("<I", changed, place + 42)
        if starts[disk] + offset >= 0xFFFFFFFF:
            raise ValueError("it is larger than 4 GiB")
        struct.pack_into("<H", changed, place + 34, 0)
        struct.pack_into("<I", changed, place + 42, starts[disk] + offset)
        place += 46 + sum(lengths)
    if place != len(changed):
        raise ValueError("its directory is damaged, or of the 64-bit kind")
    return bytes(changed)
