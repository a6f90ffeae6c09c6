"""LoRA by full module path, with the projector beside it, in one PEFT folder; and the merge, proven.

PEFT matches names by their ends, so `q_proj` alone would also hit the vision tower. Targets are therefore given as a
regular expression over full paths, and what it matched is checked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    load_peft_weights,
    set_peft_model_state_dict,
)
from safetensors.torch import load_file, save_file
from torch import nn

from lorgnette.errors import ModelError, RunError, nearest
from lorgnette.models.loading import explained
from lorgnette.models.trainable import PARTS, Mode, freeze_all_but, master_weights

PROJECTOR = "multi_modal_projector"
TRAINED = "trained.safetensors"


def add_lora(model: nn.Module, modes: Mapping[str, Mode], settings: Mapping[str, Any]) -> Any:
    """Put LoRA matrices into the parts whose mode is `lora` and a trained copy of the projector where it is `full`.

    Args:
        model: a `LlavaForConditionalGeneration`.
        modes: part -> mode. A part beside LoRA can be `full` only if it is the projector.
        settings: fields of `peft.LoraConfig`; `target_modules` are names of linear layers, or "all-linear".

    Raises:
        ModelError: if a target matches nothing, or another part than the projector is `full`.
    """
    full = [part for part, mode in modes.items() if mode == "full" and part != "projector"]
    if full:
        raise ModelError(f"{', '.join(full)}: full training beside LoRA is possible for the projector only.")
    wanted = dict(settings)
    targets = target_pattern(model, modes, wanted.pop("target_modules", "all-linear"))
    config = LoraConfig(
        target_modules=targets,
        modules_to_save=[PROJECTOR] if modes["projector"] == "full" else None,
        **wanted,
    )
    freeze_all_but(model, dict.fromkeys(modes, "frozen"))
    adapted = get_peft_model(model, config)
    master_weights(adapted)
    return adapted


def target_pattern(model: nn.Module, modes: Mapping[str, Mode], names: str | list[str]) -> str:
    """Return a regular expression that matches exactly the linear layers that get LoRA, by their full paths.

    Raises:
        ModelError: if a name matches no linear layer of a part.
    """
    patterns = []
    for part, mode in modes.items():
        if mode != "lora":
            continue
        linear = [
            name.removeprefix(PARTS[part])
            for name, module in model.named_modules()
            if name.startswith(PARTS[part]) and isinstance(module, nn.Linear)
        ]
        last_names = sorted({name.rpartition(".")[2] for name in linear})
        asked = last_names if names == "all-linear" else [names] if isinstance(names, str) else names
        unknown = [name for name in asked if name not in last_names]
        if unknown:
            raise ModelError(
                f"lora.target_modules: {part} has no linear layer '{unknown[0]}'. Allowed: {', '.join(last_names)}."
                f"{nearest(unknown[0], last_names)}"
            )
        patterns.append(rf"{re.escape(PARTS[part])}(.*\.)?({'|'.join(re.escape(name) for name in asked)})")
    return "|".join(patterns)


def save_trained(model: Any, folder: Path) -> None:
    """Write what was trained: a PEFT folder where there is LoRA, else `trained.safetensors`."""
    if isinstance(model, PeftModel):
        model.save_pretrained(str(folder), save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
        return
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: p.detach().contiguous() for name, p in model.named_parameters() if p.requires_grad}
    save_file(tensors, folder / TRAINED, metadata={"format": "pt"})


def load_trained(model: Any, folder: Path) -> None:
    """Read back what `save_trained` wrote into a model that trains the same things.

    Raises:
        ModelError: if tensors are missing, left over or of another shape, or the file is truncated.
    """
    with explained(str(folder), "trained weights"):
        if isinstance(model, PeftModel):
            saved = load_peft_weights(str(folder), device="cpu")
            expected = {name: value.shape for name, value in get_peft_model_state_dict(model).items()}
        else:
            saved = load_file(folder / TRAINED)
            expected = {name: p.shape for name, p in model.named_parameters() if name in saved}
    found = {name: value.shape for name, value in saved.items()}
    if found != expected:
        different = sorted(set(found.items()) ^ set(expected.items()))
        raise ModelError(
            f"{folder}: {len(different)} trained tensors do not fit the model, first {different[0][0]}. Next: check "
            "that it was trained on this base with this recipe."
        )
    if isinstance(model, PeftModel):
        set_peft_model_state_dict(model, saved)
        return
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in saved.items():
            parameters[name].copy_(value)


def merge(adapted: Any) -> Any:
    """Fold LoRA into its layers in float32 and return the plain model."""
    adapted.to(torch.float32)
    return adapted.merge_and_unload(safe_merge=True)


def require_equal_logits(before: torch.Tensor, after: torch.Tensor, tolerance: float) -> float:
    """Compare logits before and after a merge, relative to their largest magnitude; return the difference.

    Raises:
        RunError: if they differ by more than `tolerance`.
    """
    difference = float((before - after).abs().max() / before.abs().max().clamp(min=1e-12))
    if not difference <= tolerance:
        raise RunError(
            f"the merged model's logits differ from base + adapter by {difference:.2e} (relative). "
            f"Allowed: {tolerance:.0e}. Nothing was written."
        )
    return difference
