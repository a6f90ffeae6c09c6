"""Write the layout of the original LLaVA: full checkpoints, LoRA folders' own file, `mm_projector.bin`, config.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lorgnette.errors import ModelError
from lorgnette.models.conversion.llava import BESIDE_LORA, FILES, STRATEGIES
from lorgnette.models.conversion.names import join
from lorgnette.models.conversion.parts import Projector
from lorgnette.models.conversion.weights import Tensors, write_pickle, write_weights
from lorgnette.models.loading import dtype_name
from lorgnette.models.saving import spell_rotary
from lorgnette.run import write_json

NAMES = {
    "llama": ("llava_llama", "LlavaLlamaForCausalLM"),
    "mistral": ("llava_mistral", "LlavaMistralForCausalLM"),
    "qwen2": ("llava_qwen", "LlavaQwenForCausalLM"),
    "gemma": ("llava_gemma", "LlavaGemmaForCausalLM"),
}
"""model_type of a language model -> (model_type, class) that LLaVA and its forks call the whole."""


def projector_names(projector: Projector) -> Tensors:
    """Name a projector's tensors as LLaVA does within `mm_projector.`; a linear one has no number."""
    return projector.layers[0].tensors("") if len(projector.layers) == 1 else projector.sequential("")


def write_full(
    language: Tensors, tower: Tensors | None, projector: Projector, config: dict[str, Any], folder: Path
) -> None:
    """Write the tensors and config.json of a full checkpoint; the tower's only if they are given."""
    parts = {"language_model": language, "projector": projector_names(projector)}
    if tower is not None:
        parts["vision_tower"] = tower
    write_weights(join(parts, FILES), folder)
    write_json(folder / "config.json", config)


def write_projector_file(projector: Projector, folder: Path) -> None:
    """Write `mm_projector.bin`."""
    write_pickle(join({"projector": projector_names(projector)}, FILES), folder / "mm_projector.bin")


def write_beside_lora(projector: Projector, tower: Tensors | None, folder: Path) -> None:
    """Write `non_lora_trainables.bin`: the projector, and the tower if it was trained whole."""
    parts = {"projector": projector_names(projector)}
    if tower is not None:
        parts["vision_tower"] = tower
    names = join(parts, FILES)
    write_pickle({f"base_model.model.{name}": tensor for name, tensor in names.items()}, folder / BESIDE_LORA)


def original_config(
    config: Any, projector: Projector, vision_tower: str, pads: bool, own_tower: bool
) -> dict[str, Any]:
    """Turn a `LlavaConfig` into the original's config.json.

    Args:
        vision_tower: the name or folder that LLaVA loads its tower from.
        own_tower: the checkpoint holds the tower's tensors; LLaVA reads them only if told that they were trained.

    Raises:
        ModelError: if the original has no name for the language model, or cannot pick features that way.
    """
    text = config.text_config
    if text.model_type not in NAMES:
        raise ModelError(
            f"the original LLaVA has no class for a language model of type {text.model_type!r}. Allowed: "
            f"{', '.join(NAMES)}."
        )
    if not isinstance(config.vision_feature_layer, int):
        raise ModelError(f"vision_feature_layer is {config.vision_feature_layer}; the original LLaVA picks one layer.")
    content: dict[str, Any] = text.to_dict()
    spell_rotary(content)
    for name in ("rope_parameters", "_name_or_path", "dtype"):
        content.pop(name, None)
    model_type, architecture = NAMES[text.model_type]
    features = {strategy: feature for feature, strategy in STRATEGIES.items()}
    return content | {
        "model_type": model_type,
        "architectures": [architecture],
        "torch_dtype": dtype_name(config.dtype or text.dtype or "float32"),
        "mm_vision_tower": vision_tower,
        "mm_hidden_size": projector.sizes[0],
        "mm_projector_type": projector.kind,
        "mm_vision_select_layer": config.vision_feature_layer,
        "mm_vision_select_feature": features[config.vision_feature_select_strategy],
        "mm_patch_merge_type": "flat",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "use_mm_proj": True,
        "unfreeze_mm_vision_tower": own_tower,
        "image_aspect_ratio": "pad" if pads else "square",
        "tokenizer_padding_side": "right",
        "transformers_version": "4.37.2",  # what LLaVA asks for; it is also what a Gemma's projector is meant for
    }
