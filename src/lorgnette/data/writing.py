"""Samples back to a LLaVA file: the other direction of `readers/llava.py`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any

from lorgnette.data.sample import Role, Sample

SPEAKERS: dict[Role, str] = {"user": "human", "assistant": "gpt", "system": "system"}


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


def llava_row(sample: Sample, root: Path) -> dict[str, Any]:
    """Return a sample as a row of a LLaVA file; text-only samples have no `image`, several images are a list."""
    images = [relative_image(image, root) for image in sample.images]
    image = {} if not images else {"image": images[0] if len(images) == 1 else images}
    turns = [{"from": SPEAKERS[turn.role], "value": turn.text} for turn in sample.turns]
    return {"id": sample.id} | image | {"conversations": turns}


def llava_list(rows: Iterable[str]) -> str:
    """Return the text of a LLaVA file: rows, each already JSON, as one list, a row a line."""
    return "[\n" + ",\n".join(rows) + "\n]\n"


def row_json(row: Mapping[str, Any]) -> str:
    """Return a row as JSON, the same bytes everywhere."""
    return json.dumps(row, ensure_ascii=False)
