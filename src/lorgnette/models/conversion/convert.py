"""One command for all formats: see what the source is, read its parts, write them in the asked layout.

| source | --to hf | --to llava | --to xtuner |
|---|---|---|---|
| whole LLaVA | LLaVA folder | full checkpoint | llm, visual_encoder, projector |
| LoRA | PEFT folder | LoRA folder | llm_adapter, visual_encoder_adapter, projector |
| projector alone | projector folder | mm_projector.bin | projector |
| InternLM2 | Llama | - | - |

`hf4` is `hf` for transformers before 5.4, which differs where the language model is a Gemma.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from transformers import LlavaConfig, PreTrainedConfig
from transformers.core_model_loading import revert_weight_conversion

from lorgnette.data.templates import require_template
from lorgnette.errors import InputError, ModelError, typed
from lorgnette.models.assembly import load_tower
from lorgnette.models.conversion import internlm2, llava, xtuner
from lorgnette.models.conversion.adapters import convert_adapters, read_adapter, read_hf_adapter
from lorgnette.models.conversion.detect import Found, detect
from lorgnette.models.conversion.export import export_projector, export_whole
from lorgnette.models.conversion.huggingface import (
    Whole,
    local_folder,
    nested,
    read_tokenizer,
    read_whole,
    without_tied_head,
    write_whole,
)
from lorgnette.models.conversion.names import without_recomputed
from lorgnette.models.conversion.parts import Parts, in_dtype
from lorgnette.models.conversion.projector import read_trained, write_projector
from lorgnette.models.conversion.sentencepiece_bpe import read_tokenizer as read_internlm2_tokenizer
from lorgnette.models.conversion.vocabulary import with_image_token
from lorgnette.models.conversion.weights import LazyTensor, Tensors, read_folder
from lorgnette.models.gemma import pin_activation
from lorgnette.models.loading import explained, load_config
from lorgnette.models.picture_shape import padded
from lorgnette.models.saving import NESTED_TOWERS
from lorgnette.run import library_versions, require_absent

Target = Literal["hf", "hf4", "llava", "xtuner"]
PADS = "images are padded to squares, as the original LLaVA and XTuner do"


@dataclass(frozen=True)
class Options:
    """What a source does not say itself.

    Attributes:
        base: folder or hub name that an adapter, or a checkpoint with some parts only, belongs to: a LLaVA of Hugging
            Face, or a language model (then with `vision_tower`).
        vision_tower: folder or hub name of the tower, where the source names none or another.
        template: a named chat template, where the tokenizer has none.
        dtype: of all tensors that are written; None for each as it is.
        xtuner_config: XTuner's configuration, for a checkpoint with LoRA that does not carry it.
    """

    base: str | None = None
    vision_tower: str | None = None
    template: str | None = None
    dtype: torch.dtype | None = None
    xtuner_config: Path | None = None


@dataclass(frozen=True)
class Done:
    """What a conversion did, in sentences, and what to type next; None where another project goes on."""

    said: list[str]
    next_step: str | None


def convert(source: str, to: str, output: Path, options: Options) -> Done:
    """Convert a model, an adapter or a projector into another project's layout.

    Args:
        source: file, folder or hub name; what it is, is seen from its content.
        to: hf, hf4, llava or xtuner.
        output: a folder that is not there yet; it is written whole or not at all.

    Raises:
        ModelError: if the source cannot be read, or the target cannot hold it.
        InputError: if the output is there already.
    """
    if to not in get_args(Target):
        raise InputError(f"--to {to}: no such layout. Allowed: {', '.join(get_args(Target))}.")
    require_template(options.template)
    require_absent(output)
    found = detect(local_folder(source))
    _require_use(found, to, options)
    seen = f"{source}: {found.says}"
    ours = to in ("hf", "hf4")
    if found.kind == "internlm2":
        if not ours:
            raise ModelError(f"{source}: InternLM2 can be converted to Llama's layout only. Next: --to hf")
        said = internlm2.convert_internlm2(found.path, output, template=options.template, dtype=options.dtype)
        return Done([seen, *said], f"model: {{build: {{language_model: {output}, ...}}}} in a recipe")
    if found.kind in ("hf", "llava"):
        whole = read_whole(source) if found.kind == "hf" else _from_original(found.path, options)
        return Done([seen, *_write_whole(whole, to, output, source, options)], _next_of_model(output, ours))
    parts = _read_parts(found, options)
    parts = replace(
        parts,
        language_model=in_dtype(parts.language_model, options.dtype),
        vision_tower=in_dtype(parts.vision_tower, options.dtype),
        projector=in_dtype(parts.projector, options.dtype),
    )
    if parts.adapters:
        said = convert_adapters(parts, found, to, output, options.base, options.vision_tower)
        merge = f"lorgnette model merge {options.base or 'BASE'} {output} --output {output}-merged"
        return Done([seen, *said], merge if ours else None)
    if parts.language_model is not None or parts.vision_tower is not None:
        options = _own_base(found, options)
        whole = _completed(parts, source, options)
        return Done([seen, *_write_whole(whole, to, output, source, options)], _next_of_model(output, ours))
    assert parts.projector is not None
    if ours:
        write_projector(parts.projector, output, source)
    else:
        export_projector(parts.projector, to, output)
    sizes = " to ".join(str(size) for size in parts.projector.sizes)
    said = [*parts.notes, f"a projector of {parts.projector.kind}, {sizes}"]
    return Done([seen, *said], f"init_projector: {output} in a stage of a recipe" if ours else None)


def _require_use(found: Found, to: str, options: Options) -> None:
    """Refuse options that would be without effect."""
    whole = ("hf", "llava", "internlm2", "xtuner-checkpoint", "xtuner-export")
    with_base = ("llava-lora", "peft", "adapter", "xtuner-checkpoint", "xtuner-export")
    useless = {
        "--template": options.template is not None and (to not in ("hf", "hf4") or found.kind not in whole),
        "--base": options.base is not None and found.kind not in with_base,
        "--vision-tower": options.vision_tower is not None and found.kind == "hf" and to != "llava",
        "--xtuner-config": options.xtuner_config is not None and found.kind != "xtuner-checkpoint",
    }
    for option, holds in useless.items():
        if holds:
            raise InputError(f"{option} has no effect here: {found.says}, and --to {to}. Next: leave it out.")


def _next_of_model(output: Path, ours: bool) -> str | None:
    return f"lorgnette evaluate {typed(output)} --task NAME" if ours else None


def _read_parts(found: Found, options: Options) -> Parts:
    readers: dict[str, Callable[[Path], Parts]] = {
        "xtuner-checkpoint": lambda path: xtuner.read_checkpoint(path, options.xtuner_config),
        "xtuner-export": xtuner.read_export,
        "llava-lora": llava.read_lora,
        "llava-projector": llava.read_projector_file,
        "projector": lambda _: Parts(None, None, read_trained(found)),
        "peft": read_hf_adapter,
        "adapter": read_adapter,
    }
    return readers[found.kind](found.path)


def _write_whole(whole: Whole, to: str, output: Path, source: str, options: Options) -> list[str]:
    if to not in ("hf", "hf4"):
        return export_whole(whole, to, output, options.vision_tower, options.dtype)
    record = {"kind": "converted", "from": source, "versions": library_versions()}
    return write_whole(whole, output, record, template=options.template, dtype=options.dtype, old=to == "hf4")


def _from_original(folder: Path, options: Options) -> Whole:
    original = llava.read_config(folder)
    parts = llava.read_full(folder)
    assert parts.projector is not None
    llava.require_kind(parts.projector, original, str(folder))
    if not isinstance(parts.language_model, dict):
        raise ModelError(f"{folder}: there are no tensors of the language model.")
    tokenizer, generation = read_tokenizer(folder, str(folder))
    tower, vision_config, image_processor = read_tower(options.vision_tower or original.vision_tower, options)
    config = original.config
    config.vision_config = vision_config
    whole = Whole(
        without_tied_head(parts.language_model, config, str(folder)),
        nested(parts.vision_tower, vision_config) if isinstance(parts.vision_tower, dict) else tower,
        parts.projector,
        config,
        tokenizer,
        padded(image_processor) if original.pads else image_processor,
        generation,
        str(folder),
        (*parts.notes, *original.notes, *([PADS] if original.pads else [])),
    )
    return with_image_token(whole)


def read_tower(source: str, options: Options) -> tuple[Tensors, Any, Any]:
    """Read a vision tower: tensors, configuration, image processor.

    Raises:
        ModelError: if it cannot be loaded.
    """
    try:
        tower, image_processor = load_tower(source, None, "auto")
    except ModelError as error:
        hint = "" if options.vision_tower else " Or give the tower's folder: --vision-tower FOLDER"
        raise ModelError(f"{error}{hint}") from error
    state = tower.state_dict()
    if tower.config.model_type not in NESTED_TOWERS:
        state = revert_weight_conversion(tower, state)  # the names of its files
    tensors = {name: LazyTensor.of(tensor) for name, tensor in state.items()}
    return nested(tensors, tower.config), tower.config, image_processor


def _own_base(found: Found, options: Options) -> Options:
    """Let an export of XTuner that holds a whole language model and a whole tower be its own base."""
    if found.kind != "xtuner-export" or options.base is not None:
        return options
    places = xtuner.folder_parts(found.path)
    if not {"language_model", "vision_tower"} <= places.keys():
        return options
    tower = options.vision_tower or str(places["vision_tower"])
    return replace(options, base=str(places["language_model"]), vision_tower=tower)


def _completed(parts: Parts, source: str, options: Options) -> Whole:
    """Add what a checkpoint of XTuner lacks, from the models that it was trained on."""
    if options.base is None:
        raise ModelError(
            f"{source}: holds the parts that were trained. Next: --base MODEL, the LLaVA (Hugging Face) or the "
            "language model that they belong to; with a language model also --vision-tower."
        )
    whole = _base(options)
    notes = [*whole.notes, *parts.notes]
    for name, part in (("language_model", parts.language_model), ("vision_tower", parts.vision_tower)):
        notes.append(f"the {name} is the {'base' if part is None else 'checkpoint'}'s")
    language, tower = parts.language_model, parts.vision_tower
    config = whole.config
    if isinstance(language, dict):
        if xtuner.needs_split(language):
            language = internlm2.to_llama(language, config.text_config, source)
        language = without_tied_head(language, config, source)
        config.text_config.vocab_size = language["model.embed_tokens.weight"].shape[0]
    whole = replace(
        whole,
        language_model=language if isinstance(language, dict) else whole.language_model,
        vision_tower=nested(tower, config.vision_config) if isinstance(tower, dict) else whole.vision_tower,
        projector=parts.projector or whole.projector,
        image_processor=padded(whole.image_processor),
        source=source,
        notes=(*notes, PADS),
    )
    return with_image_token(whole)


def _base(options: Options) -> Whole:
    folder = local_folder(str(options.base))
    with explained(str(options.base), "config.json"):
        kind = PreTrainedConfig.get_config_dict(folder)[0].get("model_type")
    if kind == "llava":
        return read_whole(str(options.base))
    if options.vision_tower is None:
        raise ModelError(
            f"{options.base}: is a language model. Next: --vision-tower FOLDER, the tower that saw for it."
        )
    tensors, notes = without_recomputed(read_folder(folder))
    if kind == "internlm2":
        text_config = internlm2.read_config(folder)
        tensors = internlm2.to_llama(tensors, text_config, str(folder))
        tokenizer, generation = read_internlm2_tokenizer(folder), None
    else:
        text_config = load_config(str(folder))
        pin_activation(text_config)
        tokenizer, generation = read_tokenizer(folder, str(folder))
    tower, vision_config, image_processor = read_tower(options.vision_tower, options)
    config = LlavaConfig(
        vision_config=vision_config, text_config=text_config, tie_word_embeddings=text_config.tie_word_embeddings
    )
    language = without_tied_head(tensors, config, str(folder))
    return Whole(language, tower, None, config, tokenizer, image_processor, generation, str(folder), tuple(notes))
