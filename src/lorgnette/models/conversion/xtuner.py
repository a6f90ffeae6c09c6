"""The layout of XTuner 0.1 and 0.2: `.pth` checkpoints of mmengine or DeepSpeed, and the folders that it exports.

A checkpoint holds only what was trained. What a LoRA was trained with (its alpha) is in no tensor; it is read from the
configuration that mmengine stores beside them, a Python text that is parsed and never run.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorgnette.errors import ModelError
from lorgnette.models.conversion.internlm2 import is_internlm2
from lorgnette.models.conversion.lora import Adapter, lora_from, read_lora_settings, read_peft
from lorgnette.models.conversion.names import PartMap, split, without_recomputed
from lorgnette.models.conversion.parts import Parts, Projector, projector_from, sequential_names
from lorgnette.models.conversion.settings import read_settings
from lorgnette.models.conversion.weights import (
    Tensors,
    named_tensors,
    read_folder,
    read_pickle,
    weight_file,
    write_weights,
)
from lorgnette.models.loading import dtype_name
from lorgnette.run import write_json

CHECKPOINT: PartMap = {
    "projector.model.": ("projector", ""),
    "llm.base_model.model.": ("language_model", ""),
    "llm.": ("language_model", ""),
    "visual_encoder.base_model.model.": ("vision_tower", ""),
    "visual_encoder.": ("vision_tower", ""),
}
LORA_SETTINGS = {"language_model": "llm_lora", "vision_tower": "visual_encoder_lora"}
"""Part -> what its LoRA is called in XTuner's configuration."""
DEEPSPEED = "mp_rank_00_model_states.pt"
MOST_LAYERS = 16
"""Of a projector."""


def is_checkpoint(content: Any) -> bool:
    """Tell whether what a `.pth` holds are parts of an XTuner LLaVA."""
    state = _state(content)
    return any(str(name).startswith(tuple(CHECKPOINT)) for name in state)


def _state(content: Any) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        return {}
    for key in ("state_dict", "module"):  # mmengine's name, DeepSpeed's name
        if isinstance(content.get(key), Mapping):
            return dict(content[key])
    return content


def checkpoint_file(path: Path) -> Path | None:
    """Return the file of a checkpoint: itself, or DeepSpeed's inside a folder; None if there is none.

    Raises:
        ModelError: if DeepSpeed has cut the weights into pieces (ZeRO-3).
    """
    if path.is_file():
        return path
    found = sorted(path.glob(DEEPSPEED))
    if not found and list(path.glob("zero_pp_rank_*_model_states.pt")):
        raise ModelError(
            f"{path}: DeepSpeed ZeRO-3 has cut the weights into pieces. Next: python zero_to_fp32.py (in the folder) "
            "puts them together; give the file that it writes."
        )
    return found[0] if found else None


def read_checkpoint(path: Path, config_file: Path | None) -> Parts:
    """Read a `.pth`, a file or DeepSpeed's folder.

    Args:
        config_file: XTuner's configuration, for checkpoints that do not carry it.

    Raises:
        ModelError: if tensors belong nowhere, or a LoRA's alpha cannot be found out.
    """
    file = checkpoint_file(path)
    assert file is not None
    content = read_pickle(file)
    tensors, notes = without_recomputed(named_tensors(_state(content), str(file)))
    if file != path:
        notes.append("the weights are DeepSpeed's copies in the precision of the run; fp32 ones are in its optimizer")
    parts = split(tensors, CHECKPOINT, str(file))
    meta = content.get("meta") if "state_dict" in content or "module" in content else None
    text = meta.get("cfg") if isinstance(meta, Mapping) else None
    if config_file is not None:
        text = config_file.read_text(encoding="utf-8")
    settings = parse_settings(text) if isinstance(text, str) else {}
    read = {part: _part(own, part, settings, str(file)) for part, own in parts.items() if part != "projector"}
    own = parts.get("projector")
    projector = projector_from(own, sequential_names(own), True, str(file)) if own else None
    return Parts(read.get("language_model"), read.get("vision_tower"), projector, notes)


def _part(tensors: Tensors, part: str, settings: Mapping[str, Any], where: str) -> Tensors | Adapter:
    if not any(".lora_" in name for name in tensors):
        return tensors
    name = LORA_SETTINGS[part]
    if "lora_alpha" not in settings.get(name, {}):
        raise ModelError(
            f"{where}: holds LoRA on the {part}, and its lora_alpha is in no tensor and no configuration inside. Next: "
            f"--xtuner-config FILE, XTuner's configuration of that run, with {name}=dict(... lora_alpha=...)."
        )
    return lora_from(tensors, settings[name], where)


def parse_settings(text: str) -> dict[str, Any]:
    """Find the LoRA settings in the text of XTuner's configuration, without running it.

    Returns:
        "llm_lora" and "visual_encoder_lora" -> their arguments that are plain values; none where the text is no Python.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    found: dict[str, Any] = {}
    wanted = set(LORA_SETTINGS.values())
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg in wanted and isinstance(node.value, ast.Call):
            arguments = node.value.keywords
            found[str(node.arg)] = {
                a.arg: a.value.value for a in arguments if a.arg and isinstance(a.value, ast.Constant)
            }
    return found


def folder_parts(folder: Path) -> dict[str, Path]:
    """Find the parts of an export by what its subfolders hold: part -> subfolder, an adapter's or a model's.

    Raises:
        ModelError: if two claim to be the same part.
    """
    found: dict[str, Path] = {}
    places = [folder, *sorted(entry for entry in folder.iterdir() if entry.is_dir())]
    for place in places:
        part = _part_of(place)
        if part is None:
            continue
        if part in found:
            raise ModelError(f"{folder}: both {found[part].name} and {place.name} hold a {part}. Next: move one away.")
        found[part] = place
    return found


def _part_of(folder: Path) -> str | None:
    if weight_file(folder) is None:
        return None
    if (folder / "adapter_config.json").is_file():
        return "vision_tower" if is_of_tower(read_peft(folder)) else "language_model"
    try:
        content = read_settings(folder / "config.json")
    except ModelError:
        return None
    if content.get("model_type") == "projector":
        return "projector"
    return "vision_tower" if "patch_size" in content or "vision_config" in content else "language_model"


def is_of_tower(adapter: Tensors) -> bool:
    """Tell by their names whether an adapter's tensors are for a vision tower."""
    return any("encoder.layer" in name for name in adapter)


def read_export(folder: Path) -> Parts:
    """Read the folders that `xtuner convert pth_to_hf` writes.

    Raises:
        ModelError: if tensors belong nowhere, or the projector is of another activation.
    """
    read: dict[str, Any] = {}
    notes: list[str] = []
    for part, place in folder_parts(folder).items():
        if part == "projector":
            read[part] = _read_projector(place)
        elif (place / "adapter_config.json").is_file():
            read[part] = lora_from(read_peft(place), read_lora_settings(place), str(place))
        else:
            read[part], more = without_recomputed(read_folder(place))
            notes += more
    return Parts(read.get("language_model"), read.get("vision_tower"), read.get("projector"), notes)


def _read_projector(folder: Path) -> Projector:
    content = read_settings(folder / "config.json")
    if content.get("hidden_act", "gelu") != "gelu":
        raise ModelError(f"{folder}: the projector's activation is {content['hidden_act']!r}. Allowed: gelu.")
    tensors = split(read_folder(folder), {"model.": ("projector", "")}, str(folder))["projector"]
    depth = content.get("depth", 2)
    if type(depth) is not int or not 1 <= depth <= MOST_LAYERS:
        raise ModelError(f"{folder}: config.json says depth {depth!r:.80}. Allowed: 1 to {MOST_LAYERS} layers.")
    return projector_from(tensors, tuple(f"{2 * n}." for n in range(depth)), True, str(folder))


def write_projector(projector: Projector, folder: Path) -> None:
    """Write the `projector` folder of an export."""
    write_weights(projector.sequential("model."), folder)
    visual, language = projector.sizes
    config = {
        "architectures": ["ProjectorModel"],
        "model_type": "projector",
        "visual_hidden_size": visual,
        "llm_hidden_size": language,
        "depth": len(projector.layers),
        "hidden_act": "gelu",
        "bias": projector.layers[0].bias is not None,
        "torch_dtype": dtype_name(projector.layers[0].weight.dtype),
    }
    write_json(folder / "config.json", config)


def needs_split(part: Tensors | Adapter | None) -> bool:
    """Tell whether a language model has the names of InternLM2."""
    tensors = part.tensors if isinstance(part, Adapter) else part
    return tensors is not None and is_internlm2(tensors)
