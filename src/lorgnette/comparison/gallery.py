"""Choose the answers that the page shows, and shrink their pictures into it."""

from __future__ import annotations

import base64
import hashlib
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from lorgnette.comparison.reading import Prediction, Result

THUMBNAIL_PIXELS = 240
# Read from a picture's header before any pixel is decoded; 64 million pixels are 192 MB in memory.
MOST_PIXELS = 64_000_000
# Without this list Pillow would also try formats that start other programs, such as EPS.
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A thumbnail as a data: URL, or the reason why there is none."""

    url: str | None = None
    width: int = 0
    height: int = 0
    missing: str = ""


@dataclass(frozen=True, kw_only=True)
class Card:
    """One document of the gallery."""

    before: Prediction
    after: Prediction
    picture: Picture


@dataclass(frozen=True, kw_only=True)
class Group:
    """The documents whose score moved in the same way: how many there are, and the few that are shown."""

    name: str
    total: int
    cards: tuple[Card, ...]


def gallery(before: Result, after: Result, size: int) -> tuple[Group, ...]:
    """Choose the documents to show: a third became right, a third wrong, a sixth stayed wrong, a sixth right.

    Losses get as much room as wins, however rare they are; the headings have the true counts. Places that a
    group cannot fill go to mistakes first. Within a group the choice is by the hash of the id: the same on
    every machine, and blind to the content, so that nobody can pick the prettiest. An unchanged score counts
    as right from 0.5. Both results have the same documents in the same order.
    """
    pairs = list(zip(before.predictions, after.predictions, strict=True))
    pairs.sort(key=lambda pair: hashlib.sha256(pair[0].id.encode()).digest())
    binary = all(row.score in (0.0, 1.0) for pair in pairs for row in pair)
    better, worse = ("Became right", "Became wrong") if binary else ("Improved", "Got worse")
    low, high = ("Wrong both times", "Right both times") if binary else ("Equally low", "Equally high")
    groups: dict[str, list[tuple[Prediction, Prediction]]] = {name: [] for name in (better, worse, low, high)}
    for first, second in pairs:
        if first.score != second.score:
            name = better if second.score > first.score else worse
        else:
            name = high if first.score >= 0.5 else low
        groups[name].append((first, second))
    places = _places([len(group) for group in groups.values()], size)
    return tuple(
        Group(
            name=name,
            total=len(group),
            cards=tuple(Card(before=a, after=b, picture=picture(a.image)) for a, b in group[:count]),
        )
        for (name, group), count in zip(groups.items(), places, strict=True)
    )


def picture(source: str | None) -> Picture:
    """Shrink an image file to a data: URL; a file that is missing, broken or huge becomes a labelled gap."""
    if source is None:
        return Picture(missing="no image")
    path = Path(source)
    try:
        if not path.is_file():  # also keeps pipes and devices from being opened
            return Picture(missing=f"image not found: {path.name}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about broken metadata or size; the size is checked below
            with Image.open(path, formats=IMAGE_FORMATS) as image:
                if image.width * image.height > MOST_PIXELS:
                    return Picture(missing=f"image too large: {path.name}")
                image.draft("RGB", (THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))  # JPEG decodes at a fraction of its size
                upright = ImageOps.exif_transpose(image).convert("RGBA")
    except Exception:  # a hostile file can raise anything in a decoder, and no picture is worth the report
        return Picture(missing=f"image cannot be read: {path.name}")
    upright.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    flat = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright).convert("RGB")
    # Drawings are smaller and sharper as PNG, photographs as JPEG.
    encoded = {"png": _encode(flat, "PNG", optimize=True), "jpeg": _encode(flat, "JPEG", quality=82)}
    kind, content = min(encoded.items(), key=lambda item: len(item[1]))
    url = f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
    return Picture(url=url, width=flat.width, height=flat.height)


def _places(available: Sequence[int], size: int) -> list[int]:
    """Share `size` places 2:2:1:1 among (better, worse, wrong, right), the rest to mistakes first."""
    wanted = [size * weight // 6 for weight in (2, 2, 1, 1)]
    places = [min(have, want) for have, want in zip(available, wanted, strict=True)]
    for index in (1, 2, 0, 3):
        places[index] += min(available[index] - places[index], size - sum(places))
    return places


def _encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Encode an image in memory."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
