"""A base with what was trained on it, not merged: LoRA, a projector, tensors trained in place, a soft prompt.

What a stage leaves says inside which base it belongs to, how that was quantized and which template it answers with.
Merging, measuring and looking at it go by that, so that none of them can differ from the training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import (
    PeftConfig,
    get_peft_model,
    get_peft_model_state_dict,
    load_peft_weights,
    set_peft_model_state_dict,
)
from pydantic import BaseModel, ValidationError
from safetensors import safe_open
from safetensors.torch import load_file

from lorgnette.errors import InputError, ModelError, typed
from lorgnette.models.adapters import TRAINED, require_same_tensors
from lorgnette.models.fingerprint import fingerprint
from lorgnette.models.gemma import NEW, image_feature_scale, side_of
from lorgnette.models.learner import Learner, load_model
from lorgnette.models.loading import DTYPES, explained
from lorgnette.models.soft_prompt import PROMPT_FOLDER, read_prompt
from lorgnette.models.trainable import SOFT_PROMPT, Mode, Part, freeze_all_but, part_of, parts_table
from lorgnette.recipe.model import Quantization
from lorgnette.run import RECORD, read_json, read_record

SETTINGS = "adapter_config.json"
HOLDS = (SETTINGS, TRAINED, PROMPT_FOLDER)
"""What a folder may hold of something trained on a base; at least one of them."""


def is_adapted(source: str) -> bool:
    """Tell whether a folder holds what was trained on a model, and not a model."""
    folder = Path(source)
    return not (folder / "config.json").exists() and any((folder / name).exists() for name in HOLDS)


def load_model_or_adapter(source: str) -> Learner:
    """Load a model, or what a stage left together with its base, as it was trained: same 4 bits, dtype and template.

    Raises:
        InputError: if its base is not the one that it was trained on.
        ModelError: if it cannot be loaded, or does not say what it was trained on.
    """
    if not is_adapted(source):
        return load_model(source)
    folder = Path(source)
    record = record_of(folder)
    base = base_of(folder, record)
    dtype = DTYPES.get(str(record.get("dtype")), "auto")
    return with_adapter(load_model(base, dtype, None, record.get("quantization")), folder, record)


class Record(BaseModel):
    """What lorgnette.json must be like where it decides how something trained is put onto its base."""

    base: str | None = None
    base_fingerprint: str | None = None
    dtype: str | None = None
    modes: dict[str, Mode] = {}
    in_place: list[str] | None = None
    chat_template: str | None = None
    quantization: Quantization | None = None


def record_of(folder: Path) -> dict[str, Any]:
    """Read what a folder with something trained says of itself, empty if it says nothing.

    Raises:
        InputError: if its record is not one that training writes.
    """
    record = read_record(folder)
    try:
        Record.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ModelError(
            f"{folder / RECORD}, {where}: {first['msg']}. Got: {first['input']!r:.80}. Next: copy the folder anew from "
            "where it was trained."
        ) from error
    return record


def base_of(folder: Path, record: Mapping[str, Any]) -> str:
    """Return the base that a folder names, after checking that it is still the one.

    Where the name leads nowhere (a run that was moved, or started from another folder), the base is looked for in the
    run itself and known by its fingerprint.

    Raises:
        ModelError: if it names none.
    """
    named = record.get("base")
    if named is None and (folder / SETTINGS).is_file():
        named = read_json(folder / SETTINGS).get("base_model_name_or_path")
    if not isinstance(named, str):
        raise ModelError(
            f"{folder}: is an adapter that does not say what it was trained on. Next: lorgnette model merge BASE "
            f"{typed(folder)} --output MERGED"
        )
    if not Path(named).exists():
        for parent in list(folder.resolve().parents)[:3]:
            near = parent / Path(named).name
            if near.is_dir() and fingerprint(near) == record.get("base_fingerprint"):
                return str(near)
    require_base(folder, record, named)
    return named


def require_base(folder: Path, record: Mapping[str, Any], base: str) -> None:
    """Check that a base is the one that something was trained on, if that says so.

    Raises:
        InputError: if it is not.
    """
    trained_on = record.get("base_fingerprint")
    if trained_on is not None and trained_on != fingerprint(base):
        raise InputError(
            f"{folder}: was trained on {record.get('base')} ({trained_on[:19]}...), which {base} "
            f"({fingerprint(base)[:19]}...) is not. Next: give the base that it was trained on."
        )


def with_adapter(learner: Learner, folder: Path, record: Mapping[str, Any]) -> Learner:
    """Put what a folder holds onto its base: LoRA and projector, tensors trained in place, a soft prompt, a template.

    Raises:
        ModelError: if it holds nothing, is broken, or does not fit the base.
    """
    found = [name for name in HOLDS if (folder / name).exists()]
    if not found:
        raise ModelError(f"{folder}: holds no adapter. Allowed: a PEFT folder, or `trained/` of a stage.")
    _require_complete(folder, record)
    if TRAINED in found:
        _copy_in_place(learner, folder, record)
    if SETTINGS in found:
        with explained(str(folder), "adapter"):
            saved = load_peft_weights(str(folder), "cpu")
            _require_side(learner, folder, record, saved)
            adapted = get_peft_model(learner.core, _settings(folder))
            require_same_tensors(folder, saved, get_peft_model_state_dict(adapted, save_embedding_layers=False))
            set_peft_model_state_dict(adapted, saved)
        learner = replace(learner, model=adapted.requires_grad_(False).eval())
    if PROMPT_FOLDER in found:
        learner = replace(learner, soft_prompt=read_prompt(learner.core, folder / PROMPT_FOLDER))
    template = record.get("chat_template")
    if template is not None:
        learner.use_template(template)
    return learner


def _require_complete(folder: Path, record: Mapping[str, Any]) -> None:
    """Refuse a folder that lacks a file of what its record says was trained.

    Raises:
        ModelError: naming the parts and the files.
    """
    modes = record.get("modes", {})
    lora = [part for part, mode in modes.items() if mode == "lora"]
    # PEFT's folder holds the projector, and nothing else that was trained in full
    beside = [part for part, mode in modes.items() if mode == "full" and part != SOFT_PROMPT]
    beside = [part for part in beside if not lora or part != "projector"]
    needed = ((SETTINGS, lora), (TRAINED, beside), (PROMPT_FOLDER, [part for part in modes if part == SOFT_PROMPT]))
    lacking = [f"{name} ({', '.join(parts)})" for name, parts in needed if parts and not (folder / name).exists()]
    if lacking:
        raise ModelError(
            f"{folder}: lacks {' and '.join(lacking)} of what was trained. Next: copy the whole folder from where it "
            "was trained."
        )


def _settings(folder: Path) -> Any:
    """Read PEFT's settings for a model that is there already."""
    config: Any = PeftConfig.from_pretrained(str(folder))
    config.inference_mode = False
    config.base_model_name_or_path = None  # another spelling of it would be a warning
    return config


def _copy_in_place(learner: Learner, folder: Path, record: Mapping[str, Any]) -> None:
    with explained(str(folder), "trained weights"):
        tensors = load_file(folder / TRAINED)
    _require_side(learner, folder, record, tensors)
    activation, own = record.get("activation"), learner.core.config.to_dict().get("projector_hidden_act")
    if activation not in (None, own):
        raise ModelError(
            f"{folder}: its projector has the activation {activation!r}, that of {learner.source} has {own!r}. Next: "
            f"init_projector: {folder} in a stage of a recipe, which changes both."
        )
    parameters = dict(learner.core.named_parameters())
    names = set(record.get("in_place") or tensors)
    require_same_tensors(folder, tensors, {name: p for name, p in parameters.items() if name in names})
    with torch.no_grad():
        for name, value in tensors.items():
            parameters[name].copy_(value)


def _require_side(learner: Learner, folder: Path, record: Mapping[str, Any], tensors: Mapping[str, Any]) -> None:
    """Refuse a Gemma's projector that is not known to be meant for transformers from 5.4 on; see `gemma.py`."""
    if not any("multi_modal_projector" in name for name in tensors):
        return
    scaled = image_feature_scale(learner.core.config.text_config) != 1.0
    if scaled and side_of(record, str(folder)) is not False:
        raise ModelError(
            f"{folder}: holds a projector for a Gemma that is not known to be meant for {NEW}; older versions scaled "
            f"image features in another way. Next: lorgnette model convert {typed(folder)} OUTPUT --to hf --base BASE"
        )


def outline_adapted(source: str) -> tuple[Learner, list[Part]]:
    """Put what was trained onto the shapes of its base, on the meta device: (model, table of parts).

    Raises:
        ModelError: if its base cannot be read, or it does not fit it.
    """
    folder = Path(source)
    record = record_of(folder)
    learner = load_model(base_of(folder, record), meta=True)
    frozen: dict[str, Mode] = dict.fromkeys(learner.parts, "frozen")
    freeze_all_but(learner.core, frozen)
    if (folder / TRAINED).exists():
        with explained(source, "trained weights"), safe_open(folder / TRAINED, framework="pt") as file:
            inside = set(file.keys())
        for name, parameter in learner.core.named_parameters():
            parameter.requires_grad_(name in inside)
    if (folder / SETTINGS).exists():
        with explained(source, "adapter"), torch.device("meta"):
            config = _settings(folder)
            config.init_lora_weights = True  # shapes need no values
            trained = {name for name, p in learner.core.named_parameters() if p.requires_grad}
            learner = replace(learner, model=get_peft_model(learner.core, config))
        for name, parameter in learner.core.named_parameters():
            parameter.requires_grad_(parameter.requires_grad or name in trained)
    if (folder / PROMPT_FOLDER).exists():
        learner = replace(learner, soft_prompt=read_prompt(learner.core, folder / PROMPT_FOLDER).requires_grad_(True))
        frozen[SOFT_PROMPT] = "full"
    modes = dict(frozen)
    for name, parameter in learner.module.named_parameters():
        if parameter.requires_grad and modes[part_of(name)] != "lora":
            modes[part_of(name)] = "lora" if ".lora_" in name else "full"
    learner = replace(learner, source=source)
    return learner, parts_table(learner.module, modes, dict.fromkeys(modes, 0.0))
