"""A LLaVA or a projector into the layouts of the original LLaVA and of XTuner."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from lorgnette.errors import ModelError
from lorgnette.models.conversion import llava_writing, xtuner
from lorgnette.models.conversion.huggingface import Whole, nested, require_complete
from lorgnette.models.conversion.parts import Projector, in_dtype
from lorgnette.models.conversion.settings import read_settings
from lorgnette.models.conversion.vocabulary import original_rows, with_original_rows
from lorgnette.models.conversion.weights import Tensors, read_folder, write_weights
from lorgnette.models.gemma import OLD, image_feature_scale
from lorgnette.models.loading import STARTER, dtype_name
from lorgnette.models.saving import spell_rotary
from lorgnette.run import whole_folder, write_json


def export_projector(projector: Projector, to: str, output: Path) -> None:
    """Write a projector alone: `mm_projector.bin`, or XTuner's folder."""
    with whole_folder(output) as unfinished:
        if to == "llava":
            llava_writing.write_projector_file(projector, unfinished)
        else:
            xtuner.write_projector(projector, unfinished / "projector")


def export_whole(whole: Whole, to: str, output: Path, vision_tower: str | None, dtype: torch.dtype | None) -> list[str]:
    """Write a LLaVA as the original's full checkpoint or as XTuner's folders; return sentences about what was decided.

    Args:
        vision_tower: the name that the original is to load its tower by.

    Raises:
        ModelError: if the layout cannot hold the model, or the tower has no name.
    """
    rows = whole.language_model["model.embed_tokens.weight"].shape[0]
    kept = original_rows(rows, whole.config.image_token_id)
    notes = list(whole.notes)
    if kept != rows:
        notes.append(f"cut the vocabulary from {rows:,} to {kept:,} rows: neither layout has an image token")
    require_complete(whole)
    assert whole.projector is not None
    scale = image_feature_scale(whole.config.text_config)
    projector = whole.projector.meant_for(True, scale)
    if scale != 1.0:
        notes.append(f"the projector is written for {OLD}, which both projects run on")
    language = in_dtype(with_original_rows(whole.language_model, kept), dtype)
    projector = projector.to(dtype)
    tower = in_dtype(whole.vision_tower, dtype)
    with whole_folder(output) as unfinished:
        if to == "llava":
            notes += _write_llava(whole, language, tower, projector, kept, unfinished, vision_tower)
        else:
            _write_xtuner(whole, language, tower, projector, kept, unfinished)
            if not pads(whole.image_processor):
                notes.append(
                    "XTuner pads pictures to squares, and this model does not: there it sees other pictures than in "
                    "training, where they are no squares"
                )
    return notes


def _write_llava(
    whole: Whole,
    language: Tensors,
    tower: Tensors,
    projector: Projector,
    rows: int,
    folder: Path,
    vision_tower: str | None,
) -> list[str]:
    if vision_tower is None or vision_tower.startswith(STARTER):
        raise ModelError(
            "the original LLaVA loads its tower by name. Next: --vision-tower NAME, such as "
            "openai/clip-vit-large-patch14-336; with a folder, its tensors are left out where they are the same."
        )
    same = Path(vision_tower).is_dir() and _same(whole.vision_tower, vision_tower, whole.config.vision_config)
    config = llava_writing.original_config(whole.config, projector, vision_tower, pads(whole.image_processor), not same)
    config |= {"vocab_size": rows, "torch_dtype": _dtype_of(language)}
    llava_writing.write_full(language, None if same else tower, projector, config, folder)
    save_tokenizer(whole, rows, folder)
    return [
        f"the vision tower is that of {vision_tower} and is not written"
        if same
        else f"the vision tower's tensors are in the checkpoint; {vision_tower} gives its configuration"
    ]


def _write_xtuner(
    whole: Whole, language: Tensors, tower: Tensors, projector: Projector, rows: int, folder: Path
) -> None:
    write_weights(language, folder / "llm")
    write_weights(tower, folder / "visual_encoder")
    xtuner.write_projector(projector, folder / "projector")
    text = whole.config.text_config.to_dict() | {"vocab_size": rows, "dtype": _dtype_of(language)}
    spell_rotary(text)
    for content, place in ((text, "llm"), (whole.config.vision_config.to_dict(), "visual_encoder")):
        content.pop("_name_or_path", None)
        write_json(folder / place / "config.json", content)
    save_tokenizer(whole, rows, folder / "llm")
    whole.image_processor.save_pretrained(folder / "visual_encoder")


def pads(image_processor: Any) -> bool:
    """Tell whether an image processor pads images to squares."""
    return bool(image_processor.to_dict().get("do_pad", False))


def save_tokenizer(whole: Whole, rows: int, folder: Path) -> None:
    """Write the tokenizer without tokens that the cut vocabulary has no row for; copy tokenizer.model if there is one.

    The original LLaVA reads tokenizer.model; it cannot be made from the fast tokenizer.
    """
    whole.tokenizer.save_pretrained(folder)
    content = read_settings(folder / "tokenizer.json")
    gone = {token["content"] for token in content["added_tokens"] if token["id"] >= rows}
    content["added_tokens"] = [token for token in content["added_tokens"] if token["id"] < rows]
    write_json(folder / "tokenizer.json", content)
    file = folder / "tokenizer_config.json"
    settings = read_settings(file)
    for name in ("extra_special_tokens", "additional_special_tokens"):
        if isinstance(settings.get(name), list):
            settings[name] = [token for token in settings[name] if token not in gone]
    settings.pop("image_token", None)
    if settings.get("pad_token") in gone:
        settings["pad_token"] = settings.get("unk_token") or settings.get("eos_token")
    write_json(file, settings)
    original = Path(whole.source) / "tokenizer.model"
    if original.is_file():
        shutil.copy(original, folder / "tokenizer.model")


def _dtype_of(language: Tensors) -> str:
    return dtype_name(language["model.embed_tokens.weight"].dtype)


def _same(tower: Tensors, folder: str, vision_config: Any) -> bool:
    """Tell whether a tower's tensors are bit for bit those of a folder."""
    other = {
        name: tensor
        for name, tensor in nested(_tower_only(read_folder(Path(folder))), vision_config).items()
        if not name.endswith("position_ids")
    }
    return tower.keys() == other.keys() and all(torch.equal(tower[name].read(), other[name].read()) for name in tower)


def _tower_only(tensors: Tensors) -> Tensors:
    """Leave out the text side of a two-sided model such as CLIP."""
    two_sided = any(name.startswith("text_model.") for name in tensors)
    return {name: t for name, t in tensors.items() if not two_sided or name.startswith("vision_model.")}
