"""The linear layers that get LoRA, by their full paths.

PEFT matches names by their ends in the whole model, so `q_proj` alone would also hit the vision tower.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from lorgnette.errors import ModelError, nearest
from lorgnette.models.trainable import Mode, part_of

OF_TARGETS = ("target_modules", "layers_to_transform", "layers_pattern")
"""Settings of LoRA that say where it goes."""


def lora_targets(
    model: nn.Module, modes: Mapping[str, Mode], settings: Mapping[str, Any], tower: frozenset[str] | None = None
) -> list[str]:
    """Return the full paths of the linear layers that get LoRA.

    PEFT matches names by their ends in the whole model, so `q_proj` alone would also hit the vision tower. It forgets
    `layers_to_transform` where it is given full paths; so that is done here, too.

    Args:
        settings: `target_modules` are ends of names, as in PEFT; or one regular expression over full paths; or
            "all-linear", which leaves out the head as PEFT does. Of these only those in `layers_to_transform`.

    Raises:
        ModelError: if a name matches no linear layer of the parts that get LoRA, such a part gets none, or a target
            could not be merged.
    """
    asked = settings.get("target_modules", "all-linear")
    head = model.get_output_embeddings()  # type: ignore[operator]
    linear: dict[str, list[str]] = {part: [] for part, mode in modes.items() if mode == "lora"}
    for name, module in model.named_modules():
        inside = module is not head or asked != "all-linear"
        learns = tower is None or part_of(name) != "vision_tower" or f"{name}.weight" in tower
        if isinstance(module, nn.Linear) and inside and part_of(name) in linear and learns:
            linear[part_of(name)].append(name)
    if asked != "all-linear":
        _require_matches(linear, asked)
        linear = _chosen(linear, asked)
    if head is not None and any(model.get_submodule(name) is head for name in linear.get("language_model", [])):
        embedding = model.get_input_embeddings()  # type: ignore[operator]
        if head.weight is embedding.weight:
            raise ModelError(
                "lora.target_modules: the head is tied to the embeddings; LoRA on it cannot be merged. Next: leave the "
                "head out."
            )
    layers, pattern = settings.get("layers_to_transform"), settings.get("layers_pattern")
    if layers is None and pattern:
        raise ModelError("lora.layers_pattern: is given without layers_to_transform. Next: give both, or neither.")
    if layers is not None:
        linear = _in_layers(linear, layers, pattern)
    targets = [name for names in linear.values() for name in names]
    unbiased = [name for name in targets if model.get_submodule(name).bias is None]
    if settings.get("lora_bias") and unbiased:
        raise ModelError(
            f"lora.lora_bias: {len(unbiased)} of the {len(targets)} targets have no bias that it could be merged into, "
            f"such as {unbiased[0]}. Next: leave lora_bias out, or these layers."
        )
    return targets


def _require_matches(linear: Mapping[str, list[str]], asked: str | list[str]) -> None:
    """Check that every target that is asked for is there."""
    everything = [name for names in linear.values() for name in names]
    known = sorted({name.rpartition(".")[2] for name in everything})
    if isinstance(asked, str):
        try:
            found = any(_matches(name, asked) for name in everything)
        except re.error as error:
            raise ModelError(f"lora.target_modules: '{asked}' is no regular expression ({error}).") from error
        if not found:
            raise ModelError(
                f"lora.target_modules: the expression '{asked}' matches no full path, such as {everything[0]}. Ends of "
                f"names are given as a list: [{(nearest(asked, known) and asked) or known[0]}]."
            )
    for each in () if isinstance(asked, str) else asked:
        if not any(_matches(name, [each]) for name in everything):
            raise ModelError(
                f"lora.target_modules: no linear layer of {' and '.join(linear)} is called '{each}'. Allowed: "
                f"{', '.join(known)}.{nearest(each, known)}"
            )


def _chosen(linear: Mapping[str, list[str]], asked: str | list[str]) -> dict[str, list[str]]:
    """Keep the targets that are asked for; every part must have some."""
    chosen = {part: [name for name in names if _matches(name, asked)] for part, names in linear.items()}
    for part, names in chosen.items():
        if not names:
            own = sorted({name.rpartition(".")[2] for name in linear[part]})
            raise ModelError(
                f"lora.target_modules: none of them is in {part}. It has: {', '.join(own)}. Next: name one of these "
                "too."
            )
    return chosen


def _in_layers(
    linear: Mapping[str, list[str]], layers: int | list[int], pattern: str | list[str] | None
) -> dict[str, list[str]]:
    """Keep the targets in layers of these numbers; every part must have some, and every number must be there."""
    wanted = {layers} if isinstance(layers, int) else set(layers)
    lists = [pattern] if isinstance(pattern, str) else pattern or [r"[^.]*"]
    try:
        number = re.compile(rf"(?:.*?\.)?(?:{'|'.join(lists)})\.(\d+)\.")
    except re.error as error:
        raise ModelError(f"lora.layers_pattern: {', '.join(lists)} is no regular expression ({error}).") from error
    placed = {part: [(int(f[1]), n) for n in names if (f := number.match(n))] for part, names in linear.items()}
    for part, found in placed.items():
        there = {layer for layer, _ in found}
        if not wanted <= there:
            raise ModelError(
                f"lora.layers_to_transform: {sorted(wanted - there)} in {part}. Allowed: "
                f"{', '.join(map(str, sorted(there))) or 'none, its targets are in no numbered layer'}."
            )
    return {part: [name for layer, name in found if layer in wanted] for part, found in placed.items()}


def _matches(name: str, asked: str | list[str]) -> bool:
    if isinstance(asked, str):
        return re.fullmatch(asked, name) is not None
    return any(name == each or name.endswith(f".{each}") for each in asked)
