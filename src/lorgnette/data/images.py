"""Open and decode images from outside, safely."""

from __future__ import annotations

import hashlib
import os
import warnings
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from lorgnette.errors import DataError
from lorgnette.run import cache_folder

MAX_PIXELS = 100_000_000
"""Images with more pixels are refused: a small file can unpack to gigabytes (a decompression bomb)."""


def open_image(path: str | Path) -> Image.Image:
    """Decode a whole image file to RGB, turned upright by its EXIF orientation.

    Transparent pixels become white. Sixteen-bit grey is scaled to eight bits (PIL's own conversion clips it).

    Raises:
        DataError: if the file is missing, empty, truncated, too large or no image.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DataError(
                        f"{path}: {image.width} x {image.height} pixels. Allowed: {MAX_PIXELS:,} in all. "
                        "Next: scale the image down."
                    )
                return _to_rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such image. Next: check the path and the images folder.") from error
    except UnidentifiedImageError as error:
        kind = "empty" if Path(path).is_file() and Path(path).stat().st_size == 0 else "not an image that PIL reads"
        raise DataError(f"{path}: the file is {kind}. Next: replace the file or remove the row.") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{path}: cannot be decoded ({error}). Next: replace the file or remove the row.") from error


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
    """Resize and crop an image as its processor says, without scaling or normalising: uint8 (C, H, W).

    Bytes travel to the device and are normalised there: a quarter of the traffic, and the slowest step leaves the CPU.

    Raises:
        DataError: as `open_image`.
    """
    batch = image_processor(open_image(path), do_rescale=False, do_normalize=False, return_tensors="np")
    return np.ascontiguousarray(batch["pixel_values"][0], dtype=np.uint8)
