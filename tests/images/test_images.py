"""Images from outside: every mode becomes RGB, every broken file a clear error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from lorgnette.errors import DataError, RowError
from lorgnette.images import opening as images
from lorgnette.images.opening import keep_image, open_image, read_pixels
from lorgnette.models.conversion.convert import padded
from lorgnette.models.loading import Llava


@pytest.mark.parametrize("mode", ["RGB", "L", "LA", "RGBA", "P", "1", "CMYK", "I;16", "YCbCr"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    file = tmp_path / ("x.tif" if mode in ("CMYK", "YCbCr", "I;16") else "x.png")
    if mode == "I;16":
        Image.fromarray(np.full((4, 6), 257 * 100, np.uint16)).save(file)
    else:
        Image.new("RGB", (6, 4), (100, 100, 100)).convert(mode).save(file)
    found = open_image(file)
    assert (found.mode, found.size) == ("RGB", (6, 4))
    if mode not in ("1", "P"):
        assert abs(int(np.asarray(found)[0, 0, 0]) - 100) <= 2


def test_transparent_pixels_become_white(tmp_path: Path) -> None:
    Image.new("RGBA", (2, 2), (10, 20, 30, 0)).save(tmp_path / "x.png")
    assert np.asarray(open_image(tmp_path / "x.png")).min() == 255


def test_images_are_turned_upright(tmp_path: Path) -> None:
    picture = Image.new("RGB", (6, 4))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "x.jpg", exif=exif)
    assert open_image(tmp_path / "x.jpg").size == (4, 6)


def test_broken_files_are_errors_that_name_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = tmp_path / "good.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(good)
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:3000])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("hello")
    for name, says in (
        ("cut", "cannot be decoded"),
        ("empty", "is empty"),
        ("text", "not an image"),
        ("none", "no such image"),
    ):
        with pytest.raises(DataError, match=says) as error:
            open_image(tmp_path / f"{name}.png")
        assert f"{name}.png" in str(error.value)
    with pytest.raises(DataError):
        open_image(tmp_path)
    monkeypatch.setattr(images, "MAX_PIXELS", 1000)
    with pytest.raises(DataError, match="64 x 64 pixels"):
        open_image(good)


def test_bytes_normalised_on_the_device_equal_the_processors_own_numbers(llava: Llava, pictures: list[str]) -> None:
    import torch

    processor = llava.processor.image_processor
    bytes_ = read_pixels(processor, pictures[0])
    assert bytes_.dtype == np.uint8
    expected = processor(open_image(pictures[0]), return_tensors="pt")["pixel_values"]
    assert torch.allclose(llava.scale.normalise(torch.from_numpy(bytes_)[None]), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("processor", "fits", "huge"),
    [
        (CLIPImageProcessorPil(size={"shortest_edge": 336}), (1, 300), (2000, 1)),
        (CLIPImageProcessorPil(size={"height": 32, "width": 32}), (60_000, 1), None),
        (padded(CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32)), (5_000, 1), (1, 15_000)),
    ],
    ids=["scaled", "squeezed", "padded"],
)
def test_a_line_is_not_scaled_or_padded_to_gigabytes(
    tmp_path: Path, processor: Any, fits: tuple[int, int], huge: tuple[int, int] | None
) -> None:
    Image.new("1", fits).save(tmp_path / "fits.png")
    assert read_pixels(processor, tmp_path / "fits.png").ndim == 3
    if huge is not None:
        Image.new("1", huge).save(tmp_path / "huge.png")
        with pytest.raises(RowError, match=r"pixels become .* Allowed: 200,000,000") as error:
            read_pixels(processor, tmp_path / "huge.png")
        assert error.value.kind == "image huge"


def test_images_from_inside_a_data_file_are_kept_once_by_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kept = Path(keep_image(b"first"))
    assert kept.is_relative_to(tmp_path / "lorgnette" / "images")
    assert keep_image(b"first") == str(kept) != keep_image(b"second")
    kept.write_bytes(b"fi")  # cut by a crash
    assert Path(keep_image(b"first")).read_bytes() == b"first"
    assert len([file for file in tmp_path.rglob("*") if file.is_file()]) == 2
