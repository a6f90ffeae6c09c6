"""What trains: parts of a LLaVA, their mode and learning rate, and the table that says so before step 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import nn

from lorgnette.errors import GradientError, ModelError
from lorgnette.models.forward import tower_features

Mode = Literal["frozen", "lora", "full"]
PARTS: Mapping[str, str] = {
    "vision_tower": "model.vision_tower.",
    "projector": "model.multi_modal_projector.",
    "language_model": "model.language_model.",
}
"""Part -> where its modules stand in `LlavaForConditionalGeneration`; the untied head counts as language model."""
SOFT_PROMPT = "soft_prompt"
"""The part that stands in front of every sample, where there is one."""


@dataclass(frozen=True, slots=True)
class Part:
    """One line of the table of parts; `learning_rate` is None where nothing trains."""

    part: str
    mode: Mode
    parameters: int
    trainable: int
    learning_rate: float | None

    def row(self) -> dict[str, Any]:
        """Return the line as plain values."""
        return asdict(self)


def part_of(name: str) -> str:
    """Return the part that a parameter belongs to, whatever PEFT put in front of its name or into it."""
    if name.startswith("prompt."):
        return SOFT_PROMPT
    for part, prefix in PARTS.items():
        if prefix in f"{name}.":
            return part
    return "language_model"


def freeze_all_but(model: nn.Module, modes: Mapping[str, Mode], tower: frozenset[str] | None = None) -> None:
    """Set `requires_grad` of every parameter by its part: only `full` parts train (LoRA adds its own matrices).

    Args:
        tower: of the vision tower's parameters only these, by name; None for all of them.
    """
    for name, parameter in model.named_parameters():
        part = part_of(name)
        inside = part != "vision_tower" or tower is None or name in tower
        parameter.requires_grad_(modes[part] == "full" and inside)


def tower_parameters_that_learn(
    model: Any, image_size: tuple[int, int], last_layers: int | None = None
) -> frozenset[str]:
    """Name the vision tower's parameters that the projected features depend on.

    What comes after the projected layer (the last layer of CLIP where -2 is projected, a final norm, a pooling head)
    never gets a gradient. This is found by differentiating one blank image, not by names of layers.

    Args:
        model: a `LlavaForConditionalGeneration`; its `requires_grad` is as before afterwards.
        image_size: (height, width) of its images.
        last_layers: only the last so many of the layers that learn; None for everything that does.

    Raises:
        ModelError: if the tower has fewer layers.
    """
    tower = model.model.vision_tower
    named = [(name, p) for name, p in model.named_parameters() if part_of(name) == "vision_tower"]
    before = [parameter.requires_grad for _, parameter in named]
    first = named[0][1]
    blank = torch.zeros(1, 3, *image_size, dtype=first.dtype, device=first.device)
    try:
        for _, parameter in named:
            parameter.requires_grad_(True)
        features = tower_features(model, blank)
        gradients = torch.autograd.grad(features.sum(), [p for _, p in named], allow_unused=True)
    finally:
        for (_, parameter), required in zip(named, before, strict=True):
            parameter.requires_grad_(required)
    reached = [name for (name, _), gradient in zip(named, gradients, strict=True) if gradient is not None]
    if last_layers is None:
        return frozenset(reached)
    path, layers = max(
        ((name, module) for name, module in tower.named_modules() if isinstance(module, nn.ModuleList)),
        key=lambda found: len(found[1]),
    )
    inside = f"{PARTS['vision_tower']}{path}."
    numbers = sorted({int(name.removeprefix(inside).split(".")[0]) for name in reached if name.startswith(inside)})
    if last_layers > len(numbers):
        raise ModelError(
            f"train.last_layers: {last_layers}. Allowed: at most {len(numbers)}, the layers of the vision tower up to "
            f"the projected one ({len(layers)} in all)."
        )
    chosen = tuple(f"{inside}{number}." for number in numbers[-last_layers:])
    return frozenset(name for name in reached if name.startswith(chosen))


def master_weights(model: nn.Module) -> None:
    """Bring every trained parameter to float32: small updates vanish in bfloat16 (8 bits of mantissa)."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)


def parts_table(model: nn.Module, modes: Mapping[str, Mode], rates: Mapping[str, float]) -> list[Part]:
    """Count parameters by part. A tied head counts once, with the embeddings; two weights in 4 bits are two."""
    linear = {id(m.weight): m.in_features * m.out_features for m in model.modules() if isinstance(m, nn.Linear)}
    total = dict.fromkeys(modes, 0)
    trainable = dict.fromkeys(modes, 0)
    for name, parameter in model.named_parameters():
        if ".original_module." in name:  # PEFT keeps the untrained projector beside its trained copy
            continue
        total[part_of(name)] += linear.get(id(parameter), parameter.numel())  # 4 bits are packed two in a byte
        trainable[part_of(name)] += parameter.numel() if parameter.requires_grad else 0
    return [
        Part(part, modes[part], total[part], trainable[part], rates[part] if trainable[part] else None)
        for part in modes
    ]


def parameter_groups(
    model: nn.Module, rates: Mapping[str, float], weight_decay: float, decayed: frozenset[str]
) -> list[dict[str, Any]]:
    """Group trained parameters by part and by whether weight decay applies, each with its part's learning rate."""
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((part_of(name), name in decayed), []).append(parameter)
    return [
        {"params": members, "lr": rates[part], "weight_decay": weight_decay if decays else 0.0, "part": part}
        for (part, decays), members in groups.items()
    ]


def require_gradients(model: nn.Module, modes: Mapping[str, Mode]) -> None:
    """Check after the first backward pass that every part that should learn got a gradient.

    Raises:
        GradientError: naming the parts that did not.
    """
    learning = {part: False for part, mode in modes.items() if mode != "frozen"}
    for name, parameter in model.named_parameters():
        part = part_of(name)
        if part in learning and not learning[part] and parameter.grad is not None:
            learning[part] = bool(parameter.grad.count_nonzero())
    silent = [part for part, learns in learning.items() if not learns]
    if silent:
        raise GradientError(
            f"after step 1 no gradient reached: {', '.join(silent)}. The recipe trains "
            f"{', '.join(learning)}. Next: check the data (does a sample hold an image and an answer?) and `train:`."
        )
