"""Adapters on one base: each merged and checked by itself, then what each changes of the base added up.

A change is taken from the base and never from what stands there already: DoRA and PiSSA would compute another one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer

from lorgnette.errors import InputError, ModelError
from lorgnette.models.adapted import record_of, require_base, with_adapter
from lorgnette.models.adapters import TOLERANCES, merge, require_equal_logits
from lorgnette.models.learner import Learner, load_model
from lorgnette.models.loading import DTYPES
from lorgnette.models.quantization import take_dequantized

Logits = Callable[[Learner], torch.Tensor]


def merged(base: str, adapter: Path, logits: Logits) -> tuple[Learner, torch.Tensor, frozenset[str]]:
    """Merge one adapter into its base in float32, and check that logits stay.

    Returns:
        the merged model, the logits of base + adapter, and the names of the weights that have LoRA.

    Raises:
        InputError: if the base is not the one that it was trained on.
        ModelError: if it cannot be read, does not fit, or holds numbers that are not finite.
        RunError: if the logits differ by more than rounding explains.
    """
    record = record_of(adapter)
    require_base(adapter, record, base)
    learner = with_adapter(_origin(base, record), adapter, record)
    require_finite(learner, f"{base} + {adapter}")
    before = logits(learner)
    adapted = frozenset(f"{name}.weight" for name, part in learner.core.named_modules() if isinstance(part, LoraLayer))
    if learner.model is not learner.core:
        learner = learner.merged(merge(learner.model))
    require_equal_logits(before, logits(learner), TOLERANCES["float32"])
    return learner, before, adapted


@torch.no_grad()
def added(base: str, adapters: Sequence[Path], logits: Logits) -> Learner:
    """Merge several adapters into one base: the base and the sum of what each of them changes of it.

    Three models are in memory.

    Raises:
        InputError: if two of them stand on different weights, or a sum of what they hold has no meaning.
        ModelError, RunError: as `merged`.
    """
    records = [record_of(adapter) for adapter in adapters]
    for adapter, record in zip(adapters[1:], records[1:], strict=True):
        _require_same_origin(adapter, record, adapters[0], records[0])
    origin = dict(_origin(base, records[0]).core.named_parameters())
    learner, _, summable = merged(base, adapters[0], logits)
    result = dict(learner.core.named_parameters())
    changed = {name for name, value in result.items() if not torch.equal(value, origin[name])}
    for adapter in adapters[1:]:
        other, _, own = merged(base, adapter, logits)
        for name, value in other.core.named_parameters():
            if torch.equal(value, origin[name]):
                continue
            if name not in changed:
                result[name].copy_(value)
            elif name in summable and name in own:
                result[name].add_(value - origin[name])
            elif not torch.equal(value, result[name]):  # two may bring along one projector, trained before them
                raise _no_sum(adapter, name)
            changed.add(name)
        summable |= own
        if other.soft_prompt is not None:
            if learner.soft_prompt is not None:
                raise _no_sum(adapter, "the soft prompt")
            learner = replace(learner, soft_prompt=other.soft_prompt)
    template = next((text for record in records if (text := record.get("chat_template"))), None)
    if template is not None:
        learner.use_template(template)
    return learner


def require_finite(learner: Learner, where: str) -> None:
    """Refuse weights that are not finite.

    Raises:
        ModelError: naming the first tensor that holds one.
    """
    for name, value in learner.module.named_parameters():
        if not bool(value.isfinite().all()):
            raise ModelError(
                f"{where}: {name} holds numbers that are not finite. Next: copy the folder anew, it is damaged or of a "
                "failed training."
            )


def _origin(base: str, record: Mapping[str, Any]) -> Learner:
    """Load what an adapter stands on, in float32: its base, or in 4 bits the weights that it computed with."""
    learner = load_model(base, torch.float32)
    if record.get("quantization") is not None:
        held = DTYPES.get(str(record.get("dtype")), torch.float32)
        take_dequantized(learner.core, load_model(base, held, None, record["quantization"]).core)
    return learner


def _require_same_origin(adapter: Path, record: Mapping[str, Any], first: Path, of_first: Mapping[str, Any]) -> None:
    """Refuse an adapter that was trained on other weights than the first one, or answers with another template."""
    for name, here, there in (
        ("quantization", record.get("quantization"), of_first.get("quantization")),
        (
            "dtype of the quantized base",
            *(each.get("quantization") and each.get("dtype") for each in (record, of_first)),
        ),
        ("chat template", *_known(record.get("chat_template"), of_first.get("chat_template"))),
    ):
        if here != there:
            raise InputError(
                f"{adapter} and {first} were trained with another {name}: {here!r:.100} and {there!r:.100}, so that no "
                "model is both. Next: merge one of them alone."
            )


def _known(here: str | None, there: str | None) -> tuple[str | None, str | None]:
    """Return two templates to compare; a folder that says nothing of its template goes with any."""
    return (here, there) if here and there else (None, None)


def _no_sum(adapter: Path, name: str) -> InputError:
    return InputError(
        f"{adapter}: changes {name}, as an adapter before it does, and at least one of the two holds it whole, not as "
        "LoRA: they have no sum. Next: merge one of them alone."
    )
