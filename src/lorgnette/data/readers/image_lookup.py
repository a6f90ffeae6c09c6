"""From the name of an image in a data file to its path: inside its folder, or by COCO's ids.

A name comes from outside. It never leads out of the images folder, by `../`, from the root or through a link, unless
the source allows it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from lorgnette.errors import DataError, RowError, nearest

COCO = "coco"
COCO_FOLDERS = ("train2017", "val2014", "train2014", "val2017")
"""Where an id is looked for, in this order. COCO 2014 and 2017 are the same pictures under the same ids."""
COCO_ID = re.compile(r"(\d{12})\.[A-Za-z]+$")


class FoundImage(NamedTuple):
    """Path of an image, and what had to be put right to find it."""

    path: str
    mended: str | None = None


class ImageFolder:
    """Images under one folder, by their names in a data file.

    Args:
        root: the folder; None where the data has none, as on the hub.
        outside: names may lead out of it.
    """

    def __init__(self, root: str | None, *, outside: bool = False) -> None:
        self.root = root
        self.outside = outside
        self._inside: dict[str, bool] = {}

    def find(self, name: str, where: str) -> FoundImage:
        """Return where an image of this name lies; whether it does is for others to find out.

        Raises:
            RowError: if the name leads out of the folder, or no file can have it.
        """
        if self.root is None:
            reason = f"the image {name!r:.200} has no folder. Next: give the source `images: FOLDER`."
            raise RowError("no images folder", where, reason)
        path = str(Path(self.root, name))
        try:
            if "\0" in name:
                raise ValueError("embedded null character")
            name.encode("utf-8")  # half of a surrogate pair is no character
            inside = self.outside or self._is_inside(path)
        except (OSError, ValueError) as error:
            reason = f"no usable image path ({error}). Got: {name!r:.200}."
            raise RowError("image path", where, reason) from error
        if not inside:
            raise RowError(
                "image path leaves its folder",
                where,
                f"an image path leaves the images folder {self.root}. Got: {name!r:.200}. Next: correct the path, or, "
                "if you trust the data, set the option outside_images: true.",
            )
        return FoundImage(path)

    def _is_inside(self, path: str) -> bool:
        if os.path.islink(path) or os.path.basename(path) == "..":
            return self._resolves_inside(path)
        # a whole set lies in few folders: each is resolved once
        folder = os.path.dirname(path)
        if folder not in self._inside:
            self._inside[folder] = self._resolves_inside(folder)
        return self._inside[folder]

    def _resolves_inside(self, path: str) -> bool:
        # not Path.resolve, which raises a RuntimeError where links go round in a circle
        root = os.path.realpath(str(self.root))
        return Path(os.path.realpath(path)).is_relative_to(root)


class CocoFolder:
    """Pictures of COCO, whichever of its names a data file uses.

    In turn: the name under the folder, the name without `coco/`, the file name alone (in the folder or in one of
    `COCO_FOLDERS`), and the 12 digits at its end in each of `COCO_FOLDERS` under its 2014 and 2017 names. What was
    found by the last two ways is counted as mended; where several folders have it the first is taken, and that is
    counted apart.

    Raises:
        DataError: if there is no such folder.
    """

    def __init__(self, root: str, *, outside: bool = False) -> None:
        if not Path(root).is_dir():
            raise DataError(
                f"images: there is no folder {root} to look COCO's pictures up in. Next: give `images: coco:FOLDER`, "
                f"the folder that holds {', '.join(COCO_FOLDERS)} or some of them."
            )
        self.folder = ImageFolder(root, outside=outside)
        self.root = root
        self._found: dict[str, FoundImage | None] = {}

    def find(self, name: str, where: str) -> FoundImage:
        """Return where the picture is.

        Raises:
            RowError: if it is nowhere, or the name leads out of the folder.
        """
        if name not in self._found:
            self.folder.find(name, where)
            self._found[name] = self._search(name, where)
        found = self._found[name]
        if found is None:
            by_id = f", nor by its id in {', '.join(COCO_FOLDERS)}" if COCO_ID.search(name) else ""
            reason = f"there is no image {name!r:.200} under {self.root}{by_id}."
            raise RowError("image missing", where, reason)
        return found

    def _search(self, name: str, where: str) -> FoundImage | None:
        base = os.path.basename(name)
        if as_given := self._existing([name, name.removeprefix("coco/")], where):
            return FoundImage(as_given[0])
        named = self._existing([base, *(f"{folder}/{base}" for folder in COCO_FOLDERS)], where)
        if named:
            return FoundImage(named[0], _mended("by its file name", len(named)))
        if digits := COCO_ID.search(base):
            number = digits[1]
            names = [f"{f}/{n}.jpg" for f in COCO_FOLDERS for n in (number, f"COCO_{f}_{number}")]
            if by_id := self._existing(names, where):
                return FoundImage(by_id[0], _mended("by its COCO id", len(by_id)))
        return None

    def _existing(self, names: list[str], where: str) -> list[str]:
        return [self.folder.find(name, where).path for name in names if os.path.isfile(os.path.join(self.root, name))]


def _mended(way: str, places: int) -> str:
    return f"image found {way}" if places == 1 else f"image found {way} in several folders, the first taken"


def require_folder(images: str | None) -> None:
    """Check that the folder in `images:` of a source is there: without it every row would lack its image.

    Raises:
        DataError: if it is not.
    """
    if images is None or images.partition(":")[0] == COCO or os.path.isdir(images):
        return
    place = Path(images)
    beside = [entry.name for entry in place.parent.iterdir() if entry.is_dir()] if os.path.isdir(place.parent) else []
    what = f"{images} is a file, no folder" if os.path.isfile(images) else f"there is no folder {images!r:.200}"
    raise DataError(
        f"images: {what}.{nearest(place.name, beside)} Next: give the folder that the names of images in the data "
        "start from."
    )


def image_folder(images: str | None, beside: str | None, *, outside: bool = False) -> ImageFolder | CocoFolder:
    """Return what `images:` of a source means: a folder, `coco` or `coco:FOLDER`.

    `coco` is `coco:coco`. A plain folder that is itself named coco is meant by `./coco`.

    Args:
        images: as the source says; None for beside the data.
        beside: folder of the data; None if it is not on disk.
        outside: names may lead out of the folder.

    Raises:
        DataError: if COCO's folder does not exist.
    """
    if images is not None and images.partition(":")[0] == COCO:
        return CocoFolder(images.partition(":")[2] or COCO, outside=outside)
    return ImageFolder(beside if images is None else images, outside=outside)
