"""Find the file that holds an image that the corpus names, among whatever somebody has downloaded.

Archives come with wrong top folders, other suffixes and names such as `1.tif` that several sets share. A file is taken
if its name fits and a folder or an archive on its path says which set it is of; two that fit equally and differ are
ambiguous. Nothing is guessed.
"""

from __future__ import annotations

import filecmp
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lorgnette.images.opening import open_image

SUFFIXES = {".jpg": "jpg", ".jpeg": "jpg", ".png": "png", ".tif": "tif", ".tiff": "tif", ".bmp": "bmp"}
"""Suffixes of images, and the format that they stand for."""

WRITTEN_AS = {"jpg": "JPEG", "png": "PNG", "tif": "TIFF", "bmp": "BMP"}
SAYS_NOTHING = {"images", "image", "imgs", "img", "train", "val", "test", "data", "all"}
"""Names of folders that every set has."""


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """One source of the corpus.

    Attributes:
        folder: where the corpus expects its images, below `imagenes`.
        words: words that name it in a path.
        fetch: where a person finds its images.
    """

    folder: str
    words: frozenset[str]
    fetch: str


SETS: Mapping[str, ImageSet] = {
    "NWPU": ImageSet(
        folder="NWPU/NWPU_images",
        words=frozenset({"nwpu", "resisc45"}),
        fetch="NWPU-RESISC45.zip (427 MB) of https://huggingface.co/datasets/torchgeo/resisc45",
    ),
    "RSICD": ImageSet(
        folder="RSICD/images",
        words=frozenset({"rsicd"}),
        fetch="RSICD_images of https://github.com/201528014227051/RSICD_optimal",
    ),
    "LR": ImageSet(
        folder="LR/Train",
        words=frozenset({"lr", "rsvqalr"}),
        fetch="Images_LR.zip of https://zenodo.org/records/6344334",
    ),
    "DOTA": ImageSet(
        folder="DOTA/images",
        words=frozenset({"dota"}),
        fetch="the images of DOTA-v1.0, train and val, of https://captain-whu.github.io/DOTA/dataset.html",
    ),
    "UAV": ImageSet(
        folder="UAV/Train",
        words=frozenset({"uav"}),
        fetch="the images from its authors, they are not public",
    ),
    "UCM": ImageSet(
        folder="UCM",
        words=frozenset({"ucm", "ucmerced"}),
        fetch="UCMerced_LandUse.zip of http://weegee.vision.ucmerced.edu/datasets/landuse.html",
    ),
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that may be an image of the corpus.

    Attributes:
        label: its path as a person would say it, archives included: `downloads/Images_LR.zip/Images_LR/1.tif`.
        ours: whether it was unpacked by us, so that it may be moved rather than copied.
    """

    file: Path
    label: PurePosixPath
    ours: bool


def image_files(folder: Path, label: PurePosixPath, ours: bool) -> Iterator[Candidate]:
    """Yield the image files of a folder and its folders, sorted; links are not followed."""
    for file in regular_files(folder):
        if file.suffix.lower() in SUFFIXES:
            yield Candidate(file, label / file.relative_to(folder).as_posix(), ours)


def regular_files(folder: Path) -> list[Path]:
    """List the files of a folder and its folders, sorted, without links and hidden ones."""
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__MACOSX"]
        paths = (Path(parent, name) for name in files if not name.startswith("."))
        found += [path for path in paths if path.is_file() and not path.is_symlink()]
    return sorted(found)


def match(
    wanted: Iterable[str], candidates: Iterable[Candidate]
) -> tuple[dict[str, Candidate], dict[str, tuple[Candidate, Candidate]]]:
    """Assign a candidate to each image name it can be found for; return those with two that differ apart.

    Among candidates with the same name (whatever the suffix), the one with most folders in common wins, then the one
    whose format is the one that is wanted, then a TIFF.
    """
    by_stem: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        by_stem[candidate.label.stem.lower()].append(candidate)
    found, ambiguous = {}, {}
    for name in wanted:
        path = PurePosixPath(name)
        ranks = [(_rank(path, candidate.label), candidate) for candidate in by_stem[path.stem.lower()]]
        fitting = [(rank, candidate) for rank, candidate in ranks if rank is not None]
        best = max((rank for rank, _ in fitting), default=None)
        equal = [candidate for rank, candidate in fitting if rank == best]
        different = [other for other in equal[1:] if not filecmp.cmp(equal[0].file, other.file, shallow=False)]
        if different:
            ambiguous[name] = (equal[0], different[0])
        elif equal:
            found[name] = equal[0]
    return found, ambiguous


def _rank(wanted: PurePosixPath, label: PurePosixPath) -> tuple[int, int] | None:
    """Say how well a path fits: folders in common, format. None if nothing says that it is of this set."""
    folders = [part.lower() for part in label.parts[:-1]]
    common = _common_end([part.lower() for part in wanted.parts[:-1]], folders)
    named = _set_named(folders)
    telling = [part for part in folders[len(folders) - common :] if part not in SAYS_NOTHING]
    if named != wanted.parts[0] and (named is not None or not telling):
        return None
    kind, target = SUFFIXES[label.suffix.lower()], SUFFIXES[wanted.suffix.lower()]
    return common, 2 if kind == target else 1 if kind == "tif" else 0


def _common_end(first: Sequence[str], second: Sequence[str]) -> int:
    number = 0
    while number < min(len(first), len(second)) and first[-1 - number] == second[-1 - number]:
        number += 1
    return number


def _set_named(folders: Sequence[str]) -> str | None:
    """Return which set the nearest telling folder names; a folder that names several says nothing."""
    for folder in reversed(folders):
        words = set(re.findall("[a-z0-9]+", folder))
        named = [name for name, one in SETS.items() if words & one.words]
        if len(named) == 1:
            return named[0]
    return None


def place(candidate: Candidate, target: Path) -> str:
    """Bring an image to its place, in the format of the target's suffix; return what it was converted from, or "".

    It is decoded first: what cannot be decoded is not placed. JPEGs are written at quality 95 without chroma
    subsampling.

    Raises:
        DataError: if it cannot be decoded.
    """
    picture = open_image(candidate.file)
    target.parent.mkdir(parents=True, exist_ok=True)
    kind, wanted = SUFFIXES[candidate.file.suffix.lower()], SUFFIXES[target.suffix.lower()]
    if kind == wanted and candidate.ours:
        os.replace(candidate.file, target)
        return ""
    unfinished = target.with_name(f".{target.name}.unfinished")
    try:
        if kind == wanted:
            shutil.copyfile(candidate.file, unfinished)
        else:
            picture.save(
                unfinished, WRITTEN_AS[wanted], **({"quality": 95, "subsampling": 0} if wanted == "jpg" else {})
            )
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)
    return "" if kind == wanted else kind
