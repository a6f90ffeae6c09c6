"""What one stage leaves to the next: the model itself, or a folder to stand on; and the merge, proven."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from lorgnette.errors import DataError, ModelError
from lorgnette.models.adapters import COMPARED, TOLERANCES, merge, require_equal_logits
from lorgnette.models.conversion.projector import load_projector, read_projector
from lorgnette.models.learner import Learner, load_model
from lorgnette.models.loading import DTYPES
from lorgnette.models.quantization import take_dequantized
from lorgnette.recipe.model import Model
from lorgnette.recipe.sections import Stage
from lorgnette.training.samples import usable_samples
from lorgnette.training.stages import restore_stage


def brings_projector(walked: Sequence[Stage], stage: Stage) -> bool:
    """Tell whether a stage begins with another projector than the folder that the model comes from has."""
    trained = any(before.train.projector != "frozen" for before in walked)
    return trained or any(each.init_projector is not None for each in (*walked, stage))


def needs_start(walked: Sequence[Stage], stage: Stage) -> bool:
    """Tell whether a stage's adapter needs a folder of its own to stand on.

    PEFT's folder can bring along a projector that is not the base's; LoRA and other parts it cannot.
    """
    adapted = any("lora" in before.train.modes.values() for before in walked)
    if adapted or "lora" not in stage.train.modes.values():
        return adapted
    parts = ("vision_tower", "language_model")
    others = any(before.train.modes[part] != "frozen" for before in walked for part in parts)
    return others or (brings_projector(walked, stage) and stage.train.projector == "lora")


def put_projector(stage: Stage, learner: Learner) -> None:
    """Put the projector that a stage starts from into the model, if it names one.

    Raises:
        ModelError: if it is no projector alone, or does not fit the model.
    """
    if stage.init_projector is None:
        return
    if "projector" not in learner.parts:
        raise ModelError(
            f"stages: {stage.name}: init_projector is given, but {learner.source} has no projector. Next: leave it out."
        )
    load_projector(learner.core, read_projector(Path(stage.init_projector)), stage.init_projector)


def merged_model(
    learner: Learner, walked: Sequence[Stage], settings: Model, stages: Path
) -> tuple[Learner, float | None]:
    """Fold the LoRA of the last stage into the model, prove on samples of its data that logits stay, and return both.

    The comparison is made in float32; the model comes back in the recipe's dtype. Without LoRA nothing is to be merged.
    A model in 4 bits is merged into the weights that it computed with.

    Args:
        walked: the stages since the folder that the model comes from.
        stages: the folder with a folder a stage.

    Raises:
        RunError: if the merged model answers otherwise.
    """
    stage = walked[-1]
    learner.model.eval()
    if settings.quantization is not None:
        learner = dequantized(learner, walked, settings, stages)
    if learner.model is learner.core:
        return replace(learner, model=learner.core.to(DTYPES[settings.dtype])), None
    learner.model.to(torch.float32)
    before = _sample_logits(learner, stage)
    plain = merge(learner.model)
    result = learner.merged(plain)
    difference = require_equal_logits(before, _sample_logits(result, stage), TOLERANCES["float32"])
    plain.to(DTYPES[settings.dtype])
    return result, difference


def dequantized(learner: Learner, walked: Sequence[Stage], settings: Model, stages: Path) -> Learner:
    """Bring the result of stages on a model in 4 bits onto the float32 weights that it computed with, and prove it.

    Raises:
        RunError: if it then answers otherwise.
    """
    plain = load_model(learner.source, torch.float32, settings.chat_template)
    take_dequantized(plain.core, learner.core)
    for number, stage in enumerate(walked):
        put_projector(stage, plain)
        keep_projector = brings_projector(walked[:number], stage)
        plain = restore_stage(stage, plain, stages / stage.name, keep_projector=keep_projector)
    plain.model.eval()
    assert settings.quantization is not None
    exact = {settings.dtype, settings.quantization.bnb_4bit_compute_dtype} == {"float32"}
    tolerance = TOLERANCES["float32" if exact else "bfloat16"]
    require_equal_logits(_sample_logits(learner, walked[-1]), _sample_logits(plain, walked[-1]), tolerance)
    return plain


@torch.inference_mode()
def _sample_logits(learner: Learner, stage: Stage) -> torch.Tensor:
    rendered = list(itertools.islice(usable_samples(stage, learner), COMPARED))
    if not rendered:
        raise DataError(
            f"stages: {stage.name}: no sample is left that renders and whose image opens, so the merge cannot be "
            "checked. Next: bring the data back."
        )
    row = learner.collator()(rendered)["row"].to(next(learner.core.parameters()).device)
    return learner.logits(row).float()
