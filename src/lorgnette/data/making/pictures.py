"""The pictures that questions are made about: found, told apart by content, made small enough to send."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from lorgnette.data.readers import read_samples
from lorgnette.errors import DataError
from lorgnette.images.opening import open_image, opened
from lorgnette.images.thumbnails import data_url
from lorgnette.run import file_hash

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
TOKEN_PIXELS = 28
"""A token an image patch of 28 x 28 pixels, as Qwen2-VL counts (arXiv:2409.12191, 2.1); other models differ by a factor
of two either way. Only estimates depend on it."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture; `name` is its path below the images folder, `tokens` an estimate."""

    path: Path
    name: str
    sha256: str
    tokens: int


@dataclass
class Pictures:
    """What was found in a folder.

    Attributes:
        unique: the first picture of each content, sorted by name.
        copies: name -> name of the picture with the same content.
        held_out: names of pictures that are also in the held-out data.
        broken: name -> why it cannot be used.
    """

    root: Path
    unique: list[Picture] = field(default_factory=list)
    copies: dict[str, str] = field(default_factory=dict)
    held_out: list[str] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)


def find_pictures(images: Path, side: int, held_out: Iterable[Path] = ()) -> Pictures:
    """Find the pictures of a folder and its folders, or a single one; links are not followed.

    Raises:
        DataError: if there are none, or held-out data cannot be read.
    """
    found = Pictures(images if images.is_dir() else images.parent)
    forbidden = {file_hash(file) for source in held_out for file in _held_out_files(source, found.root)}
    files = _files(images)
    if not files:
        raise DataError(f"{images}: no pictures. Allowed: a folder with {', '.join(sorted(SUFFIXES))}, or one file.")
    seen: dict[str, str] = {}
    for file in files:
        name = file.relative_to(found.root).as_posix()
        if not name.isprintable():
            found.broken[ascii(name)] = "a file name that cannot be written"
            continue
        sha256 = file_hash(file)
        if sha256 in seen:
            found.copies[name] = seen[sha256]
        elif sha256 in forbidden:
            found.held_out.append(name)
        else:
            try:
                found.unique.append(Picture(file, name, sha256, _tokens(file, side)))
                seen[sha256] = name
            except DataError as error:
                found.broken[name] = str(error)
    return found


def sent_url(path: Path, side: int) -> str:
    """Encode a picture as JPEG, upright, no side longer than `side`.

    Raises:
        DataError: if it cannot be decoded.
    """
    picture = open_image(path)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return data_url(picture, "JPEG", quality=90)


def _files(images: Path) -> list[Path]:
    among = [images] if images.is_file() else sorted(images.rglob("*"))
    return [file for file in among if file.suffix.lower() in SUFFIXES and file.is_file() and not file.is_symlink()]


def _held_out_files(source: Path, root: Path) -> list[Path]:
    """List the pictures of a folder, or of a LLaVA file: beside it, else below the folder that is asked about."""
    if source.is_dir():
        return _files(source)
    missing = []
    for folder in (source.parent, root):
        files = set()
        for sample in read_samples(str(source), "llava", images=str(folder)):
            if isinstance(sample, DataError):
                raise sample  # a leak check that leaves rows out is none
            files |= {Path(image) for image in sample.images}
        missing = [file for file in sorted(files) if not file.is_file()]
        if not missing:
            return sorted(files)
    raise DataError(
        f"{source}: {len(missing)} of its images are neither beside it nor below {root}, such as {missing[0]}. Next: "
        "give the folder of its images instead."
    )


def _tokens(file: Path, side: int) -> int:
    """Estimate what a picture takes from its header; it is decoded only when it is sent."""
    with opened(file) as image:
        width, height = image.size
    scale = min(1.0, side / max(width, height))
    return math.ceil(width * scale / TOKEN_PIXELS) * math.ceil(height * scale / TOKEN_PIXELS)
