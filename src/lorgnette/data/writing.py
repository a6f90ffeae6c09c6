"""Samples back to a LLaVA file: the other direction of `readers/llava.py`.

Image paths start below one folder. Where images came inside the data they lie in the cache, which may be deleted at any
time: then all images are copied beside the file, and that folder is theirs.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from lorgnette.data.sample import Role, Sample
from lorgnette.run import cache_folder

SPEAKERS: dict[Role, str] = {"user": "human", "assistant": "gpt", "system": "system"}


@dataclass
class ImageNames:
    """How the images of a written file are called.

    Attributes:
        root: the folder of those that were files before.
        copied: whether some came inside the data, so that all are to be copied.
        named: name -> image, of the images that were asked for.
    """

    root: Path
    copied: bool
    named: dict[str, str] = field(default_factory=dict)

    def name(self, image: str) -> str:
        """Return the path of an image below the images folder: the same wherever data and cache lie."""
        name = relative_image(image, _kept_images() if _came_inside(image) else self.root)
        self.named[name] = image
        return name


def image_names(given: str | None, data: str, images: Iterable[str]) -> ImageNames:
    """Return how the images of a file will be called; `images` are all of them, the others as `images_root`."""
    paths = set(images)
    outside = {path for path in paths if not _came_inside(path)}
    return ImageNames(images_root(given, data, outside), copied=len(outside) < len(paths))


def copy_images(named: Mapping[str, str], folder: Path) -> None:
    """Copy images to a folder, by their names in the file."""
    for name, image in named.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(image, target)


def _kept_images() -> Path:
    return cache_folder("images").absolute()


def _came_inside(image: str) -> bool:
    return PurePath(os.path.abspath(image)).is_relative_to(_kept_images())


def images_root(given: str | None, data: str, images: Iterable[str]) -> Path:
    """Return the folder that the images of a written file are relative to.

    The images folder where one was given, the folder of the data where the images lie beside it, else the deepest
    folder that holds them all.
    """
    names = sorted({os.path.abspath(image) for image in images})
    beside = Path(data).absolute().parent
    for folder in [Path(given).absolute()] if given is not None else [beside]:
        if all(PurePath(name).is_relative_to(folder) for name in names):
            return folder
    return Path(os.path.commonpath([os.path.dirname(name) for name in names]))


def relative_image(image: str, root: Path) -> str:
    """Return an image's path below the images folder, with forward slashes."""
    return Path(os.path.relpath(os.path.abspath(image), root)).as_posix()


def llava_row(sample: Sample, names: ImageNames) -> dict[str, Any]:
    """Return a sample as a row of a LLaVA file; text-only samples have no `image`, several images are a list."""
    images = [names.name(image) for image in sample.images]
    image = {} if not images else {"image": images[0] if len(images) == 1 else images}
    turns = [{"from": SPEAKERS[turn.role], "value": turn.text} for turn in sample.turns]
    return {"id": sample.id} | image | {"conversations": turns}


def llava_list(rows: Iterable[str]) -> str:
    """Return the text of a LLaVA file: rows, each already JSON, as one list, a row a line."""
    return "[\n" + ",\n".join(rows) + "\n]\n"


def row_json(row: Mapping[str, Any]) -> str:
    """Return a row as JSON, the same bytes everywhere."""
    return json.dumps(row, ensure_ascii=False)
