"""Read the layout of the original LLaVA (llava/model/*.py, train.py): full checkpoints, LoRA folders, projectors.

All its numbers are meant for the transformers of its time, so in a Gemma its projector is an old one (`gemma.py`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING, LlavaConfig

from lorgnette.errors import ModelError
from lorgnette.models.conversion.lora import lora_from, read_peft, read_settings
from lorgnette.models.conversion.names import PartMap, listed, split, without_recomputed
from lorgnette.models.conversion.parts import Parts, Projector, projector_from, sequential_names
from lorgnette.models.conversion.weights import Tensors, read_file, read_folder
from lorgnette.models.gemma import pin_activation

FILES: PartMap = {
    "model.vision_tower.vision_tower.": ("vision_tower", ""),
    "model.mm_projector.": ("projector", ""),
    "model.image_newline": ("image_newline", "image_newline"),
    "model.vision_resampler.": ("vision_resampler", ""),
    "model.": ("language_model", "model."),
    "lm_head.": ("language_model", "lm_head."),
}
BESIDE_LORA = "non_lora_trainables.bin"
BESIDE_LORA_PREFIXES = ("base_model.model.", "base_model.", "")
"""What stands in front of names in `non_lora_trainables.bin`; LLaVA's loader strips the same."""
LANGUAGE_MODELS = {
    "llava": "llama",
    "llava_llama": "llama",
    "llava_mistral": "mistral",
    "llava_qwen": "qwen2",
    "llava_qwen2": "qwen2",
    "llava_gemma": "gemma",
    "llava_gemma2": "gemma2",
}
"""model_type of a LLaVA -> model_type of its language model."""
OWN_FIELDS = (
    "image_aspect_ratio",
    "image_crop_resolution",
    "image_grid_pinpoints",
    "image_split_resolution",
    "freeze_mm_mlp_adapter",
    "freeze_mm_vision_resampler",
    "tune_mm_mlp_adapter",
    "tune_mm_vision_resampler",
    "tokenizer_model_max_length",
    "tokenizer_padding_side",
    "unfreeze_mm_vision_tower",
    "use_mm_proj",
)
"""Fields of config.json that are LLaVA's own, beside all that begin with `mm_`."""
STRATEGIES = {"patch": "default", "cls_patch": "full"}


@dataclass(frozen=True)
class Original:
    """What a folder of the original LLaVA says in config.json.

    Attributes:
        config: `LlavaConfig` with an empty vision_config: LLaVA knows its tower by name only.
        vision_tower: that name.
        pads: whether images are padded to squares instead of cropped.
        projector: the kind of projector that it names.
        notes: what else is to be known.
    """

    config: Any
    vision_tower: str
    pads: bool
    projector: str
    notes: tuple[str, ...]


def read_config(folder: Path) -> Original:
    """Read config.json of the original layout.

    Raises:
        ModelError: if it cannot be read, or asks for what LLaVA-1.5 does not have.
    """
    file = folder / "config.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        name = content["model_type"]
        tower = content["mm_vision_tower"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(f"{file}: is no config.json of the original LLaVA ({error!r}).") from error
    if name not in LANGUAGE_MODELS:
        raise ModelError(f"{file}: model_type {name!r} is not supported. Allowed: {', '.join(LANGUAGE_MODELS)}.")
    ratio, merge = content.get("image_aspect_ratio"), content.get("mm_patch_merge_type", "flat")
    if ratio == "anyres" or merge != "flat" or content.get("mm_resampler_type") not in (None, "identity"):
        raise ModelError(
            f"{file}: image_aspect_ratio {ratio!r}, mm_patch_merge_type {merge!r} are of LLaVA-1.6 or later, which cut "
            "images into tiles. Allowed: pad or square, flat (LLaVA and LLaVA-1.5)."
        )
    feature = content.get("mm_vision_select_feature", "patch")
    if feature not in STRATEGIES:
        raise ModelError(f"{file}: mm_vision_select_feature {feature!r}. Allowed: {', '.join(STRATEGIES)}.")
    text = {key: value for key, value in content.items() if not key.startswith("mm_") and key not in OWN_FIELDS}
    text.pop("architectures", None)
    text["model_type"] = LANGUAGE_MODELS[name]
    try:
        text_config = CONFIG_MAPPING[LANGUAGE_MODELS[name]].from_dict(text)
    except (ValueError, TypeError) as error:
        raise ModelError(f"{file}: transformers refuses these settings: {error}") from error
    pin_activation(text_config)
    config = LlavaConfig(
        text_config=text_config,
        vision_feature_layer=content.get("mm_vision_select_layer", -2),
        vision_feature_select_strategy=STRATEGIES[feature],
        projector_hidden_act="gelu",
        tie_word_embeddings=text_config.tie_word_embeddings,
    )
    notes = ("prompts need <im_start> and <im_end> around the image (mm_use_im_start_end)",)
    return Original(
        config,
        str(tower),
        ratio == "pad",
        str(content.get("mm_projector_type", "linear")),
        notes if content.get("mm_use_im_start_end") else (),
    )


def read_full(folder: Path) -> Parts:
    """Read the tensors of a full checkpoint.

    Raises:
        ModelError: if tensors belong nowhere, or there is no projector.
    """
    tensors, notes = without_recomputed(read_folder(folder))
    parts = split(tensors, FILES, str(folder))
    if parts.pop("image_newline", None):
        notes.append("left out model.image_newline, which only LLaVA-1.6 uses")
    if "vision_resampler" in parts:
        raise ModelError(f"{folder}: has a resampler (model.vision_resampler), which LLaVA-1.5 does not have.")
    tower = parts.get("vision_tower")
    if tower is not None:
        notes.append(f"the vision tower is the checkpoint's own ({len(tower)} tensors), not the one that it names")
    return Parts(
        parts.get("language_model"), tower, read_projector_tensors(parts.get("projector", {}), str(folder)), notes
    )


def require_kind(projector: Projector, original: Original, where: str) -> None:
    """Check that a projector has as many layers as config.json says.

    Raises:
        ModelError: if not; then tensors are missing, or the configuration is another model's.
    """
    if projector.kind != original.projector:
        raise ModelError(
            f"{where}: config.json says mm_projector_type {original.projector!r}, but the tensors are those of "
            f"{projector.kind}. Next: check that nothing is missing and that config.json belongs to them."
        )


def read_projector_tensors(tensors: Tensors, where: str) -> Projector:
    """Make a projector of what follows `mm_projector.` in names.

    Raises:
        ModelError: if it is none of linear, mlp2x_gelu, mlp3x_gelu...
    """
    if not tensors:
        raise ModelError(f"{where}: there are no tensors of mm_projector.")
    names = ("",) if "weight" in tensors else sequential_names(tensors)
    return projector_from(tensors, names, True, where)


def read_projector_file(file: Path) -> Parts:
    """Read `mm_projector.bin`: what follows `mm_projector.` in any name.

    Raises:
        ModelError: if it holds something else than a projector and token embeddings.
    """
    found: Tensors = {}
    left = []
    for name, tensor in read_file(file).items():
        _, inside, rest = name.partition("mm_projector.")
        if inside:
            found[rest] = tensor
        else:
            left.append(name)
    foreign = [name for name in left if not name.endswith("embed_tokens.weight")]
    if foreign:
        raise ModelError(f"{file}: {listed(foreign)} are no part of a projector file.")
    notes = [f"left out {name}: LLaVA reads it only with mm_use_im_start_end" for name in left]
    return Parts(None, None, read_projector_tensors(found, str(file)), notes)


def read_lora(folder: Path) -> Parts:
    """Read a LoRA folder: the adapter of the language model, and what was trained whole beside it.

    Raises:
        ModelError: if tensors belong nowhere.
    """
    settings = read_settings(folder)
    adapter = split(read_peft(folder), FILES, str(folder))
    foreign = sorted(set(adapter) - {"language_model"})
    if foreign:
        raise ModelError(f"{folder}: the adapter changes the {foreign[0]}; LLaVA puts LoRA on the language model only.")
    beside = {_beside_lora(name): tensor for name, tensor in read_file(folder / BESIDE_LORA).items()}
    parts = split(beside, FILES, str(folder / BESIDE_LORA))
    foreign = sorted(set(parts) - {"vision_tower", "projector"})
    if foreign:
        names = [name for part in foreign for name in parts[part]]
        raise ModelError(f"{folder / BESIDE_LORA}: {listed(names)} were trained whole beside LoRA: not supported.")
    lora = lora_from(adapter.get("language_model", {}), settings, str(folder))
    return Parts(lora, parts.get("vision_tower"), read_projector_tensors(parts.get("projector", {}), str(folder)))


def _beside_lora(name: str) -> str:
    prefix = next(prefix for prefix in BESIDE_LORA_PREFIXES if name.startswith(prefix))
    name = name.removeprefix(prefix)
    return name.removeprefix("model.") if name.startswith("model.model.") else name
