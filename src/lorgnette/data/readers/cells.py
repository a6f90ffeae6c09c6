"""Single values of a row, checked: texts, numbers, the one image. Errors are of the row."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lorgnette.data.readers.image_cells import images_of
from lorgnette.data.readers.image_lookup import CocoFolder, FoundImage, ImageFolder
from lorgnette.data.sample import IMAGE_TAG
from lorgnette.errors import RowError


def is_missing(value: Any) -> bool:
    """Tell whether a table has nothing in a cell: None, or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def is_blank(value: Any) -> bool:
    """Tell whether a cell holds nothing, or a text of blanks."""
    return not value.strip() if isinstance(value, str) else is_missing(value)


def holds_half_pair(text: str) -> bool:
    """Tell whether a text holds half of a surrogate pair, which JSON can write and no tokenizer reads."""
    return not text.isascii() and text.encode("utf-8", "ignore").decode() != text


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
        RowError: if it is no text, holds half of a surrogate pair, or the image tag: readers set the tags themselves,
            so one in the text would ask for an image that is not there.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RowError(f"{name} is no text", where, f"`{name}` is {_shown(value)}. Allowed: a text.")
    text = str(value)
    if holds_half_pair(text):
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


def one_image(cell: Any, folder: ImageFolder | CocoFolder, where: str) -> FoundImage:
    """Return the one image of a cell; its bytes, if it has them, go to the cache of images.

    Raises:
        RowError: if the cell holds none, or several, or a path that cannot be used.
        DataError: if the cache cannot be written.
    """
    found = images_of(None if is_blank(cell) else cell, folder, where)
    if len(found) != 1:
        reason = f"the cell of the image is {_shown(cell)}. Allowed: one image."
        raise RowError("several images" if found else "no image", where, reason)
    return found[0]


def _shown(value: Any) -> str:
    return "missing" if value is None else f"{value!r:.80}"
