"""One look at an image: every way to be broken has its kind, what is put right is named, likeness is stable."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import wild_images as wild
from lorgnette.errors import RowError
from lorgnette.images.facts import image_facts, likeness, read_image_bytes
from lorgnette.images.opening import open_image


def look(file: Path):
    return image_facts(str(file), read_image_bytes(str(file)))


@pytest.mark.parametrize(
    ("write", "kind", "says"),
    [
        (wild.truncated_jpeg, "image truncated", "truncated"),
        (wild.truncated_png, "image truncated", "truncated"),
        (wild.corrupt_png, "image broken", "broken"),
        (wild.zero_bytes, "image empty", "empty"),
        (wild.text_renamed, "not an image", "not an image"),
        (wild.postscript, "not an image", "not an image"),
        (wild.huge_jpeg_header, "image huge", "12000 x 12000"),
        (wild.png_bomb, "image huge", "100,000,000 pixels"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_every_broken_file_has_its_kind(tmp_path: Path, write: Callable[[Path], None], kind: str, says: str) -> None:
    file = tmp_path / "picture.jpg"
    write(file)
    found = look(file)
    assert found.problem is not None
    assert found.problem[0] == kind
    assert says in found.problem[1]
    assert found.likeness is None
    with pytest.raises(RowError) as error:  # training meets it by the same rule
        open_image(file)
    assert (error.value.kind, error.value.reason) == found.problem


@pytest.mark.parametrize(
    ("write", "mended"),
    [
        (wild.plain, ()),
        (wild.animated_gif, ("image animated",)),
        (wild.cmyk_jpeg, ("image CMYK",)),
        (wild.grey_16, ("image 16-bit",)),
        (wild.colour_16, ("image 16-bit",)),
        (wild.lying_jpeg, ("image EXIF-rotated",)),
        (wild.see_through_png, ("image transparent",)),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_put_right_is_named(tmp_path: Path, write: Callable[[Path], None], mended: tuple[str, ...]) -> None:
    file = tmp_path / "picture.png"
    write(file)
    found = look(file)
    assert (found.problem, found.mended) == (None, mended)
    with Image.open(file) as picture:
        assert (found.width, found.height) == picture.size
    assert found.likeness == likeness(open_image(file))


def test_an_opaque_alpha_channel_hides_nothing(tmp_path: Path) -> None:
    wild.noise().convert("RGBA").save(tmp_path / "x.png")
    assert look(tmp_path / "x.png").mended == ()


def test_what_is_no_plain_file_is_missing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    for name in ("none.jpg", "pipe", "dangling", ".", "a\0b", "x" * 5000, "\ud800"):
        with pytest.raises(RowError) as error:
            read_image_bytes(str(tmp_path / name))
        assert error.value.kind == "image missing"


def test_likeness_survives_scaling_and_encoding_and_tells_pictures_apart(tmp_path: Path) -> None:
    for seed in range(8):
        picture = wild.scene(seed)
        picture.resize((97, 131)).save(tmp_path / "small.jpg", quality=60)
        near = likeness(picture) ^ likeness(open_image(tmp_path / "small.jpg"))
        far = likeness(picture) ^ likeness(wild.scene(seed + 100))
        assert near.bit_count() <= 4
        assert far.bit_count() >= 12


def test_likeness_is_the_same_everywhere() -> None:
    waves = bytes((x * x // 7 + x * y // 5 + 3 * y) % 256 for y in range(64) for x in range(64))
    assert f"{likeness(Image.frombytes('L', (64, 64), waves).convert('RGB')):016x}" == "8d001f3c39793b57"
