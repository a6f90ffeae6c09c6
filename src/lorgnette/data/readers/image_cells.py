"""What may stand in an image cell of a data file: a path, several, bytes, base64 or nothing."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

from lorgnette.data.readers.image_lookup import CocoFolder, FoundImage, ImageFolder
from lorgnette.errors import DataError, RowError
from lorgnette.images.opening import keep_image

SUFFIX = re.compile(r"\.(jpe?g|png|webp|gif|bmp|tiff?)$", re.IGNORECASE)
ENCODED = re.compile(r"(/9j/|iVBORw0KGgo|R0lGOD|UklGR|Qk|SUkq|TU0AK)[A-Za-z0-9+/\s]+=*\s*$")
"""Base64 of the first bytes of JPEG, PNG, GIF, WebP, BMP and TIFF."""
SHORTEST_ENCODED = 256
"""Characters. A file name has 255 at most."""
KIND = "image cell"
IMAGE_KEYS = ("image", "images")


def kind_of_cell(cell: Any) -> str:
    """Say in a few words what an image cell holds."""
    if is_nothing(cell):
        return "none"
    if isinstance(cell, str):
        return _kind_of_text(cell)
    if isinstance(cell, Mapping):
        return "bytes" if cell.get("bytes") is not None else "path in an object"
    if isinstance(cell, list):
        return "list of " + (" and ".join(sorted({kind_of_cell(each) for each in cell})) or "none")
    return type(cell).__name__


def _kind_of_text(cell: str) -> str:
    if cell.startswith("data:"):
        return "data URL"
    if is_url(cell):
        return "web address"
    if _is_encoded(cell):
        return "base64"
    return "path" if len(split_paths(cell)) == 1 else "paths with commas"


def cell_of(row: Mapping[str, Any], key: str | None, where: str) -> Any:
    """Return what stands in the image cell of a row, None for no image.

    Raises:
        RowError: if the row has two that differ, and none is chosen.
    """
    if key is not None:
        return row.get(key)
    cells = [row[name] for name in IMAGE_KEYS if not is_nothing(row.get(name))]
    if len(cells) > 1 and cells[0] != cells[1]:
        reason = "`image` and `images` differ. Next: choose one, options: {image: images}."
        raise RowError("two image cells", where, reason)
    return cells[0] if cells else None


def is_nothing(cell: Any) -> bool:
    """Tell whether a cell says that there is no image."""
    return cell is None or cell == [] or (isinstance(cell, str) and not cell.strip())


def is_url(text: str) -> bool:
    """Tell whether a text is a web address, which readers never fetch."""
    return text.lower().startswith(("http://", "https://", "ftp://", "s3://", "gs://", "file://"))


def split_paths(text: str) -> list[str]:
    """Part a text at its commas where every part is named like an image; else it is one path with commas in it."""
    parts = [part.strip() for part in text.split(",")]
    return parts if len(parts) > 1 and all(SUFFIX.search(part) for part in parts) else [text]


def images_of(cell: Any, folder: ImageFolder | CocoFolder, where: str) -> list[FoundImage]:
    """Return the images of a cell. Bytes go to the image cache; a web address is not fetched.

    Raises:
        RowError: if the cell holds anything else, or a path that cannot be used.
        DataError: if the image cache cannot be written.
    """
    if is_nothing(cell):
        return []
    if isinstance(cell, list):
        return [_one(each, folder, where) for each in cell]
    if isinstance(cell, str) and not cell.startswith("data:") and not _is_encoded(cell):
        return [_one(path, folder, where) for path in split_paths(cell)]
    return [_one(cell, folder, where)]


def _one(cell: Any, folder: ImageFolder | CocoFolder, where: str) -> FoundImage:
    if isinstance(cell, Mapping):
        cell = cell.get("path") if cell.get("bytes") is None else _bytes(cell["bytes"], where)
    if isinstance(cell, bytes):
        if not cell:
            raise RowError("empty image", where, "an image of no bytes.")
        return FoundImage(_kept(cell))
    if not isinstance(cell, str) or not cell.strip():
        allowed = "Allowed: a path, bytes, a data: URL, a list of them, or null for none."
        raise RowError(KIND, where, f"`image` is {cell!r:.80}. {allowed}")
    if cell.startswith("data:"):
        head, comma, content = cell.partition(",")
        if not comma or not head.endswith(";base64"):
            raise RowError(KIND, where, f"a data: URL without base64. Got: {cell!r:.60}.")
        return FoundImage(_kept(_decoded(content, where)))
    if is_url(cell):
        reason = f"the image is a web address, which is not fetched. Got: {cell!r:.200}."
        raise RowError("image is a web address", where, f"{reason} Next: download it and give its path.")
    if _is_encoded(cell):
        return FoundImage(_kept(_decoded(cell, where)))
    return folder.find(cell.strip(), where)


def _bytes(value: Any, where: str) -> bytes:
    """Return the `bytes` of an object: bytes as they are in Parquet, base64 as they are in JSON."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return _decoded(value, where)
    raise RowError(KIND, where, f"the `bytes` of the image are {value!r:.80}. Allowed: bytes, or base64 in JSON.")


def _decoded(text: str, where: str) -> bytes:
    try:
        decoded = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise RowError(KIND, where, f"the image is no valid base64 ({error}).") from error
    if not decoded:
        raise RowError("empty image", where, "an image of no bytes.")
    return decoded


def _is_encoded(text: str) -> bool:
    return len(text) >= SHORTEST_ENCODED and ENCODED.match(text) is not None


def _kept(data: bytes) -> str:
    try:
        return keep_image(data)
    except OSError as error:
        raise DataError(
            f"the image cache cannot be written ({error}). Next: make room, or point XDG_CACHE_HOME to another folder."
        ) from error
