"""Image files as they are met in the wild, good, odd and hostile: each function writes one and returns its path."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image


def noise(seed: int = 0, side: int = 48) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def scene(seed: int = 0, side: int = 256) -> Image.Image:
    """A smooth picture, which stays what it is when it is scaled; noise does not."""
    spots = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(spots).resize((side, side), Image.Resampling.BICUBIC)


def plain(file: Path) -> None:
    noise().save(file, "PNG")


def truncated_jpeg(file: Path) -> None:
    noise(side=200).save(file, "JPEG")
    file.write_bytes(file.read_bytes()[:4000])


def truncated_png(file: Path) -> None:
    plain(file)
    file.write_bytes(file.read_bytes()[:3000])


def corrupt_png(file: Path) -> None:
    plain(file)
    content = bytearray(file.read_bytes())
    content[200:260] = bytes(60)
    file.write_bytes(bytes(content))


def png_bomb(file: Path) -> None:
    """50,000 x 50,000 pixels of one bit in 300 kilobytes, whole and valid."""
    side = 50_000
    packed = zlib.compressobj(1)
    row = b"\0" * (1 + side // 8)
    content = b"".join([*(packed.compress(row * 1000) for _ in range(side // 1000)), packed.flush()])

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", content) + chunk(b"IEND", b""))


def zero_bytes(file: Path) -> None:
    file.write_bytes(b"")


def text_renamed(file: Path) -> None:
    file.write_text("hello, I am no picture\n" * 20)


def postscript(file: Path) -> None:
    """A valid EPS; Pillow alone would hand it to Ghostscript."""
    file.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n")


def huge_jpeg_header(file: Path) -> None:
    noise().save(file, "JPEG")
    content = bytearray(file.read_bytes())
    place = content.index(b"\xff\xc0")
    content[place + 5 : place + 9] = struct.pack(">HH", 12_000, 12_000)
    file.write_bytes(bytes(content))


def animated_gif(file: Path) -> None:
    noise(1).save(file, "GIF", save_all=True, append_images=[noise(2), noise(3)])


def cmyk_jpeg(file: Path) -> None:
    noise().convert("CMYK").save(file, "JPEG")


def grey_16(file: Path) -> None:
    Image.fromarray(np.arange(48 * 48, dtype=np.uint16).reshape(48, 48) * 20).save(file, "PNG")


def colour_16(file: Path) -> None:
    """PNG with sixteen bits a channel, which Pillow cannot write and opens as RGB."""
    rows = b"".join(b"\0" + bytes(range(48)) for _ in range(8))

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0))
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def lying_jpeg(file: Path) -> None:
    picture = noise()
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(file, "JPEG", exif=exif)


def see_through_png(file: Path) -> None:
    picture = noise().convert("RGBA")
    picture.putpixel((3, 3), (0, 0, 0, 0))
    picture.save(file, "PNG")


BROKEN: dict[str, Callable[[Path], None]] = {
    "image truncated": truncated_jpeg,
    "image broken": corrupt_png,
    "image empty": zero_bytes,
    "not an image": text_renamed,
    "image huge": png_bomb,
}
ODD: dict[str, Callable[[Path], None]] = {
    "image animated": animated_gif,
    "image CMYK": cmyk_jpeg,
    "image 16-bit": grey_16,
    "image EXIF-rotated": lying_jpeg,
    "image transparent": see_through_png,
}
