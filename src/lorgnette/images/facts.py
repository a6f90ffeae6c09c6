"""What one look at an image file finds: can it be decoded, what is put right on the way, what is it the same as.

Knows files and pixels; knows nothing about samples, caches or processes.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from lorgnette.errors import RowError
from lorgnette.images.opening import opened, require_openable, upright_rgb

HASH_SIDE, HASH_PIXELS = 8, 32
ORIENTATION = 0x0112  # the EXIF tag; 1 is upright


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What is known of an image file after it was decoded once.

    Attributes:
        sha256: of the file's bytes; None if they cannot be read.
        width, height, mode: as the file says, before anything is put right. 0 and "" where it cannot be opened.
        animated: there is a second picture (of a GIF, a WebP, a TIFF).
        orientation: EXIF's, 1 is upright.
        deep: more than eight bits a channel.
        transparent: at least one pixel is not opaque.
        likeness: 64 bits that differ in few places from those of a similar picture; None if it cannot be decoded.
        problem: (kind, reason) where it cannot be used.
    """

    sha256: str | None = None
    width: int = 0
    height: int = 0
    mode: str = ""
    animated: bool = False
    orientation: int = 1
    deep: bool = False
    transparent: bool = False
    likeness: int | None = None
    problem: tuple[str, str] | None = None

    @property
    def mended(self) -> tuple[str, ...]:
        """Return what is put right whenever the image is opened, by kind."""
        found = {
            "image animated": self.animated,
            "image CMYK": self.mode == "CMYK",
            "image 16-bit": self.deep,
            "image EXIF-rotated": self.orientation != 1,
            "image transparent": self.transparent,
        }
        return tuple(kind for kind, holds in found.items() if holds)


def image_facts(path: str, content: bytes) -> ImageFacts:
    """Decode an image from its bytes; what is wrong with it is not raised, it is the `problem`."""
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        with opened(path, content) as image:
            width, height, mode, stored = image.width, image.height, image.mode, repr(image.tile)
            orientation = image.getexif().get(ORIENTATION, 1)
            rgb = upright_rgb(image)
            return ImageFacts(
                sha256=sha256,
                width=width,
                height=height,
                mode=mode,
                animated=_is_animated(path, content),
                orientation=orientation if orientation in range(2, 9) else 1,
                deep=mode.startswith("I") or mode == "F" or ";16" in stored,
                transparent=_is_transparent(image),
                likeness=likeness(rgb),
            )
    except RowError as error:
        return ImageFacts(sha256, problem=(error.kind, error.reason))


def read_image_bytes(path: str) -> bytes:
    """Read an image file into memory.

    Raises:
        RowError: if it is missing, not readable or too large.
    """
    try:
        return Path(require_openable(path)).read_bytes()
    except OSError as error:
        raise RowError("image missing", path, f"cannot be read ({error}). Next: check its permissions.") from error


def likeness(image: Image.Image) -> int:
    """Hash how a picture looks: 64 bits, few of which change when it is scaled or encoded anew.

    The signs of the 8 x 8 lowest frequencies of a 32 x 32 grey copy against their median (pHash: Zauner 2010,
    "Implementation and Benchmarking of Perceptual Image Hash Functions", section 3.2.1). Whole numbers throughout, so
    that the same pixels give the same bits on every machine.
    """
    grey = image.convert("L").resize((HASH_PIXELS, HASH_PIXELS), Image.Resampling.BOX)
    waves = _waves()
    frequencies = (waves @ np.asarray(grey, dtype=np.int64) @ waves.T).ravel()
    middle = np.sort(frequencies[1:])[(len(frequencies) - 1) // 2]  # the first is the mean brightness
    bits = np.packbits(frequencies > middle)
    return int.from_bytes(bits.tobytes(), "big")


@cache
def _waves() -> np.ndarray:
    """Return the 8 lowest cosines over 32 places, times 2^14: (8, 32)."""
    return np.array(
        [
            [round(2**14 * math.cos(math.pi * k * (2 * n + 1) / (2 * HASH_PIXELS))) for n in range(HASH_PIXELS)]
            for k in range(HASH_SIDE)
        ],
        dtype=np.int64,
    )


def _is_animated(path: str, content: bytes) -> bool:
    """Tell whether there is a second picture; an MPO's is the same picture for another eye or a preview."""
    with opened(path, content) as image:
        if image.format == "MPO":
            return False
        try:
            image.seek(1)
        except (EOFError, OSError, SyntaxError, ValueError):  # no second picture, or a broken one
            return False
    return True


def _is_transparent(image: Image.Image) -> bool:
    if not image.has_transparency_data:
        return False
    lowest, _ = image.convert("RGBA").getchannel("A").getextrema()
    return isinstance(lowest, int | float) and lowest < 255
