"""What a file or folder is, told from what is in it; the name it has does not matter."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lorgnette.errors import ModelError
from lorgnette.models.adapters import TRAINED
from lorgnette.models.conversion import llava, xtuner
from lorgnette.models.conversion.lora import read_peft
from lorgnette.models.conversion.names import listed
from lorgnette.models.conversion.weights import is_safetensors, read_file, read_pickle, weight_file

Kind = Literal[
    "hf",
    "projector",
    "peft",
    "llava",
    "llava-lora",
    "llava-projector",
    "xtuner-checkpoint",
    "xtuner-export",
    "internlm2",
    "adapter",
]
PROJECTOR_MARKS = ("multi_modal_projector.", "linear_1.", "linear_2.")


@dataclass(frozen=True)
class Found:
    """What something is, where exactly, and a sentence that says how that was seen."""

    kind: Kind
    path: Path
    says: str


def detect(path: Path) -> Found:
    """Tell what a file or folder is.

    Raises:
        ModelError: if it is nothing that can be converted; the message says what was seen.
    """
    if not path.exists():
        raise ModelError(f"{path}: there is no such file or folder. Next: check the path.")
    return _file(path) if path.is_file() else _folder(path)


def _file(file: Path) -> Found:
    if is_safetensors(file) is False:
        content = read_pickle(file)
        if xtuner.is_checkpoint(content):
            return Found(
                "xtuner-checkpoint", file, "tensors of projector, llm or visual_encoder: a checkpoint of XTuner"
            )
        names = [str(name) for name in content] if isinstance(content, dict) else [type(content).__name__]
    else:
        names = list(read_file(file))
    if any("mm_projector." in name for name in names):
        return Found("llava-projector", file, "tensors of mm_projector: a projector of the original LLaVA")
    if names and all(name.split("model.")[-1].startswith(PROJECTOR_MARKS) for name in names):
        return Found("projector", file, "tensors of multi_modal_projector: a projector of Hugging Face's LLaVA")
    raise ModelError(
        f"{file}: holds {listed(sorted(names))}. Allowed as a single file: mm_projector.bin of LLaVA, .pth of XTuner, "
        "trained.safetensors with a projector. Next: give the folder if it is a model's."
    )


def _folder(folder: Path) -> Found:
    config = _json(folder / "config.json")
    if (folder / "adapter_config.json").is_file():
        return _adapter(folder)
    if "mm_vision_tower" in config:
        alone = _projector_file(folder) if weight_file(folder) is None else None
        if alone is not None:
            return Found(
                "llava-projector", alone, "config.json of the original LLaVA and a projector, no other weights"
            )
        return Found(
            "llava", folder, f"config.json names mm_vision_tower {config['mm_vision_tower']!r}: original LLaVA"
        )
    known: dict[Any, tuple[Kind, str]] = {
        "llava": ("hf", "config.json says model_type llava: Hugging Face's LLaVA"),
        "internlm2": ("internlm2", "config.json says model_type internlm2"),
    }
    if config.get("model_type") in known:
        kind, says = known[config["model_type"]]
        return Found(kind, folder, says)
    return _by_files(folder, config)


def _by_files(folder: Path, config: dict[str, Any]) -> Found:
    if (folder / TRAINED).is_file():
        return Found("projector", folder / TRAINED, f"{TRAINED}: what a stage left")
    if xtuner.checkpoint_file(folder) is not None:
        return Found("xtuner-checkpoint", folder, "a checkpoint folder of DeepSpeed")
    parts = xtuner.folder_parts(folder)
    if "projector" in parts or (parts and not config):
        return Found("xtuner-export", folder, f"folders with {', '.join(parts)}: an export of XTuner")
    alone = _projector_file(folder)
    if alone is not None:
        return Found("llava-projector", alone, "a file with tensors of mm_projector")
    seen = (
        f"config.json says model_type {config['model_type']!r}" if "model_type" in config else "there is no config.json"
    )
    here = ", ".join(sorted(entry.name for entry in folder.iterdir())[:12]) or "nothing"
    raise ModelError(
        f"{folder}: {seen}; the folder holds {here}. Allowed: a LLaVA of Hugging Face or of the original project, its "
        "LoRA folder or mm_projector.bin, a PEFT adapter, a .pth or an export of XTuner, InternLM2."
    )


def _adapter(folder: Path) -> Found:
    if (folder / llava.BESIDE_LORA).is_file():
        return Found("llava-lora", folder, f"an adapter and {llava.BESIDE_LORA}: a LoRA folder of the original LLaVA")
    names = list(read_peft(folder))
    if any(mark in name for name in names for mark in ("language_model.", "vision_tower.", "multi_modal_projector.")):
        return Found("peft", folder, "an adapter of PEFT on Hugging Face's LLaVA")
    return Found("adapter", folder, "an adapter of PEFT on a language model or a vision tower")


def _projector_file(folder: Path) -> Path | None:
    for file in sorted(folder.glob("*.bin")):
        if any("mm_projector." in name for name in read_file(file)):
            return file
    return None


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{file}: is no JSON ({error}). Next: copy it anew.") from error
    return content if isinstance(content, dict) else {}
