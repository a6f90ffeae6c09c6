"""What trains: parts of a LLaVA, their mode and learning rate, and the table that says so before step 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import nn

from lorgnette.errors import GradientError

Mode = Literal["frozen", "lora", "full"]
PARTS: Mapping[str, str] = {
    "vision_tower": "model.vision_tower.",
    "projector": "model.multi_modal_projector.",
    "language_model": "model.language_model.",
}
"""Part -> where its modules stand in `LlavaForConditionalGeneration`; the untied head counts as language model."""


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
    for part, prefix in PARTS.items():
        if prefix in f"{name}.":
            return part
    return "language_model"


def freeze_all_but(model: nn.Module, modes: Mapping[str, Mode]) -> None:
    """Set `requires_grad` of every parameter by its part: only `full` parts train (LoRA adds its own matrices)."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(modes[part_of(name)] == "full")


def master_weights(model: nn.Module) -> None:
    """Bring every trained parameter to float32: small updates vanish in bfloat16 (8 bits of mantissa)."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)


def parts_table(model: nn.Module, modes: Mapping[str, Mode], rates: Mapping[str, float]) -> list[Part]:
    """Count parameters by part. A tied head counts once, with the embeddings."""
    total = dict.fromkeys(PARTS, 0)
    trainable = dict.fromkeys(PARTS, 0)
    for name, parameter in model.named_parameters():
        if ".original_module." in name:  # PEFT keeps the untrained projector beside its trained copy
            continue
        total[part_of(name)] += parameter.numel()
        trainable[part_of(name)] += parameter.numel() if parameter.requires_grad else 0
    return [
        Part(part, modes[part], total[part], trainable[part], rates[part] if trainable[part] else None)
        for part in PARTS
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
