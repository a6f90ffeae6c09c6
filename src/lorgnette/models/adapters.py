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
from lorgnette.models.conversion.names import require_same
from lorgnette.models.loading import explained
from lorgnette.models.soft_prompt import PROMPT_FOLDER, Whole, load_prompt, save_prompt
from lorgnette.models.trainable import Mode, master_weights, part_of

PROJECTOR = "multi_modal_projector"
TRAINED = "trained.safetensors"


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
        settings: fields of `peft.LoraConfig`; `target_modules` as in `lora_targets`.
        tower: names of the vision tower's parameters that learn, see `tower_parameters_that_learn`; None for all.
        keep_projector: a stage before trained the projector, so that it belongs in the folder also where it is frozen.

    Raises:
        ModelError: if a target matches nothing, or PEFT refuses the settings.
    """
    wanted = dict(settings)
    targets = lora_targets(model, modes, wanted.pop("target_modules", "all-linear"), tower)
    mode = modes.get("projector", "frozen")
    projector = mode == "full" or (keep_projector and mode == "frozen")
    beside = dict(modes) | {"projector": "frozen"}
    try:
        config = LoraConfig(target_modules=targets, modules_to_save=[PROJECTOR] if projector else None, **wanted)
        adapted = get_peft_model(model, config)
    except (ValueError, TypeError, RuntimeError, ImportError, AttributeError) as error:
        raise ModelError(f"lora: PEFT refuses these settings: {error}") from error
    core = adapted.get_base_model()
    for name, parameter in core.named_parameters():
        if beside[part_of(name)] == "full" and (tower is None or part_of(name) != "vision_tower" or name in tower):
            parameter.requires_grad_(True)
        elif part_of(name) == "projector" and mode == "frozen":
            parameter.requires_grad_(False)
    master_weights(adapted)
    return adapted


def lora_targets(
    model: nn.Module, modes: Mapping[str, Mode], asked: str | list[str], tower: frozenset[str] | None = None
) -> list[str]:
    """Return the full paths of the linear layers that get LoRA.

    PEFT matches names by their ends in the whole model, so `q_proj` alone would also hit the vision tower.

    Args:
        asked: ends of names, as in PEFT; or one regular expression over full paths; or "all-linear", which leaves out
            the head as PEFT does.

    Raises:
        ModelError: if a name matches no linear layer of the parts that get LoRA, or such a part gets none.
    """
    head = model.get_output_embeddings()  # type: ignore[operator]
    linear: dict[str, list[str]] = {part: [] for part, mode in modes.items() if mode == "lora"}
    for name, module in model.named_modules():
        inside = module is not head or asked != "all-linear"
        learns = tower is None or part_of(name) != "vision_tower" or f"{name}.weight" in tower
        if isinstance(module, nn.Linear) and inside and part_of(name) in linear and learns:
            linear[part_of(name)].append(name)
    everything = [name for names in linear.values() for name in names]
    if asked == "all-linear":
        return everything
    known = sorted({name.rpartition(".")[2] for name in everything})
    for each in () if isinstance(asked, str) else asked:
        if not any(_matches(name, [each]) for name in everything):
            raise ModelError(
                f"lora.target_modules: no linear layer of {' and '.join(linear)} is called '{each}'. Allowed: "
                f"{', '.join(known)}.{nearest(each, known)}"
            )
    if isinstance(asked, str) and not any(_matches(name, asked) for name in everything):
        raise ModelError(
            f"lora.target_modules: the expression '{asked}' matches no full path, such as {everything[0]}. Ends of "
            f"names are given as a list: [{(nearest(asked, known) and asked) or known[0]}]."
        )
    chosen = {part: [name for name in names if _matches(name, asked)] for part, names in linear.items()}
    for part, names in chosen.items():
        if not names:
            own = sorted({name.rpartition(".")[2] for name in linear[part]})
            raise ModelError(f"lora.target_modules: none of them is in {part}. It has: {', '.join(own)}.")
    if head is not None and any(model.get_submodule(name) is head for name in chosen.get("language_model", [])):
        embedding = model.get_input_embeddings()  # type: ignore[operator]
        if head.weight is embedding.weight:
            raise ModelError("lora.target_modules: the head is tied to the embeddings; LoRA on it cannot be merged.")
    return [name for names in chosen.values() for name in names]


def _matches(name: str, asked: str | list[str]) -> bool:
    if isinstance(asked, str):
        return re.fullmatch(asked, name) is not None
    return any(name == each or name.endswith(f".{each}") for each in asked)


def save_trained(model: Any, folder: Path) -> None:
    """Write what was trained.

    With LoRA a PEFT folder, and `trained.safetensors` beside it for parts other than the projector that were trained in
    full; without LoRA only that file; a soft prompt as a PEFT folder of its own in `prompt/`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(model, Whole):
        if model.prompt is not None:
            save_prompt(model.prompt, folder / PROMPT_FOLDER)
        model = model.model
    if isinstance(model, PeftModel):
        model.save_pretrained(str(folder), save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
    if tensors := _trained_in_place(model):
        save_file(
            {name: tensor.detach().contiguous() for name, tensor in tensors.items()},
            folder / TRAINED,
            metadata={"format": "pt"},
        )


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
    found, wanted = ({name: tuple(t.shape) for name, t in side.items()} for side in (saved, expected))
    require_same(found, wanted, str(folder))


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
