"""Write a LLaVA as an ordinary Hugging Face folder that transformers 4.57 and 5.x both read.

transformers 5.6 dropped the `vision_model` level of CLIP's and SigLIP's tensor names. Version 5 reads both spellings;
4.57 reading the new one initialises the whole tower anew with a warning only. So the old spelling is written.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from lorgnette.data.templates import stop_ids
from lorgnette.models.llava import Llava
from lorgnette.models.soft_prompt import PROMPT_FOLDER, save_prompt
from lorgnette.run import RECORD, read_json, whole_folder, write_json

NESTED_TOWERS = ("clip_vision_model", "siglip_vision_model")
"""Towers whose tensors lie under `vision_tower.vision_model.` in files."""


def save_llava(llava: Llava, folder: Path, record: dict[str, Any], max_shard_size: str = "4GB") -> None:
    """Write model, processor and `lorgnette.json` (what the folder is and where it came from), whole or not at all."""
    finish_generation(llava)
    with whole_folder(folder) as unfinished:
        llava.core.save_pretrained(unfinished, max_shard_size=max_shard_size)
        if llava.core.config.vision_config.model_type in NESTED_TOWERS:
            _rename_tensors(unfinished)
        write_beside_weights(llava, unfinished, record)


def finish_generation(llava: Llava) -> None:
    """Set how the finished model answers: it stops where its template ends an answer, and takes the likeliest token."""
    generation = llava.core.generation_config
    generation.eos_token_id = sorted(stop_ids(llava.template()))
    # sampling settings of the language model's own file; answers are measured greedily, and 5.x refuses to save a mix
    generation.do_sample = False
    for name in ("temperature", "top_p", "top_k"):
        setattr(generation, name, None)


def write_beside_weights(llava: Llava, folder: Path, record: dict[str, Any], version: str | None = None) -> None:
    """Write processor and `lorgnette.json` beside weights and config.json, and spell all so that 4.57 reads it too.

    Args:
        version: of transformers that the weights are meant for, where it is not the installed one.
    """
    llava.processor.save_pretrained(folder)
    # transformers 5 keeps it inside processor_config.json only; 4.57 looks for a file of its own
    llava.processor.image_processor.save_pretrained(folder)
    _finish_config(folder / "config.json", version)
    name_tokenizer_for_both(folder / "tokenizer_config.json")
    if llava.soft_prompt is not None:
        save_prompt(llava.soft_prompt, folder / PROMPT_FOLDER)
    write_json(folder / RECORD, record)


def _finish_config(file: Path, version: str | None) -> None:
    content = read_json(file)
    content.pop("use_cache", None)  # the trainer switches it off; a finished model is to generate with its cache
    spell_rotary(content["text_config"])
    if version is not None:
        content["transformers_version"] = version
    write_json(file, content)


def spell_rotary(text_config: dict[str, Any]) -> None:
    """Write the rotary settings as 4.57 spells them too; without `rope_theta` it would take 10,000 and say nothing."""
    rope = text_config.get("rope_parameters")
    if isinstance(rope, dict) and "rope_theta" in rope:
        text_config["rope_theta"] = rope["rope_theta"]
        if rope.get("rope_type", "default") != "default":
            text_config["rope_scaling"] = {name: value for name, value in rope.items() if name != "rope_theta"}


def name_tokenizer_for_both(file: Path) -> None:
    """Name the tokenizer's class as 4.57 knows it; version 5 reads that name too."""
    content = read_json(file)
    if content.get("tokenizer_class") == "TokenizersBackend":
        content["tokenizer_class"] = "PreTrainedTokenizerFast"
        # without this 4.57 adds token types, which LLaVA refuses
        content["model_input_names"] = ["input_ids", "attention_mask"]
    # the list that version 5 writes is a mapping of names in 4.57, where a list is an error, whatever the class
    if isinstance(content.get("extra_special_tokens"), list):
        content["additional_special_tokens"] = content.pop("extra_special_tokens")
    write_json(file, content)


def _rename_tensors(folder: Path) -> None:
    for shard in sorted(folder.glob("*.safetensors")):
        with safe_open(shard, framework="pt") as file:
            tensors: dict[str, torch.Tensor] = {_old_name(name): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata()
        renamed = shard.with_suffix(".renamed")
        save_file(tensors, renamed, metadata=metadata)
        shutil.move(renamed, shard)
    index = folder / "model.safetensors.index.json"
    if index.exists():
        content = read_json(index)
        content["weight_map"] = {_old_name(name): shard for name, shard in content["weight_map"].items()}
        write_json(index, content)


def _old_name(name: str) -> str:
    head, tower, rest = name.partition("vision_tower.")
    if not tower or rest.startswith("vision_model."):
        return name
    return f"{head}{tower}vision_model.{rest}"
