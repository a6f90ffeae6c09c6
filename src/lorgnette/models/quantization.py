"""QLoRA: the language model's linear layers in 4 bits (Dettmers et al. 2023, arXiv 2305.14314), nothing else.

One plan, given in the recipe, holds for training, measuring and serving. Vision tower, projector, embeddings and head
keep their weights: a projector in 4 bits is what makes other tools' checkpoints unreadable.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from lorgnette.errors import MissingExtra, ModelError
from lorgnette.models.trainable import part_of

KEPT_WHOLE = ("model.vision_tower", "model.multi_modal_projector", "lm_head")
"""Full paths: transformers matches them from the start of a name."""


def four_bit(plan: Mapping[str, Any]) -> BitsAndBytesConfig:
    """Return transformers' settings for a plan.

    Args:
        plan: bnb_4bit_quant_type, bnb_4bit_use_double_quant, bnb_4bit_compute_dtype.

    Raises:
        MissingExtra: if bitsandbytes is not installed.
    """
    if find_spec("bitsandbytes") is None:
        raise MissingExtra("bitsandbytes", "qlora")
    return BitsAndBytesConfig(load_in_4bit=True, llm_int8_skip_modules=list(KEPT_WHOLE), **plan)


def quantized_layers(model: Any) -> dict[str, Any]:
    """Return the layers that are held in 4 bits, by their names without PEFT's additions."""
    from bitsandbytes.nn.modules import Linear4bit  # noqa: PLC0415  (an optional library)

    return {
        name.removesuffix(".base_layer"): module
        for name, module in model.named_modules()
        if isinstance(module, Linear4bit)
    }


def hold_to_plan(model: Any) -> None:
    """Check that something is in 4 bits and nothing outside the language model, and let it compute one way only.

    Where a processor has bfloat16 instructions, bitsandbytes evaluates with scales rounded to bfloat16 but trains with
    whole ones: the model that is measured would not be the one that was trained.

    Raises:
        ModelError: naming the first layer that should not be.
    """
    layers = quantized_layers(model)
    names = list(layers)
    wrong = [name for name in names if part_of(name) != "language_model" or name.endswith("lm_head")]
    if wrong or not names:
        raise ModelError(
            f"quantization: {wrong[0] if wrong else 'no layer'} was put into 4 bits. Allowed: the linear layers of the "
            "language model. Next: leave quantization out for this model."
        )
    for layer in layers.values():
        layer.support_avx512bf16_for_cpu = False


@torch.no_grad()
def take_dequantized(plain: Any, quantized: Any) -> None:
    """Give a plain model the weights that a quantized one computes with, so that an adapter can be merged into them.

    Args:
        plain: the same model loaded without quantization, in float32; changed in place.
        quantized: the model as it was trained, inside PEFT or not.
    """
    from bitsandbytes.functional import dequantize_4bit  # noqa: PLC0415  (an optional library)

    for name, layer in quantized_layers(quantized).items():
        weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        plain.get_submodule(name).weight.copy_(weight)
