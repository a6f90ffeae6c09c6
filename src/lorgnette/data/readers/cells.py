"""Single values of a data file, checked: texts, names of images, images inside the file."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from lorgnette.data.images import keep_image
from lorgnette.data.sample import IMAGE_TAG
from lorgnette.errors import DataError, RowError


def is_blank(value: Any) -> bool:
    """Say whether a cell holds nothing: None, NaN, or a text of blanks."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def required_text(row: Mapping[str, Any], column: str, where: str) -> str:
    """Return the text of a column that every row must have, as it stands.

    Numbers are taken as text, since a table may store `2` for an answer.

    Raises:
        RowError: if the cell is blank or no text, or the text cannot stand in a prompt.
    """
    value = row.get(column)
    if is_blank(value):
        raise RowError(f"no {column}", where, f"`{column}` is {_shown(value)}. Allowed: a text.")
    return checked_text(value, column, where)


def optional_text(row: Mapping[str, Any], column: str, where: str) -> str:
    """Return the text of a column, an empty one where the cell is blank.

    Raises:
        RowError: as `required_text`.
    """
    value = row.get(column)
    return "" if is_blank(value) else checked_text(value, column, where)


def checked_text(value: Any, name: str, where: str) -> str:
    """Return a text, refusing what cannot stand in a prompt.

    Raises:
        RowError: if it is no text, holds half of a surrogate pair (JSON can write one; no tokenizer reads it), or holds
            the image tag: readers set the tags themselves, so one in the text would ask for an image that is not there.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RowError(f"{name} is no text", where, f"`{name}` is {_shown(value)}. Allowed: a text.")
    text = str(value)
    if not text.isascii() and text.encode("utf-8", "ignore").decode() != text:
        raise RowError("broken text", where, f"`{name}` holds half of a surrogate pair, which is no character.")
    if IMAGE_TAG in text:
        raise RowError(
            "image tag in the text",
            where,
            f"`{name}` holds {IMAGE_TAG}, which this format sets itself. Next: remove it from the text.",
        )
    return text


def whole_number(row: Mapping[str, Any], column: str, where: str) -> int:
    """Return a whole number, also one that a table stores as text or as a float.

    Raises:
        RowError: if the cell is anything else.
    """
    value = row.get(column)
    try:
        if isinstance(value, int | float | str) and not isinstance(value, bool) and float(value) == int(float(value)):
            return value if isinstance(value, int) else int(float(value))
    except (ValueError, OverflowError):
        pass
    raise RowError(f"no {column}", where, f"`{column}` is {_shown(value)}. Allowed: a whole number.")


def image_path(folder: Path, name: str, where: str) -> str:
    """Join the name of an image from a data file to its folder, refusing to leave it, by links too.

    Raises:
        RowError: if the path leads out of the folder, or no file can have that name.
    """
    try:
        path = os.path.join(_real(str(folder)), name)
        inside = os.path.realpath(path).startswith(os.path.join(_real(str(folder)), ""))
    except (OSError, ValueError) as error:
        raise RowError("image path", where, f"no usable image path ({error}). Got: {name!r:.200}.") from error
    if not inside:
        raise RowError("image path", where, f"an image path leaves the images folder. Got: {name!r:.200}.")
    return str(folder / name)


@lru_cache(maxsize=64)
def _real(folder: str) -> str:
    return os.path.realpath(folder)


def image_cell(value: Any, folder: Path, where: str) -> str:
    """Return the path of the image in a cell: bytes, a struct of bytes and path, or a path under `folder`.

    Bytes are kept in the cache of images and forgotten here.

    Raises:
        RowError: if the cell holds no image.
        DataError: if the cache cannot be written.
    """
    inner = value.get("bytes") or value.get("path") if isinstance(value, dict) else value
    if isinstance(inner, bytes) and inner:
        return kept_image(inner)
    if isinstance(inner, str) and inner.strip():
        return image_path(folder, inner, where)
    raise RowError("no image", where, f"`image` is {_shown(value)}. Allowed: the bytes of an image, or a path.")


def kept_image(data: bytes) -> str:
    """Keep the bytes of an image in the cache and return its path.

    Raises:
        DataError: if the cache cannot be written.
    """
    try:
        return keep_image(data)
    except OSError as error:
        raise DataError(
            f"the cache of images cannot be written ({error}). Next: make room, or point XDG_CACHE_HOME to a folder "
            "that has some."
        ) from error


def _shown(value: Any) -> str:
    return "missing" if value is None else f"{value!r:.80}"
