"""Adapters + base -> one ordinary folder, merged in float32 and checked after it was written."""

from __future__ import annotations

import io
import itertools
import os
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lorgnette.data.readers import read_samples
from lorgnette.data.sample import IMAGE_TAG, Origin, Sample, Turn
from lorgnette.errors import DataError, InputError, RunError
from lorgnette.images.opening import keep_image
from lorgnette.models.adapters import COMPARED, TOLERANCES, require_equal_logits
from lorgnette.models.adding import added, merged
from lorgnette.models.fingerprint import fingerprint
from lorgnette.models.learner import Learner, load_model, save_model
from lorgnette.models.loading import DTYPES
from lorgnette.run import library_versions, require_absent

WRITTEN = DTYPES | {"float16": torch.float16}
"""Dtypes that a merged model can be written in."""
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
    """Merge adapters into their base and write the result; return the largest difference of logits.

    Each adapter merged alone must give the logits of base + adapter; of several, what each changes of the base is added
    up. What was written is loaded again and must give the same logits, else nothing is left behind.

    Args:
        adapters: PEFT folders, or what a stage of a run left in `trained/`.
        dtype: of the written weights, float32, bfloat16 or float16; the merge itself is made in float32.
        samples: LLaVA conversations on whose first eight the logits are compared; None for questions about noise.
        images: the folder of their images.

    Raises:
        InputError: if the base is not the one that an adapter was trained on, adapters do not go together, the output
            exists, or the size is none.
        ModelError: if base or adapter cannot be read, do not fit, or hold numbers that are not finite.
        RunError: if the logits differ by more than rounding explains, or the folder does not hold what was merged.
    """
    require_absent(output)
    if not SHARD_SIZE.fullmatch(max_shard_size):
        raise InputError(f"--max-shard-size {max_shard_size}: Allowed: a number of KB, MB, GB or TB, such as 4GB.")
    twice = [path for path, times in Counter(map(os.path.realpath, adapters)).items() if times > 1]
    if twice:
        raise InputError(f"{twice[0]} is given twice. Next: give each adapter once.")
    asked = _noise() if samples is None else _first(samples, images)
    if len(adapters) == 1:
        learner, before, _ = merged(base, adapters[0], partial(_logits, asked))
    else:
        learner = added(base, adapters, partial(_logits, asked))
        before = _logits(asked, learner)
    record = {
        "kind": "merged",
        "base": base,
        "base_fingerprint": fingerprint(base),
        "adapters": [str(adapter) for adapter in adapters],
        "versions": library_versions(),
    }
    learner.model.to(WRITTEN[dtype])
    unchecked = output.with_name(f"{output.name}.unchecked")
    try:
        save_model(learner, unchecked, record, max_shard_size)
        written = load_model(str(unchecked), torch.float32)
        difference = require_equal_logits(before, _logits(asked, written), TOLERANCES[dtype])
        _require_same_weights(learner, written)
        unchecked.rename(output)
    except BaseException:  # also one who stops it, and a full disk
        shutil.rmtree(unchecked, ignore_errors=True)
        raise
    return difference


def _require_same_weights(meant: Learner, written: Learner) -> None:
    """Check that a folder holds the merged weights, each rounded once: logits alone would not notice a small adapter.

    Raises:
        RunError: naming the first tensor that is another.
    """
    found = dict(written.core.named_parameters())
    for name, value in meant.core.named_parameters():
        if not torch.equal(found[name], value.to(torch.float32)):
            raise RunError(f"{name} was not written as it was merged. Nothing was written. Next: run it again.")


@torch.inference_mode()
def _logits(samples: Sequence[Sample], learner: Learner) -> torch.Tensor:
    learner.model.eval()
    renderer = learner.renderer()
    seen = samples if "vision_tower" in learner.parts else [_without_images(sample) for sample in samples]
    return learner.logits(learner.collator()([renderer.render(sample) for sample in seen])["row"]).float()


def _first(file: Path, images: str | None) -> list[Sample]:
    found = [
        s for s in itertools.islice(read_samples(str(file), "llava", None, images), COMPARED) if isinstance(s, Sample)
    ]
    if not found:
        raise DataError(
            f"{file}: none of its first {COMPARED} rows can be used to compare logits. Next: give other --samples, "
            "or none."
        )
    absent = next((path for sample in found for path in sample.images if not Path(path).exists()), None)
    if absent is not None:
        raise DataError(f"{file}: there is no image {absent:.200}. Next: name the folder of its images with --images.")
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
