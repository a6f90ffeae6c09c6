"""LoRA on a part of a model, and the PEFT folder that holds it.

An adapter knows the rank and alpha of each of its modules, so that two trained with different settings (the tower's and
the language model's) fit one folder, which plain `PeftModel.from_pretrained` loads.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft.utils.other import get_pattern_key
from safetensors.torch import save_file
from torch import nn

from lorgnette.errors import ModelError
from lorgnette.models.conversion.names import listed, require_same, shapes_of
from lorgnette.models.conversion.weights import Tensors, read_folder

LORA_A, LORA_B, MAGNITUDE = "lora_A.weight", "lora_B.weight", "lora_magnitude_vector"
PEFT_PREFIX = "base_model.model."
"""What PEFT puts in front of every name in its files."""


@dataclass(frozen=True)
class Adapter:
    """LoRA on one part.

    Attributes:
        tensors: `{module}.lora_A.weight` (r, in), `{module}.lora_B.weight` (out, r), with DoRA
            `{module}.lora_magnitude_vector` (out).
        alphas: module -> lora_alpha; its rank is that of its matrices.
        rslora: whether the scale is alpha / sqrt(r) instead of alpha / r.
        dropout: of the training; says nothing about answers.
    """

    tensors: Tensors
    alphas: dict[str, float]
    rslora: bool = False
    dropout: float = 0.0

    @property
    def ranks(self) -> dict[str, int]:
        """Return module -> r."""
        return {module: self.tensors[f"{module}.{LORA_A}"].shape[0] for module in self.alphas}

    @property
    def dora(self) -> bool:
        """Tell whether it has magnitudes."""
        return any(name.endswith(MAGNITUDE) for name in self.tensors)


def renamed(adapter: Adapter, name: Callable[[str], str]) -> Adapter:
    """Give an adapter's modules other names."""
    tensors = {name(key): tensor for key, tensor in adapter.tensors.items()}
    return replace(adapter, tensors=tensors, alphas={name(key): alpha for key, alpha in adapter.alphas.items()})


def with_head_rows(adapter: Adapter, rows: int) -> Adapter:
    """Fit LoRA on `lm_head` to a vocabulary of another size: rows that it lacks get no change, rows beyond are cut.

    Raises:
        ModelError: if rows are lacking and it is DoRA, which has no number that means no change.
    """
    wide = {
        name: tensor
        for name, tensor in adapter.tensors.items()
        if name.startswith("lm_head.") and not name.endswith(LORA_A) and tensor.shape[0] != rows
    }
    if adapter.dora and any(tensor.shape[0] < rows for tensor in wide.values()):
        raise ModelError(f"DoRA on lm_head cannot be brought to a vocabulary of {rows} rows.")

    def fitted(value: torch.Tensor) -> torch.Tensor:
        lacking = max(rows - value.shape[0], 0)
        return torch.cat([value[:rows], value.new_zeros(lacking, *value.shape[1:])])

    changed = {name: tensor.then(fitted, (rows, *tensor.shape[1:])) for name, tensor in wide.items()}
    return replace(adapter, tensors=adapter.tensors | changed)


def read_settings(folder: Path) -> dict[str, Any]:
    """Read `adapter_config.json`.

    Raises:
        ModelError: if it is missing, no JSON, or not of LoRA.
    """
    file = folder / "adapter_config.json"
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{file}: cannot be read ({error}). Next: copy the folder anew.") from error
    if not isinstance(settings, dict) or settings.get("peft_type") != "LORA":
        raise ModelError(f"{file}: is no adapter of PEFT with peft_type LORA.")
    return settings


def read_peft(folder: Path) -> Tensors:
    """Read the tensors of a PEFT folder under the names of the model that they are for.

    Raises:
        ModelError: if tensors have other names than PEFT gives.
    """
    tensors = read_folder(folder)
    foreign = [name for name in tensors if not name.startswith(PEFT_PREFIX)]
    if foreign:
        raise ModelError(f"{folder}: {listed(foreign)} do not begin with {PEFT_PREFIX!r}, as PEFT's tensors do.")
    return {name.removeprefix(PEFT_PREFIX): tensor for name, tensor in tensors.items()}


def lora_from(tensors: Tensors, settings: Mapping[str, Any], where: str) -> Adapter:
    """Make an adapter of tensors, with or without the adapter's name `default` in them, and PEFT's settings.

    Raises:
        ModelError: naming tensors that are no LoRA or lack their other half, or settings that are not supported.
    """
    if settings.get("bias", "none") != "none":
        raise ModelError(f"{where}: LoRA with bias {settings['bias']!r} is not supported. Allowed: none.")
    if not tensors or "lora_alpha" not in settings:
        lacks = "lora_alpha in its settings" if tensors else "tensor of LoRA"
        raise ModelError(f"{where}: there is no {lacks}. Next: copy the folder anew.")
    plain = {_plain(name): tensor for name, tensor in tensors.items()}
    foreign = [name for name in plain if not name.endswith((LORA_A, LORA_B, MAGNITUDE))]
    if foreign:
        raise ModelError(f"{where}: {listed(foreign)} are neither {LORA_A} nor {LORA_B}.")
    modules = list(dict.fromkeys(name.rpartition(".lora_")[0] for name in plain))
    halves = [LORA_A, LORA_B, MAGNITUDE] if settings.get("use_dora") else [LORA_A, LORA_B]
    expected = {f"{module}.{half}" for module in modules for half in halves}
    missing, surplus = sorted(expected - set(plain)), sorted(set(plain) - expected)
    if missing or surplus:
        raise ModelError(f"{where}: missing: {listed(missing) or 'none'}; surplus: {listed(surplus) or 'none'}.")
    patterns = settings.get("alpha_pattern") or {}
    alphas = {
        module: float(patterns.get(get_pattern_key(patterns.keys(), module), settings["lora_alpha"]))
        for module in modules
    }
    return Adapter(plain, alphas, bool(settings.get("use_rslora")), float(settings.get("lora_dropout") or 0.0))


def _plain(name: str) -> str:
    if name.endswith(f"{MAGNITUDE}.weight"):
        name = name.removesuffix(".weight")
    return name.replace(".default.", ".").removesuffix(".default")


def require_fitting(
    adapter: Adapter,
    model: nn.Module,
    where: str,
    settings: Mapping[str, Any],
    full_name: Callable[[str], str] = str,
) -> None:
    """Check an adapter against its model: shapes, and that no layer that was to be trained is left out.

    Args:
        model: on the meta device is enough; its modules have the adapter's names.
        settings: PEFT's, where the adapter has them. A pattern there says which layers were trained; otherwise all of
            the kinds that the adapter has, in all layers or in `layers_to_transform`.
        full_name: a module's name here -> its name in the model that the pattern is about.

    Raises:
        ModelError: naming matrices that are missing, surplus, or of another shape.
    """
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    kinds = {module.rpartition(".")[2] for module in adapter.alphas}
    asked, layers = settings.get("target_modules"), settings.get("layers_to_transform")
    hit = [name for name in linear if re.fullmatch(asked, full_name(name))] if isinstance(asked, str) else []
    if not hit:
        hit = [name for name in linear if name.rpartition(".")[2] in kinds and _is_in(name, layers)]
    usual = Counter(adapter.ranks.values()).most_common(1)[0][0]
    expected: dict[str, tuple[int, ...]] = {}
    for name in hit:
        r = adapter.ranks.get(name, usual)
        expected[f"{name}.{LORA_A}"] = (r, linear[name].in_features)
        expected[f"{name}.{LORA_B}"] = (linear[name].out_features, r)
        if adapter.dora:
            expected[f"{name}.{MAGNITUDE}"] = (linear[name].out_features,)
    require_same(shapes_of(adapter.tensors), expected, where)


def _is_in(module: str, layers: int | list[int] | None) -> bool:
    numbers = [int(piece) for piece in module.split(".") if piece.isdecimal()]
    wanted = [layers] if isinstance(layers, int) else layers
    return wanted is None or not numbers or numbers[0] in wanted


def write_peft(
    adapters: Sequence[Adapter],
    folder: Path,
    *,
    base: str | None,
    saved: Mapping[str, Tensors] | None = None,
    task: str | None = None,
) -> None:
    """Write a PEFT folder of one or more adapters and of modules that were trained whole.

    Only fields that a setting needs are written, so that the PEFT of LLaVA's and XTuner's time reads it too.

    Args:
        adapters: with the names that their modules have in the model.
        base: folder or name of the model that it is for; PEFT shows it, and loads without it.
        saved: a module that was trained whole -> its tensors, under names within the module.
        task: PEFT's task_type, where a program asks for it.

    Raises:
        ModelError: if adapters were trained in ways that one PEFT folder cannot hold (DoRA or rsLoRA in one of them).
    """
    ways = {(adapter.rslora, adapter.dora) for adapter in adapters}
    if len(ways) > 1:
        raise ModelError(
            "the adapters differ in use_rslora or use_dora, which PEFT knows for a whole folder only. Next: convert "
            "them one by one and merge them one after another."
        )
    ranks = {module: r for adapter in adapters for module, r in adapter.ranks.items()}
    alphas = {module: _number(alpha) for adapter in adapters for module, alpha in adapter.alphas.items()}
    tensors = {name: tensor for adapter in adapters for name, tensor in adapter.tensors.items()}
    for module, own in (saved or {}).items():
        tensors |= {f"{module}.{name}": tensor for name, tensor in own.items()}
    r, alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, alphas))
    rslora, dora = ways.pop()
    settings: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": task,
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": r,
        "lora_alpha": alpha,
        "lora_dropout": max(adapter.dropout for adapter in adapters),
        "target_modules": "|".join(patterns(ranks)),
        "modules_to_save": [module.rpartition(".")[2] for module in saved or ()] or None,
        "bias": "none",
        "fan_in_fan_out": False,
    }
    unusual: dict[str, Any] = {
        "rank_pattern": _unusual(ranks, r),
        "alpha_pattern": _unusual(alphas, alpha),
        "use_rslora": rslora,
        "use_dora": dora,
    }
    settings |= {name: value for name, value in unusual.items() if value}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(settings, indent=2, ensure_ascii=False), encoding="utf-8")
    read = {f"{PEFT_PREFIX}{name}": tensor.read().clone() for name, tensor in tensors.items()}
    save_file(read, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def patterns(names: Iterable[str]) -> list[str]:
    """Return regular expressions that match exactly these names; those that differ in the layer's number share one."""
    numbers: dict[tuple[str, str], list[str]] = {}
    for name in names:
        start, number, end = re.fullmatch(r"(\D*)(\d*)(.*)", name).groups()  # type: ignore[union-attr]
        numbers.setdefault((start, end), []).append(number)
    return [
        f"{re.escape(start)}({'|'.join(found)}){re.escape(end)}" if found != [""] else re.escape(start + end)
        for (start, end), found in numbers.items()
    ]


def _unusual(values: Mapping[str, Any], usual: float) -> dict[str, Any]:
    by_value: dict[Any, list[str]] = {}
    for name, value in values.items():
        if value != usual:
            by_value.setdefault(value, []).append(name)
    # anchored: PEFT would match an expression at the end of a longer name too
    return {f"^{pattern}": value for value, names in by_value.items() for pattern in patterns(names)}


def _number(value: float) -> float | int:
    return int(value) if value == int(value) else value
