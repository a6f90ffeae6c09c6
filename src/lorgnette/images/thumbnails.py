"""Images as data: URLs: small copies for pages, which load nothing."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from lorgnette.errors import RowError
from lorgnette.images.opening import opened, upright_rgb


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small copy of an image as a data: URL, or the reason why there is none."""

    url: str = ""
    width: int = 0
    height: int = 0
    missing: str = ""


def thumbnail(path: str | Path, side: int, most_pixels: int | None = None) -> Thumbnail:
    """Shrink an image so that no side is longer than `side` pixels; one that cannot be opened leaves a labelled gap."""
    try:
        with opened(path, most_pixels=most_pixels) as image:
            image.draft("RGB", (side, side))  # a JPEG decodes at a fraction of its size
            small = upright_rgb(image)
    except RowError as error:
        return Thumbnail(missing=f"{error.kind}: {Path(path).name}"[:200])
    small.thumbnail((side, side))
    # drawings are smaller and sharper as PNG, photographs as JPEG
    url = min(data_url(small, "PNG", optimize=True), data_url(small, "JPEG", quality=82), key=len)
    return Thumbnail(url, small.width, small.height)


def data_url(image: Image.Image, kind: str, **options: Any) -> str:
    """Encode an image as a data: URL; the options are those of Pillow's writer of this kind of file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
