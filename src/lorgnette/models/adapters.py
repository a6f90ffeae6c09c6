"""LoRA by full module path, with the projector beside it, in one PEFT folder; and the merge, proven."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
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
from peft.helpers import disable_input_dtype_casting
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import nn

from lorgnette.errors import ModelError, RunError, first_line, is_out_of_memory
from lorgnette.models.conversion.names import require_same
from lorgnette.models.loading import explained
from lorgnette.models.lora_targets import OF_TARGETS, lora_targets
from lorgnette.models.soft_prompt import PROMPT_FOLDER, Whole, load_prompt, save_prompt
from lorgnette.models.trainable import Mode, master_weights, part_of

PROJECTOR = "multi_modal_projector"
TRAINED = "trained.safetensors"
TOLERANCES = {"float32": 1e-5, "bfloat16": 5e-2, "float16": 1e-2}
"""Largest difference of logits, relative to the largest one, that rounding explains where one side computes in a dtype:
bfloat16 has 8 bits of mantissa and rounds in every layer."""
COMPARED = 8
"""Samples on which logits are compared."""


def add_lora(
    model: nn.Module,
    modes: Mapping[str, Mode],
    settings: Mapping[str, Any],
    *,
    tower: frozenset[str] | None = None,
    keep_projector: bool = False,
) -> Any:
    """Put LoRA matrices into the parts whose mode is `lora`; parts whose mode is `full` train beside them.

    A trained projector lies in PEFT's folder with the adapter. Other parts that train in full are trained in place and
    lie beside it: PEFT would hold each of them twice in memory.

    Args:
        model: a `LlavaForConditionalGeneration`.
        modes: part -> mode; parts that are not named are frozen.
        settings: fields of `peft.LoraConfig`; those in `OF_TARGETS` as in `lora_targets`.
        tower: names of the vision tower's parameters that learn, see `tower_parameters_that_learn`; None for all.
        keep_projector: a stage before trained the projector, so that it belongs in the folder also where it is frozen.

    Raises:
        ModelError: if a target matches nothing, or PEFT refuses the settings.
    """
    wanted = dict(settings)
    targets = lora_targets(model, modes, wanted, tower)
    for name in OF_TARGETS:
        wanted.pop(name, None)
    mode = modes.get("projector", "frozen")
    projector = mode == "full" or (keep_projector and mode == "frozen")
    beside = dict(modes) | {"projector": "frozen"}
    adapted = _adapted(model, targets, [PROJECTOR] if projector else None, wanted)
    core = adapted.get_base_model()
    for name, parameter in core.named_parameters():
        if beside.get(part_of(name)) == "full" and (tower is None or part_of(name) != "vision_tower" or name in tower):
            parameter.requires_grad_(True)
        elif part_of(name) == "projector" and mode == "frozen":
            parameter.requires_grad_(False)
    master_weights(adapted)
    return adapted


def _adapted(model: nn.Module, targets: list[str], saved: list[str] | None, settings: Mapping[str, Any]) -> Any:
    """Put PEFT around a model.

    Raises:
        ModelError: if PEFT refuses the settings, or one of them names what is not there.
    """
    try:
        # of an outline nothing may take memory; elsewhere PEFT draws the start on the CPU, whatever the device
        outlined = next(model.parameters()).is_meta
        with warnings.catch_warnings(), torch.device("meta") if outlined else nullcontext():
            # PEFT only warns of a pattern that matches nothing
            for said in (".*did not match any", ".*no parameter was matched"):
                warnings.filterwarnings("error", said, RuntimeWarning)
            return get_peft_model(model, LoraConfig(target_modules=targets, modules_to_save=saved, **settings))
    except Exception as error:  # what settings that do not fit make PEFT raise has no common class
        if is_out_of_memory(error):
            raise
        raise ModelError(f"lora: PEFT refuses these settings ({type(error).__name__}: {error!s:.300})") from error


def spare_casts(model: nn.Module) -> AbstractContextManager[None]:
    """Within autocast, leave the inputs of LoRA in half precision: PEFT makes them fp32, and autocast half again.

    The numbers stay bitwise the same, and a step on a CPU takes a tenth less. With dropout the casts stay, because its
    scale would be rounded; and with variants such as DoRA, which compute more than two products from the input.
    """
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    plain = not any(layer.lora_variant for layer in layers) and all(
        isinstance(dropout, nn.Identity) for layer in layers for dropout in layer.lora_dropout.values()
    )
    device = next(model.parameters()).device.type
    return disable_input_dtype_casting(model, active=plain and torch.is_autocast_enabled(device))  # type: ignore[no-any-return]


def save_trained(model: Any, folder: Path) -> list[str]:
    """Write what was trained.

    With LoRA a PEFT folder, and `trained.safetensors` beside it for parts other than the projector that were trained in
    full; without LoRA only that file; a soft prompt as a PEFT folder of its own in `prompt/`.

    Returns:
        names of the tensors in `trained.safetensors`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(model, Whole):
        if model.prompt is not None:
            save_prompt(model.prompt, folder / PROMPT_FOLDER)
        model = model.model
    if isinstance(model, PeftModel):
        model.save_pretrained(str(folder), save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
    tensors = _trained_in_place(model)
    if tensors:
        save_file(
            {name: tensor.detach().contiguous() for name, tensor in tensors.items()},
            folder / TRAINED,
            metadata={"format": "pt"},
        )
    return sorted(tensors)


def _trained_in_place(model: Any) -> dict[str, nn.Parameter]:
    """Return the trained parameters that PEFT does not write, by their names in the LLaVA."""
    held: set[int] = set()
    core = model
    if isinstance(model, PeftModel):
        held = {tensor.data_ptr() for tensor in get_peft_model_state_dict(model, save_embedding_layers=False).values()}
        core = model.get_base_model()
    return {name: p for name, p in core.named_parameters() if p.requires_grad and p.data_ptr() not in held}


def load_trained(model: Any, folder: Path) -> None:
    """Read back what `save_trained` wrote into a model that trains the same things.

    Raises:
        ModelError: if tensors are missing, left over or of another shape, or a file is truncated.
    """
    if isinstance(model, Whole):
        if model.prompt is not None:
            load_prompt(model.prompt, folder / PROMPT_FOLDER)
        model = model.model
    with explained(str(folder), "trained weights"):
        if isinstance(model, PeftModel):
            saved = load_peft_weights(str(folder), device="cpu")
            require_same_tensors(folder, saved, get_peft_model_state_dict(model, save_embedding_layers=False))
            set_peft_model_state_dict(model, saved)
        in_place = _trained_in_place(model)
        if in_place or (folder / TRAINED).exists():
            saved = load_file(folder / TRAINED)
            require_same_tensors(folder, saved, in_place)
            with torch.no_grad():
                for name, value in saved.items():
                    in_place[name].copy_(value)


def require_same_tensors(folder: Path, saved: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    """Refuse tensors that are missing, left over or of another shape.

    Raises:
        ModelError: naming them.
    """
    found, asked = ({name: tuple(tensor.shape) for name, tensor in side.items()} for side in (saved, expected))
    require_same(found, asked, str(folder))


def merge(adapted: Any) -> Any:
    """Fold LoRA into its layers in float32 and return the plain model.

    Raises:
        ModelError: if PEFT cannot.
    """
    adapted.to(torch.float32)
    try:
        return adapted.merge_and_unload(safe_merge=True)
    except (RuntimeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(f"PEFT cannot merge this adapter: {first_line(error)}") from error


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
