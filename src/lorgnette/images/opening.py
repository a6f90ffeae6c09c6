"""Open and decode images from outside, safely."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from lorgnette.errors import RowError
from lorgnette.run import cache_folder

MAX_PIXELS = 100_000_000
"""Images with more pixels are refused: a small file can unpack to gigabytes (a decompression bomb)."""

MAX_MADE = 200_000_000
"""Images that have more pixels while they are padded to a square or resized are refused: a line of 60,000 x 1 pixels,
scaled until it is as high as a tower wants, unpacks to gigabytes too. A pixel takes ten bytes then."""

MAX_BYTES = 1_000_000_000
"""Larger image files are refused: they are read into memory whole."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
"""What is decoded. Pillow knows more formats, one of which starts another program (EPS)."""


def open_image(path: str | Path) -> Image.Image:
    """Decode a whole image file to RGB, turned upright by its EXIF orientation.

    Transparent pixels become white. Sixteen-bit grey is scaled to eight bits (PIL's own conversion clips it). Of an
    animation the first picture is taken.

    Raises:
        RowError: if the file is missing, empty, truncated, too large or no image.
    """
    with opened(path) as image:
        return upright_rgb(image)


@contextmanager
def opened(
    path: str | Path, content: bytes | None = None, most_pixels: int | None = None
) -> Iterator[ImageFile.ImageFile]:
    """Open an image whose pixels are decoded within the block; whatever is wrong with the file is a `RowError`.

    Args:
        content: the file's bytes, where they have been read already.
        most_pixels: how large it may be; None for `MAX_PIXELS`.

    Raises:
        RowError: kinds "image missing", "image empty", "not an image", "image huge", "image truncated" and "image
            broken".
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd metadata, and about sizes, which are checked here
            source = require_openable(path) if content is None else io.BytesIO(content)
            image = Image.open(source, formats=_formats())
            with image:
                allowed = MAX_PIXELS if most_pixels is None else most_pixels
                if image.width * image.height > allowed:
                    raise _huge(path, f"{image.width} x {image.height} pixels. Allowed: {allowed:,} in all.")
                yield image
    except RowError:
        raise
    except Image.DecompressionBombError as error:
        raise _huge(path, f"more than {MAX_PIXELS:,} pixels ({error}).") from error
    except UnidentifiedImageError as error:
        empty = len(content) == 0 if content is not None else Path(path).stat().st_size == 0
        kind = "image empty" if empty else "not an image"
        reason = "the file is empty." if empty else "the file is not an image that PIL reads."
        raise RowError(kind, str(path), f"{reason} Next: replace the file or remove the row.") from error
    except Exception as error:  # a hostile file can raise anything in a decoder
        kind = "image truncated" if "truncated" in str(error).lower() else "image broken"
        raise RowError(
            kind,
            str(path),
            f"cannot be decoded ({str(error) or type(error).__name__}). Next: replace the file or remove the row.",
        ) from error


def require_file(path: str | Path) -> os.stat_result:
    """Check that an image is there and a plain file, without opening it.

    Raises:
        RowError: of kind "image missing"; also for a folder, a pipe and a name that no file can have.
    """
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        raise RowError(
            "image missing", str(path)[:200], "there is no such image. Next: check the path and the images folder."
        ) from error
    if not stat.S_ISREG(found.st_mode):
        raise RowError("image missing", str(path), "this is no file. Next: check the path and the images folder.")
    return found


def require_openable(path: str | Path) -> str | Path:
    """Check that an image is a plain file and small enough to be read, and return its path.

    Raises:
        RowError: of kind "image missing" or "image huge".
    """
    size = require_file(path).st_size
    if size > MAX_BYTES:
        raise _huge(path, f"{size:,} bytes. Allowed: {MAX_BYTES:,}.")
    return path


def _huge(path: str | Path, reason: str) -> RowError:
    return RowError("image huge", str(path), f"{reason} Next: scale the image down.")


@cache
def _formats() -> tuple[str, ...]:
    """Return those of our formats that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def upright_rgb(image: Image.Image) -> Image.Image:
    """Decode an opened image to RGB, turned upright, white where it is transparent."""
    return _to_rgb(ImageOps.exif_transpose(image))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        scale = 257.0 if values.max(initial=0) > 255 else 1.0
        return Image.fromarray(np.clip(values / scale, 0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def keep_image(data: bytes) -> str:
    """Write an encoded image that came inside a data file to the cache, named by its content; return its path.

    Samples name images by path, so that a set's pictures need not be in memory.
    """
    digest = hashlib.sha256(data).hexdigest()
    file = cache_folder("images") / digest[:2] / digest
    if not file.is_file() or file.stat().st_size != len(data):
        file.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=file.parent, delete=False) as unfinished:
            unfinished.write(data)
        os.replace(unfinished.name, file)
    return str(file)


def read_pixels(image_processor: Any, path: str | Path) -> np.ndarray:
    """Resize and crop an image file as its processor says, without scaling or normalising: uint8 (C, H, W).

    Raises:
        RowError: as `open_image`.
    """
    return pixels_of(image_processor, path, open_image(path))


def pixels_of(image_processor: Any, path: str | Path, image: Image.Image) -> np.ndarray:
    """Resize and crop an RGB image as its processor says, without scaling or normalising: uint8 (C, H, W).

    Bytes travel to the device and are normalised there: a quarter of the traffic, and the slowest step leaves the CPU.

    Raises:
        RowError: of kind "image huge", for a line that would become gigabytes on the way.
    """
    if (made := _most_made(image_processor.to_dict(), image.width, image.height)) > MAX_MADE:
        size = f"{image.width} x {image.height} pixels become {made:,} on the way to the vision tower"
        raise _huge(path, f"{size}. Allowed: {MAX_MADE:,}.")
    batch = image_processor(image, do_rescale=False, do_normalize=False, return_tensors="np")
    return np.ascontiguousarray(batch["pixel_values"][0], dtype=np.uint8)


def _most_made(processing: dict[str, Any], width: int, height: int) -> int:
    """Return how many pixels an image has at most while a processor pads it to a square and resizes it."""
    long, short = max(width, height), min(width, height)
    if processing.get("do_pad"):
        return long * long
    edge = processing["size"].get("shortest_edge") if processing.get("do_resize") else None
    return width * height if edge is None else max(width * height, edge * (edge * long // short))
