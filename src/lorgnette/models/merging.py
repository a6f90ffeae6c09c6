"""Adapters + base -> one ordinary folder, merged in float32 and checked after it was written."""

from __future__ import annotations

import io
import itertools
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel, get_peft_model_state_dict, load_peft_weights
from PIL import Image
from safetensors.torch import load_file

from lorgnette.data.images import keep_image
from lorgnette.data.readers import read_samples
from lorgnette.data.sample import IMAGE_TAG, Origin, Sample, Turn
from lorgnette.errors import DataError, InputError, ModelError
from lorgnette.models.adapters import TRAINED, merge, require_equal_logits, require_same_tensors
from lorgnette.models.learner import Learner, load_model, save_model
from lorgnette.models.llava import Llava
from lorgnette.models.loading import DTYPES, explained, fingerprint
from lorgnette.models.quantization import take_dequantized
from lorgnette.models.soft_prompt import PROMPT_FOLDER, read_prompt
from lorgnette.run import library_versions, read_json_object

TOLERANCES = {"float32": 1e-5, "bfloat16": 5e-2}
"""Largest difference of logits, relative to the largest one, that rounding to a dtype explains."""
SHARD_SIZE = re.compile(r"[1-9]\d*(\.\d+)?[KMGT]B", re.IGNORECASE | re.ASCII)
"""What transformers takes; it would complain when everything is merged."""


def merge_adapters(
    base: str,
    adapters: Sequence[Path],
    output: Path,
    *,
    dtype: str,
    max_shard_size: str,
    samples: Path | None = None,
    images: str | None = None,
) -> float:
    """Merge adapters into their base, one after another, and write the result; return the largest difference of logits.

    What was written is loaded again and must give the logits of base + adapters, else nothing is left behind.

    Args:
        adapters: PEFT folders, or what a stage of a run left in `trained/`.
        dtype: of the written weights; the merge itself is made in float32.
        samples: LLaVA conversations on whose first eight the logits are compared; None for questions about noise.
        images: the folder of their images.

    Raises:
        InputError: if the base is not the one that an adapter was trained on, the output exists, or the size is none.
        RunError: if the logits differ by more than rounding explains.
    """
    if output.exists():
        raise InputError(f"{output}: exists already and is left as it is. Next: choose another OUTPUT.")
    if not SHARD_SIZE.fullmatch(max_shard_size):
        raise InputError(f"--max-shard-size {max_shard_size}: Allowed: a number of KB, MB, GB or TB, such as 4GB.")
    learner = load_model(base, torch.float32)
    asked = _noise() if samples is None else _first(samples, images)
    for adapter in adapters:
        learner = _with_adapter(learner, base, adapter)
        before = _logits(learner, asked)
        if learner.model is not learner.core:
            learner = learner.merged(merge(learner.model))
        require_equal_logits(before, _logits(learner, asked), TOLERANCES["float32"])
    record = {
        "kind": "merged",
        "base": base,
        "base_fingerprint": fingerprint(base),
        "adapters": [str(adapter) for adapter in adapters],
        "versions": library_versions(),
    }
    learner.model.to(DTYPES[dtype])
    unchecked = output.with_name(f"{output.name}.unchecked")
    try:
        save_model(learner, unchecked, record, max_shard_size)
        written = load_model(str(unchecked), torch.float32)
        difference = require_equal_logits(before, _logits(written, asked), TOLERANCES[dtype])
    except BaseException:  # also one who stops it, and a full disk
        shutil.rmtree(unchecked, ignore_errors=True)
        raise
    unchecked.rename(output)
    return difference


def _with_adapter(learner: Learner, base: str, folder: Path) -> Learner:
    """Put what a folder holds onto the model: LoRA and projector, tensors trained in place, a soft prompt."""
    record = read_json_object(folder / "lorgnette.json") if (folder / "lorgnette.json").is_file() else {}
    trained_on = record.get("base_fingerprint")
    if trained_on is not None and trained_on != fingerprint(base):
        raise InputError(
            f"{folder}: was trained on {record.get('base')} ({str(trained_on)[:19]}...), which {base} "
            f"({fingerprint(base)[:19]}...) is not. Next: give the base that it was trained on."
        )
    found = [name for name in ("adapter_config.json", TRAINED, PROMPT_FOLDER) if (folder / name).exists()]
    if not found:
        raise ModelError(f"{folder}: holds no adapter. Allowed: a PEFT folder, or `trained/` of a stage.")
    if record.get("quantization") is not None:
        take_dequantized(learner.core, load_model(base, torch.float32, None, record["quantization"]).core)
    if TRAINED in found:
        _copy_in_place(learner, folder)
    if "adapter_config.json" in found:
        with explained(str(folder), "adapter"):
            adapted: Any = PeftModel.from_pretrained(learner.core, str(folder))
            require_same_tensors(folder, load_peft_weights(str(folder), "cpu"), get_peft_model_state_dict(adapted))
        learner = replace(learner, model=adapted)
    if PROMPT_FOLDER in found:
        learner = replace(learner, soft_prompt=read_prompt(learner.core, folder / PROMPT_FOLDER))
    return learner


def _copy_in_place(learner: Learner, folder: Path) -> None:
    with explained(str(folder), "trained weights"):
        tensors = load_file(folder / TRAINED)
    parameters = dict(learner.core.named_parameters())
    require_same_tensors(folder, tensors, {name: p for name, p in parameters.items() if name in tensors})
    with torch.no_grad():
        for name, value in tensors.items():
            parameters[name].copy_(value)


@torch.inference_mode()
def _logits(learner: Learner, samples: Sequence[Sample]) -> torch.Tensor:
    learner.model.eval()
    renderer = learner.renderer()
    seen = samples if isinstance(learner, Llava) else [_without_images(sample) for sample in samples]
    return learner.logits(learner.collator()([renderer.render(sample) for sample in seen])["row"]).float()


def _first(file: Path, images: str | None, count: int = 8) -> list[Sample]:
    found = [
        s for s in itertools.islice(read_samples(str(file), "llava", None, images), count) if isinstance(s, Sample)
    ]
    if not found:
        raise DataError(f"{file}: none of its first {count} rows can be used to compare logits.")
    return found


def _noise() -> list[Sample]:
    """Make two questions with answers about pictures of noise."""
    random = np.random.default_rng(0)
    samples = []
    for number, (question, answer) in enumerate((("What is this?", "A picture."), ("Where?", "On the table."))):
        picture = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(picture, "PNG")
        turns = (Turn("user", f"{IMAGE_TAG}\n{question}"), Turn("assistant", answer))
        samples.append(Sample(str(number), (keep_image(picture.getvalue()),), turns, Origin("noise", number)))
    return samples


def _without_images(sample: Sample) -> Sample:
    turns = tuple(Turn(turn.role, turn.text.replace(IMAGE_TAG, "").strip()) for turn in sample.turns)
    return replace(sample, images=(), turns=turns)
