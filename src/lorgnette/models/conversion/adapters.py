"""Adapters between the layouts: PEFT on Hugging Face's LLaVA, the original's LoRA folder, XTuner's export.

Nothing is merged here: an adapter stays an adapter, with the names that the modules of its base have.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoModelForCausalLM, LlavaForConditionalGeneration, PreTrainedConfig

from lorgnette.errors import ModelError
from lorgnette.models.conversion import internlm2, llava, llava_writing, xtuner
from lorgnette.models.conversion.detect import Found
from lorgnette.models.conversion.huggingface import (
    FILES,
    NESTED,
    WRITTEN,
    local_folder,
    nested,
    projector_of,
    projector_tensors,
    read_whole,
    two_layers,
)
from lorgnette.models.conversion.lora import (
    Adapter,
    lora_from,
    read_lora_settings,
    read_peft,
    renamed,
    require_fitting,
    with_head_rows,
    write_peft,
)
from lorgnette.models.conversion.names import require_same, shapes_of, split
from lorgnette.models.conversion.parts import Parts, Projector, folded
from lorgnette.models.conversion.vocabulary import original_rows
from lorgnette.models.conversion.weights import Tensors
from lorgnette.models.fingerprint import fingerprint
from lorgnette.models.gemma import NEW, OLD, image_feature_scale, side_of
from lorgnette.models.loading import explained, load_config
from lorgnette.models.saving import NESTED_TOWERS
from lorgnette.models.trainable import PARTS
from lorgnette.run import RECORD, library_versions, read_json_object, read_record, whole_folder, write_json

LANGUAGE_MODEL, TOWER, PROJECTOR = PARTS["language_model"], PARTS["vision_tower"], PARTS["projector"].removesuffix(".")
OLD_NAMES = tuple(WRITTEN)
"""Beginnings of names of adapters that were trained with transformers before 4.52."""


@dataclass(frozen=True)
class Base:
    """The model that an adapter is for, as far as its config.json tells.

    Attributes:
        llava: `LlavaConfig`, or None where the base is a language model.
        text: configuration of the language model, in Llama's terms if it is InternLM2.
    """

    source: str | None
    llava: Any
    text: Any


def read_adapter(folder: Path) -> Parts:
    """Read a PEFT folder for a language model or for a vision tower alone."""
    tensors, settings = read_peft(folder), read_lora_settings(folder)
    adapter = lora_from(tensors, settings, str(folder))
    return Parts(None, adapter) if xtuner.is_of_tower(tensors) else Parts(adapter)


def read_hf_adapter(folder: Path) -> Parts:
    """Read a PEFT folder for Hugging Face's LLaVA, trained with transformers 4 or 5.

    Raises:
        ModelError: if tensors belong nowhere.
    """
    tensors, settings = read_peft(folder), read_lora_settings(folder)
    lora = {name: tensor for name, tensor in tensors.items() if ".lora_" in name}
    # PEFT's patterns are about the names in the file, so alphas are looked up before the names change
    adapter = lora_from(lora, settings, str(folder))
    parts = split({name: tensor for name, tensor in tensors.items() if name not in lora}, FILES, str(folder))
    adapters = _by_part(adapter, str(folder))
    both = sorted((set(parts) & set(adapters)) | (set(adapters) & {"projector"}) | (set(parts) & {"language_model"}))
    if both:
        raise ModelError(
            f"{folder}: what it holds of the {both[0]} is not supported. Allowed: LoRA on the language model and on "
            "the vision tower; a projector, and a tower without LoRA, trained whole."
        )
    read: dict[str, Any] = {**parts, **adapters}
    own = parts.get("projector")
    old = any(name.startswith(OLD_NAMES) for name in tensors) or side_of(read_record(folder), str(folder))
    projector = projector_of(own, "gelu", old, str(folder)) if own else None
    return Parts(read.get("language_model"), read.get("vision_tower"), projector)


def _by_part(adapter: Adapter, where: str) -> dict[str, Adapter]:
    """Take an adapter on a LLaVA apart: part -> adapter under the names within the part."""
    tensors = split(adapter.tensors, FILES, where)
    alphas: dict[str, dict[str, float]] = {part: {} for part in tensors}
    for module, alpha in adapter.alphas.items():
        prefix = next(prefix for prefix in FILES if module.startswith(prefix.removesuffix(".")))
        part, inner = FILES[prefix]
        alphas[part][(inner + f"{module}.".removeprefix(prefix)).removesuffix(".")] = alpha
    return {part: replace(adapter, tensors=own, alphas=alphas[part]) for part, own in tensors.items()}


def convert_adapters(
    parts: Parts, found: Found, to: str, output: Path, base: str | None, vision_tower: str | None
) -> list[str]:
    """Write an adapter in the asked layout; return sentences about what was done.

    Raises:
        ModelError: if it does not fit its base, the base is not known, or the layout cannot hold it.
    """
    own_settings = read_lora_settings(found.path) if (found.path / "adapter_config.json").is_file() else {}
    model = read_base(found, base, own_settings)
    parts, notes = _fitted(parts, model, own_settings, str(found.path))
    if found.kind.startswith("xtuner") and model.llava is not None and model.source and not _pads(model.source):
        notes.append(
            f"XTuner pads pictures to squares, and {model.source} does not: it would see other pictures than in the "
            "training. Next: make it with lorgnette model build --do-pad"
        )
    scale = image_feature_scale(model.text)
    projector = parts.projector
    if projector is not None:
        if found.kind == "peft" and model.llava is not None and model.llava.projector_hidden_act == "linear":
            projector = replace(projector, layers=(folded(*projector.layers),))
        if scale != 1.0:
            notes.append(f"a Gemma's projector, written for {NEW if to == 'hf' else OLD}")
        parts = replace(parts, projector=projector.meant_for(to != "hf", scale))
    with whole_folder(output) as unfinished:
        if to in ("hf", "hf4"):
            _write_hf(parts, model, unfinished, str(found.path), OLD if to == "hf4" else NEW)
        elif to == "llava":
            _write_llava(parts, model, unfinished, vision_tower)
        else:
            _write_xtuner(parts, model, unfinished)
    return notes


def read_base(found: Found, base: str | None, settings: dict[str, Any]) -> Base:
    """Find the model that an adapter is for: `--base`, a folder that the adapter names, or its own config.json.

    Raises:
        ModelError: if none of them is there.
    """
    named = settings.get("base_model_name_or_path")
    if base is None and found.kind != "llava-lora" and isinstance(named, str) and Path(named).is_dir():
        base = named
    if base is None and found.kind == "llava-lora":
        config = llava.read_config(found.path).config
        return Base(None, config, config.text_config)
    if base is None:
        raise ModelError(
            f"{found.path}: an adapter says nothing about the sizes of its model. Next: --base MODEL, the LLaVA of "
            "Hugging Face (or the language model) that it is for."
        )
    folder = local_folder(base)
    with explained(base, "config.json"):
        kind = PreTrainedConfig.get_config_dict(folder)[0].get("model_type")
    if kind == "internlm2":
        return Base(base, None, internlm2.read_config(folder))
    config = load_config(str(folder))
    return Base(base, config, config.text_config) if kind == "llava" else Base(base, None, config)


def _fitted(parts: Parts, base: Base, settings: dict[str, Any], where: str) -> tuple[Parts, list[str]]:
    """Bring adapters to the names and the vocabulary of the base, and check that they fit it."""
    language, tower = parts.language_model, parts.vision_tower
    notes = list(parts.notes)
    if isinstance(language, dict):
        raise ModelError(
            f"{where}: the language model is whole beside an adapter on the vision tower; no PEFT folder holds that. "
            "Next: merge the tower's adapter first."
        )
    if language is not None:
        if xtuner.needs_split(language):
            language = internlm2.adapter_to_llama(language, base.text, where)
            notes.append("LoRA on wqkv became three on q_proj, k_proj, v_proj that compute the same")
        language = with_head_rows(language, base.text.vocab_size)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(base.text)
        in_llava = base.llava is not None
        require_fitting(language, model, where, settings, _in_llava if in_llava else str)
    if tower is not None and (base.llava is None or base.source is None):
        raise ModelError(f"{where}: changes the vision tower. Next: --base LLAVA, a LLaVA of Hugging Face.")
    if isinstance(tower, Adapter):
        tower = renamed(tower, lambda name: name.removeprefix(NESTED))
        with torch.device("meta"):
            model = AutoModel.from_config(base.llava.vision_config)
        require_fitting(tower, model, where, settings, lambda name: TOWER + name)
    elif tower is not None:
        tower = {name.removeprefix(NESTED): tensor for name, tensor in tower.items()}
    return replace(parts, language_model=language, vision_tower=tower), notes


def _in_llava(name: str) -> str:
    return name.replace("model.", LANGUAGE_MODEL, 1) if name.startswith("model.") else name


def _write_hf(parts: Parts, base: Base, folder: Path, where: str, meant_for: str) -> None:
    adapters = []
    saved: dict[str, Tensors] = {}
    if isinstance(parts.language_model, Adapter):
        own = parts.language_model
        adapters.append(own if base.llava is None else renamed(own, _in_llava))
    if isinstance(parts.vision_tower, Adapter):
        adapters.append(renamed(parts.vision_tower, lambda name: TOWER + name))
    elif parts.vision_tower is not None:
        saved[TOWER.removesuffix(".")] = parts.vision_tower
    if parts.projector is not None:
        if base.llava is None:
            raise ModelError(f"{where}: holds a projector. Next: --base LLAVA, a LLaVA of Hugging Face.")
        saved[PROJECTOR] = _held(parts.projector, base, where)
    if base.source is not None and saved:
        with torch.device("meta"):
            shapes = shapes_of_model(LlavaForConditionalGeneration(base.llava), tuple(saved))
        require_same({f"{m}.{n}": s for m, own in saved.items() for n, s in shapes_of(own).items()}, shapes, where)
    write_peft(adapters, folder, base=base.source, saved=saved)
    record: dict[str, Any] = {"kind": "converted adapter", "from": where, "base": base.source}
    if base.source is not None:
        record["base_fingerprint"] = fingerprint(base.source)
    record["versions"] = library_versions()
    if parts.projector is not None:
        record["meant_for"] = meant_for
    write_json(folder / RECORD, record)


def _held(projector: Projector, base: Base, where: str) -> Tensors:
    activation, held = two_layers(projector)
    if activation != base.llava.projector_hidden_act:
        raise ModelError(
            f"{where}: the projector is {projector.kind}, held with the activation {activation!r}, but that of "
            f"{base.source or 'its base'} is {base.llava.projector_hidden_act!r}. Next: convert a base with a "
            "projector of the same kind first."
        )
    return projector_tensors(held)


def shapes_of_model(model: Any, modules: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of the tensors of some modules."""
    prefixes = tuple(f"{module}." for module in modules)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name.startswith(prefixes)}


def _write_llava(parts: Parts, base: Base, folder: Path, vision_tower: str | None) -> None:
    if not isinstance(parts.language_model, Adapter) or isinstance(parts.vision_tower, Adapter):
        raise ModelError(
            "a LoRA folder of the original LLaVA has LoRA on the language model, and none on the tower. Next: merge it "
            "(lorgnette model merge) and convert the whole model."
        )
    if base.llava is None or base.source is None:
        raise ModelError("Next: --base LLAVA, the LLaVA of Hugging Face that the adapter is for.")
    if vision_tower is None:
        raise ModelError(
            "the original LLaVA loads its tower by name. Next: --vision-tower NAME, such as "
            "openai/clip-vit-large-patch14-336"
        )
    projector = parts.projector
    if projector is None:  # not trained here; the original has no other place for the base's
        whole = read_whole(base.source)
        assert whole.projector is not None  # a LLaVA folder of Hugging Face has one
        projector = whole.projector.meant_for(True, image_feature_scale(base.text))
    rows = original_rows(base.text.vocab_size, base.llava.image_token_id)
    tower = parts.vision_tower
    config = llava_writing.original_config(
        base.llava, projector, vision_tower, _pads(base.source), own_tower=tower is not None
    )
    config["vocab_size"] = rows
    write_peft([with_head_rows(parts.language_model, rows)], folder, base=base.source, task="CAUSAL_LM")
    llava_writing.write_beside_lora(projector, nested(tower, base.llava.vision_config) if tower else None, folder)
    write_json(folder / "config.json", config)


def _pads(source: str) -> bool:
    settings = local_folder(source) / "preprocessor_config.json"
    return settings.is_file() and bool(read_json_object(settings).get("do_pad"))


def _write_xtuner(parts: Parts, base: Base, folder: Path) -> None:
    if isinstance(parts.language_model, Adapter):
        write_peft([parts.language_model], folder / "llm_adapter", base=base.source, task="CAUSAL_LM")
    if isinstance(parts.vision_tower, Adapter):
        nests = base.llava.vision_config.model_type in NESTED_TOWERS
        tower = renamed(parts.vision_tower, lambda name: f"{NESTED if nests else ''}{name}")
        write_peft([tower], folder / "visual_encoder_adapter", base=None)
    elif parts.vision_tower is not None:
        raise ModelError(
            "a tower that was trained whole beside an adapter. Next: merge it and convert the whole model."
        )
    if parts.projector is not None:
        xtuner.write_projector(parts.projector, folder / "projector")
