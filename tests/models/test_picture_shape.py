"""What becomes of pictures that are no squares, for the processors of the three kinds of tower."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import AutoProcessor, BitImageProcessorPil, CLIPImageProcessorPil, SiglipImageProcessorPil
from typer.testing import CliRunner

from lorgnette.cli import app
from lorgnette.images.opening import pixels_of
from lorgnette.models.assembly import assemble
from lorgnette.models.loading import load_llava
from lorgnette.models.picture_shape import padded, set_side, shape_of
from lorgnette.models.saving import save_llava

CLIP = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
SIGLIP = SiglipImageProcessorPil(size={"height": 32, "width": 32})
DINOV2 = BitImageProcessorPil(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32})
PROCESSORS = {"clip": CLIP, "siglip": SIGLIP, "dinov2": DINOV2}


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def on_a_square(image: Image.Image, mean: list[float]) -> Image.Image:
    """LLaVA's way, by PIL: the picture in the middle of a square canvas of the mean colour."""
    side = max(image.size)
    canvas = Image.new("RGB", (side, side), tuple(int(channel * 255) for channel in mean))
    canvas.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return canvas


def test_each_towers_own_way_is_known() -> None:
    assert {name: shape_of(processor) for name, processor in PROCESSORS.items()} == {
        "clip": "cropped",
        "siglip": "stretched",
        "dinov2": "cropped",
    }


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("size", [(50, 20), (20, 51), (33, 33), (400, 3)])
def test_padding_is_llavas(name: str, size: tuple[int, int]) -> None:
    processor = PROCESSORS[name]
    ours = padded(processor)
    assert shape_of(ours) == "padded"
    image = picture(*size)
    plain = type(processor)(**{k: v for k, v in processor.to_dict().items() if k != "image_processor_type"})
    set_side(plain, 32)  # the whole square, also where the processor would cut a margin off
    expected = pixels_of(plain, "p", on_a_square(image, processor.image_mean))
    assert np.array_equal(pixels_of(ours, "p", image), expected)
    assert expected.shape == (3, 32, 32)


def test_a_built_model_keeps_its_way_in_its_folder(
    parts: Callable[[str, str], tuple[str, str]], tmp_path: Path
) -> None:
    image = picture(70, 30)
    cropped = assemble(*parts("clip", "llama"), seed=3)
    assert cropped.picture_shape == "cropped"
    made = assemble(*parts("clip", "llama"), seed=3, do_pad=True)
    save_llava(made, tmp_path / "made", {"kind": "base"})
    again = load_llava(str(tmp_path / "made"))
    assert again.picture_shape == "padded"
    expected = pixels_of(made.processor.image_processor, "p", image)
    assert np.array_equal(pixels_of(again.processor.image_processor, "p", image), expected)
    assert not np.array_equal(pixels_of(cropped.processor.image_processor, "p", image), expected)
    plain = AutoProcessor.from_pretrained(tmp_path / "made", backend="pil")
    theirs = plain.image_processor(image, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"][0]
    assert np.array_equal(theirs, expected)


def test_it_is_asked_for_by_its_name(parts: Callable[[str, str], tuple[str, str]], tmp_path: Path) -> None:
    made = CliRunner().invoke(app, ["model", "build", *parts("clip", "llama"), str(tmp_path / "made"), "--do-pad"])
    assert made.exit_code == 0, made.output
    shown = CliRunner().invoke(app, ["model", "inspect", str(tmp_path / "made")]).output
    assert "16 x 16 pixels, padded; 4 tokens an image" in shown
