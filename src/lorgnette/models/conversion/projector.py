"""A projector alone: read from any format, put into a model at the start of a stage, written as a folder of its own.

The folder is what a stage that trains a projector leaves: `trained.safetensors`, with the names that the tensors have
in the memory of `LlavaForConditionalGeneration`, so that `load_state_dict` takes it, and `lorgnette.json`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers.activations import ACT2FN

from lorgnette.errors import ModelError
from lorgnette.models.adapted import about
from lorgnette.models.adapters import TRAINED
from lorgnette.models.conversion import llava, xtuner
from lorgnette.models.conversion.detect import Found, detect
from lorgnette.models.conversion.huggingface import projector_of, projector_tensors, two_layers
from lorgnette.models.conversion.names import split
from lorgnette.models.conversion.parts import Projector
from lorgnette.models.conversion.weights import read_file
from lorgnette.models.gemma import NEW, OLD, image_feature_scale, side_of
from lorgnette.run import library_versions, whole_folder

MEMORY = "model.multi_modal_projector."
PREFIXES = (MEMORY, "multi_modal_projector.", "")


def read_projector(path: Path) -> Projector:
    """Read a projector alone: `mm_projector.bin`, XTuner's `.pth` or `projector` folder, or a folder of ours.

    Raises:
        ModelError: if it is something else, or holds more than a projector.
    """
    found = detect(path)
    if found.kind == "projector":
        return read_trained(found)
    if found.kind == "llava-projector":
        parts = llava.read_projector_file(found.path)
    elif found.kind == "xtuner-checkpoint":
        parts = xtuner.read_checkpoint(found.path, None)
    elif found.kind == "xtuner-export":
        parts = xtuner.read_export(found.path)
    else:
        raise ModelError(f"{path}: is no projector alone ({found.says}). Next: use it as a model, or merge it first.")
    both = {"language model": parts.language_model, "vision tower": parts.vision_tower}
    more = [name for name, part in both.items() if part is not None]
    if parts.projector is None or more:
        raise ModelError(
            f"{path}: holds {' and '.join(more) or 'no projector'}{' too' if parts.projector else ''}; only a "
            "projector alone can be put into another model. Next: lorgnette model convert it."
        )
    return parts.projector


def read_trained(found: Found) -> Projector:
    """Read a projector in Hugging Face's names; `lorgnette.json` beside it says more, if it is there.

    Raises:
        ModelError: naming tensors that are missing or surplus.
    """
    table = dict.fromkeys(PREFIXES, ("projector", ""))
    tensors = split(read_file(found.path), table, str(found.path))["projector"]
    record = about(found.path.parent)
    old = side_of(record, str(found.path.parent))
    return projector_of(tensors, record.get("activation", "gelu"), old, str(found.path))


def write_projector(projector: Projector, folder: Path, source: str) -> None:
    """Write a folder that `init_projector` and plain users read.

    Raises:
        ModelError: if Hugging Face's LLaVA cannot hold the projector.
    """
    activation, held = two_layers(projector)
    with whole_folder(folder) as unfinished:
        tensors = {f"{MEMORY}{name}": tensor.read().clone() for name, tensor in projector_tensors(held).items()}
        save_file(tensors, unfinished / TRAINED, metadata={"format": "pt"})
        record = {
            "kind": "projector",
            "from": source,
            "sizes": list(projector.sizes),
            "activation": activation,
            "versions": library_versions(),
        }
        if projector.old is not None:
            record["meant_for"] = OLD if projector.old else NEW
        (unfinished / "lorgnette.json").write_text(json.dumps(record, indent=2, ensure_ascii=False), encoding="utf-8")


def load_projector(model: Any, projector: Projector, where: str) -> None:
    """Put a projector into a `LlavaForConditionalGeneration`, in place.

    Raises:
        ModelError: if the model's tower or language model has another width, or it cannot be held.
    """
    config = model.config
    activation, held = two_layers(projector.meant_for(False, image_feature_scale(config.text_config)))
    own = dict(model.model.multi_modal_projector.named_parameters())
    given = projector_tensors(held)
    shapes = {name: tuple(parameter.shape) for name, parameter in own.items()}
    if {name: tensor.shape for name, tensor in given.items()} != shapes:
        wanted = (shapes["linear_1.weight"][1], shapes["linear_2.weight"][0])
        bias = "" if ("linear_1.bias" in given) == ("linear_1.bias" in own) else ", and one of the two has no bias"
        raise ModelError(
            f"{where}: the projector goes from {projector.sizes[0]} to {projector.sizes[1]}; this model needs one from "
            f"{wanted[0]} (tower) to {wanted[1]} (language model){bias}."
        )
    with torch.no_grad():
        for name, tensor in given.items():
            own[name].copy_(tensor.read())
    if activation != config.projector_hidden_act:
        config.projector_hidden_act = activation
        model.model.multi_modal_projector.act = ACT2FN[activation]
