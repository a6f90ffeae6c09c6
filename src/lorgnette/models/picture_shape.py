"""How pictures of any shape become the squares that a vision tower takes."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from transformers import LlavaImageProcessorPil

Shape = Literal["padded", "stretched", "cropped"]
"""What becomes of a picture that is no square: the mean colour is added at two sides, its proportions change, or what
is outside its middle is cut off."""


def set_side(image_processor: Any, side: int) -> None:
    """Let an image processor give squares of this side in pixels."""
    if "shortest_edge" in dict(image_processor.size):
        image_processor.size = {"shortest_edge": side}
        image_processor.crop_size = {"height": side, "width": side}
    else:
        image_processor.size = {"height": side, "width": side}


def padded(image_processor: Any) -> Any:
    """Make the image processor of a tower one that pads pictures to squares with the mean colour, as LLaVA does.

    Its squares have the same side as before. DINOv2's processor, which cuts a margin off every picture, cuts none then.
    """
    settings = image_processor.to_dict()
    settings.pop("image_processor_type", None)
    if "shortest_edge" in dict(image_processor.size):
        settings["size"] = {"shortest_edge": image_processor.crop_size["height"]}
    cuts = bool(image_processor.do_center_crop)  # SigLIP's says nothing, and LLaVA's own default is to cut
    return LlavaImageProcessorPil(**(settings | {"do_pad": True, "do_center_crop": cuts}))


def shape_of(image_processor: Any) -> Shape:
    """Tell what becomes of pictures that are no squares, by giving it one four times as wide as high."""
    picture = np.zeros((64, 256, 3), np.uint8)
    picture[:, :64] = 255
    (seen,) = image_processor(picture, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"]
    _, height, width = seen.shape
    if seen[0, height // 2, width // 16] < 128:
        return "cropped"
    return "stretched" if seen[0, height // 16, width // 16] > 250 else "padded"
