"""Archives: parts, nesting and odd shapes come out whole; everything dangerous is refused by its entry's name."""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import lzma
import random
import shutil
import stat
import struct
import subprocess
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from archive_bytes import cut, tar_bytes, tree, zip_bytes
from lorgnette.data.archives.unpacking import Bounds, unpack
from lorgnette.data.archives.volumes import Archive, find_archives, is_archive_name
from lorgnette.errors import DataError

FILES = {"top/a.txt": b"first " * 700, "top/b/c.txt": random.Random(0).randbytes(90_000), "d.txt": b""}


def one(folder: Path) -> Archive:
    """The only archive of a folder."""
    archives, errors = find_archives(folder.iterdir())
    assert not errors, errors
    assert len(archives) == 1
    return archives[0]


def written(folder: Path, parts: Mapping[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in parts.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.zip", zip_bytes(FILES)),
        ("X.ZIP", zip_bytes(FILES, zipfile.ZIP_STORED)),
        ("x.tar", tar_bytes(FILES)),
        ("x.tar.gz", gzip.compress(tar_bytes(FILES))),
        ("x.tgz", gzip.compress(tar_bytes(FILES))),
        ("x.tar.bz2", bz2.compress(tar_bytes(FILES))),
        ("x.tar.xz", lzma.compress(tar_bytes(FILES))),
        ("x.tar", gzip.compress(tar_bytes(FILES))),
        ("x.zip", tar_bytes(FILES)),
    ],
)
def test_every_kind_unpacks_to_the_same_files(tmp_path: Path, name: str, content: bytes) -> None:
    found = unpack(one(written(tmp_path / "in", {name: content})), tmp_path / "out")
    assert tree(tmp_path / "out") == FILES
    assert (found.files, found.entries, found.archives) == (3, 3, 1)


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (zip_bytes(FILES), ["x.zip.001", "x.zip.002", "x.zip.003"]),
        (zip_bytes(FILES), ["x.zip.0", "x.zip.1"]),
        (gzip.compress(tar_bytes(FILES)), ["x.tar.gz.partaa", "x.tar.gz.partab", "x.tar.gz.partac"]),
        (gzip.compress(tar_bytes(FILES)), ["x.tar.gz.aa", "x.tar.gz.ab"]),
        (tar_bytes(FILES), [f"x.tar.part{number}" for number in range(1, 13)]),
    ],
)
def test_parts_are_read_as_one(tmp_path: Path, content: bytes, names: list[str]) -> None:
    archive = one(written(tmp_path / "in", cut(content, names)))
    assert [volume.name for volume in archive.volumes] == names
    unpack(archive, tmp_path / "out")
    assert tree(tmp_path / "out") == FILES


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_a_missing_part_is_said(tmp_path: Path, gone: int) -> None:
    names = ["x.tar.001", "x.tar.002", "x.tar.003"]
    folder = written(tmp_path / "in", cut(tar_bytes(FILES), names))
    (folder / names[gone]).unlink()
    archives, errors = find_archives(folder.iterdir())
    if gone < 2:
        assert not archives
        assert f"number {gone + 1} is missing" in str(errors[0])
    else:  # only its content can tell
        with pytest.raises(DataError, match=r"cannot be read after entry 'top/b/c\.txt'"):
            unpack(archives[0], tmp_path / "out")


def split_like_zip(content: bytes, cuts: list[int]) -> list[bytes]:
    """Split a zip as zip does: the directory counts from the start of the part that an entry starts in."""
    end = content.rfind(b"PK\x05\x06")
    size, start = struct.unpack_from("<II", content, end + 12)
    changed = bytearray(content)
    bounds = [0, *cuts, len(content)]

    def part_of(offset: int) -> int:
        return max(number for number, begin in enumerate(bounds[:-1]) if begin <= offset)

    place = start
    while place < start + size:
        lengths = struct.unpack_from("<HHH", changed, place + 28)
        (offset,) = struct.unpack_from("<I", changed, place + 42)
        struct.pack_into("<H", changed, place + 34, part_of(offset))
        struct.pack_into("<I", changed, place + 42, offset - bounds[part_of(offset)])
        place += 46 + sum(lengths)
    last = len(bounds) - 2
    struct.pack_into("<HH", changed, end + 4, last, part_of(start))
    struct.pack_into("<I", changed, end + 16, start - bounds[part_of(start)])
    return [bytes(changed[a:b]) for a, b in itertools.pairwise(bounds)]


@pytest.mark.parametrize("inside_directory", [False, True])
def test_a_zip_split_by_zip_is_read_without_joining(tmp_path: Path, inside_directory: bool) -> None:
    content = zip_bytes(FILES, zipfile.ZIP_STORED)
    cuts = [2_000, len(content) - (60 if inside_directory else 400)]
    parts = dict(zip(["x.z01", "x.z02", "x.zip"], split_like_zip(content, cuts), strict=True))
    archive = one(written(tmp_path / "in", parts))
    assert [volume.name for volume in archive.volumes] == ["x.z01", "x.z02", "x.zip"]
    unpack(archive, tmp_path / "out")
    assert tree(tmp_path / "out") == FILES
    (tmp_path / "in" / "x.zip").unlink()
    archives, errors = find_archives((tmp_path / "in").iterdir())
    assert not archives
    assert "last part of the archive is missing" in str(errors[0])


@pytest.mark.skipif(shutil.which("zip") is None, reason="there is no zip")
def test_what_the_zip_command_splits_is_read(tmp_path: Path) -> None:
    content = {"a.bin": random.Random(1).randbytes(150_000), "b.bin": random.Random(2).randbytes(40_000)}
    written(tmp_path / "in", content)
    subprocess.run(["zip", "-q", "-s", "64k", "../x.zip", *content], cwd=tmp_path / "in", check=True)
    archive = one(written(tmp_path / "parts", {file.name: file.read_bytes() for file in tmp_path.glob("x.z*")}))
    assert len(archive.volumes) == 3
    unpack(archive, tmp_path / "out")
    assert tree(tmp_path / "out") == content


def test_a_split_zip_that_is_damaged_says_how_to_join_it(tmp_path: Path) -> None:
    folder = written(tmp_path / "in", {"x.z01": b"PK\x03\x04" * 9, "x.zip": b"no directory"})
    with pytest.raises(DataError, match=r"Next: zip -s 0 x\.zip --out whole\.zip"):
        unpack(one(folder), tmp_path / "out")


def test_archives_in_archives_are_unpacked_and_count_together(tmp_path: Path) -> None:
    inner = gzip.compress(tar_bytes({"deep.txt": b"deep"}))
    parts = cut(inner, ["in.tar.gz.001", "in.tar.gz.002"])
    folder = written(tmp_path / "in", {"x.zip": zip_bytes({**parts, "flat.txt": b"flat"})})
    found = unpack(one(folder), tmp_path / "out")
    assert tree(tmp_path / "out") == {"flat.txt": b"flat", "in.tar.gz.unpacked/deep.txt": b"deep"}
    assert (found.files, found.archives) == (2, 2)
    content = zip_bytes({"x.txt": b"x"})
    for _ in range(4):
        content = zip_bytes({"y.zip": content})
    with pytest.raises(DataError, match="archives in archives, more than 3 deep"):
        unpack(one(written(tmp_path / "deep", {"x.zip": content})), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_only_what_is_wanted_is_written(tmp_path: Path) -> None:
    folder = written(tmp_path / "in", {"x.zip": zip_bytes({"a.jpg": b"1", "a.txt": b"2", "b.jpg/": b""})})
    found = unpack(one(folder), tmp_path / "out", wanted=lambda name: name.endswith(".jpg"))
    assert tree(tmp_path / "out") == {"a.jpg": b"1"}
    assert (found.files, found.left) == (1, 1)


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info


def zip_with(name: str, mode: int = 0, content: bytes = b"x") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        info = zipfile.ZipInfo(name)
        info.filename = info.orig_filename = name
        info.external_attr = mode << 16
        file.writestr(info, content)
    return buffer.getvalue()


def encrypted() -> bytes:
    content = bytearray(zip_bytes({"bad": b"secret"}))
    directory = content.find(b"PK\x01\x02")
    content[6] |= 1
    content[directory + 8] |= 1
    return bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("x.zip", zip_with("../bad"), "leaves the folder"),
        ("x.zip", zip_with("a/../../bad"), "leaves the folder"),
        ("x.zip", zip_with("..\\..\\bad"), "leaves the folder"),
        ("x.zip", zip_with("/bad"), "absolute"),
        ("x.zip", zip_with("C:\\bad"), "absolute"),
        ("x.zip", zip_with("bad", stat.S_IFLNK | 0o777, b"/etc/passwd"), "a link"),
        ("x.zip", zip_with("bad", stat.S_IFIFO), "a device, a pipe"),
        ("x.zip", encrypted(), "encrypted"),
        ("x.zip", zip_with("bad" * 200), "a name that the system refuses"),
        ("x.tar", tar_bytes({"../bad": b"x"}), "leaves the folder"),
        ("x.tar", tar_bytes({"/tmp/bad": b"x"}), "absolute"),
        ("x.tar", tar_bytes({}, special("bad", tarfile.SYMTYPE, "/etc")), "a link"),
        ("x.tar", tar_bytes({"a": b"x"}, special("bad", tarfile.LNKTYPE, "a")), "a link"),
        ("x.tar", tar_bytes({}, special("bad", tarfile.CHRTYPE)), "a device"),
        ("x.tar", tar_bytes({}, special("bad", tarfile.FIFOTYPE)), "a device"),
        ("x.tar", tar_bytes({"bad": b"x", "./bad": b"y"}), "another entry has already"),
        ("x.tar", tar_bytes({"bad": b"x", "bad/in": b"y"}), "another entry has already"),
    ],
)
def test_dangerous_entries_are_refused_by_name_and_nothing_stays(
    tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    folder = written(tmp_path / "in", {name: content})
    with pytest.raises(DataError, match=says) as error:
        unpack(one(folder), tmp_path / "out" / "x")
    assert "bad" in str(error.value)
    assert name in str(error.value)
    assert not list((tmp_path / "out").iterdir())
    assert not (tmp_path / "bad").exists()


def test_bombs_are_refused(tmp_path: Path) -> None:
    zeros = zip_bytes({"fine.txt": b"x", "bomb.bin": bytes(3_000_000)})
    small = Bounds(free_bytes=100_000)
    for number, content in enumerate((zeros, gzip.compress(tar_bytes({"bomb.bin": bytes(3_000_000)})))):
        folder = written(tmp_path / str(number), {"x.zip" if number == 0 else "x.tgz": content})
        with pytest.raises(DataError, match=r"entry 'bomb.bin': a bomb"):
            unpack(one(folder), tmp_path / "out", bounds=small)
    nested = written(tmp_path / "nested", {"x.zip": zip_bytes({"in.zip": zeros})})
    with pytest.raises(DataError, match=r"x.zip: in.zip: entry 'bomb.bin': a bomb"):
        unpack(one(nested), tmp_path / "out", bounds=small)
    # entries that nobody wants have to be read over in a tar: they count as well
    with pytest.raises(DataError, match="a bomb"):
        unpack(one(tmp_path / "1"), tmp_path / "out", wanted=lambda name: False, bounds=small)
    unpack(one(tmp_path / "0"), tmp_path / "out", wanted=lambda name: name == "fine.txt", bounds=small)
    assert tree(tmp_path / "out") == {"fine.txt": b"x"}
    folder = written(tmp_path / "total", {"x.zip": zip_bytes(FILES)})
    with pytest.raises(DataError, match=r"entry 'top/b/c.txt': a bomb"):
        unpack(one(folder), tmp_path / "none", bounds=Bounds(total_bytes=50_000))


def test_the_number_of_entries_is_bounded(tmp_path: Path) -> None:
    many = {f"{number}.txt": b"" for number in range(30)}
    for name, content in (("x.zip", zip_bytes(many)), ("x.tar", tar_bytes(many))):
        folder = written(tmp_path / name, {name: content})
        with pytest.raises(DataError, match="more than 20 entries"):
            unpack(one(folder), tmp_path / "out", bounds=Bounds(entries=20))


def test_a_header_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("pax")
    info.type = tarfile.XHDTYPE
    info.size = 5 << 20
    content = gzip.compress(info.tobuf(tarfile.USTAR_FORMAT) + bytes(info.size + 2048))
    folder = written(tmp_path / "in", {"x.tgz": content})
    with pytest.raises(DataError, match="a header of more than"):
        unpack(one(folder), tmp_path / "out")


def refusal(archive: Archive, folder: Path) -> str:
    try:
        unpack(archive, folder)
    except DataError as error:
        return str(error)
    return ""


def test_damaged_archives_never_raise_anything_else(tmp_path: Path) -> None:
    chance = random.Random(3)
    originals = [
        ("x.zip", zip_bytes(FILES)),
        ("x.tar", tar_bytes(FILES, special("dir", tarfile.DIRTYPE))),
        ("x.tgz", gzip.compress(tar_bytes({"a": b"a" * 2000}))),
    ]
    kinds = {"whole": 0, "refused": 0}
    for number in range(300):
        name, content = originals[number % 3]
        broken = bytearray(content)
        for _ in range(chance.randrange(1, 6)):
            # the directory of a zip and the headers of a tar are where damage is interesting
            span = len(broken) if chance.random() < 0.3 else 1200
            broken[-chance.randrange(1, span) if name == "x.zip" else chance.randrange(min(span, len(broken)))] = (
                chance.randrange(256)
            )
        if chance.random() < 0.3:
            broken = broken[: chance.randrange(len(broken))]
        folder = written(tmp_path / str(number), {name: bytes(broken)})
        said = refusal(one(folder), folder / "out")
        kinds["refused" if said else "whole"] += 1
        assert name in said or not said
        assert (folder / "out").exists() == (not said)
    assert min(kinds.values()) > 20, kinds


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.zip", True),
        ("a.zip.001", True),
        ("a.tar.gz.partab", True),
        ("a.z01", True),
        ("a.tbz2", True),
        ("a.jpg", False),
        ("a.rar", False),
        ("zip", False),
        ("a.zip.txt2", False),
        ("a.json.gz", False),
    ],
)
def test_names_of_archives(name: str, found: bool) -> None:
    assert is_archive_name(name) == found


def test_a_joined_archive_is_read_once_and_mixed_names_are_refused(tmp_path: Path) -> None:
    parts = cut(zip_bytes(FILES), ["x.zip.001", "x.zip.002"])
    folder = written(tmp_path / "in", {**parts, "x.zip": zip_bytes(FILES)})
    assert [volume.name for volume in one(folder).volumes] == ["x.zip"]
    mixed = written(tmp_path / "mixed", {"x.tar.001": b"", "x.tar.ab": b""})
    assert "named in several ways" in str(find_archives(mixed.iterdir())[1][0])
