"""What a stage leaves, without the training: adapters of random numbers in the folders that training writes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from lorgnette.models.adapters import add_lora
from lorgnette.models.fingerprint import fingerprint
from lorgnette.models.learner import Learner, load_model
from lorgnette.models.soft_prompt import new_prompt
from lorgnette.training.trained import keep_trained

MODES = {"vision_tower": "lora", "projector": "full", "language_model": "lora"}
PLAN = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": "float32"}


def shaken(learner: Learner, size: float = 0.1) -> Learner:
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in learner.module.parameters():
            if parameter.requires_grad:
                parameter.add_(size * torch.randn_like(parameter))
    return learner


def trained_on(base: Path, folder: Path, size: float = 0.1, **settings: object) -> Learner:
    """Leave what a stage leaves in folder/trained: LoRA on tower and words, a projector, a soft prompt."""
    learner = load_model(str(base), torch.float32, "vicuna_v1", settings.pop("quantization", None))
    prompt = new_prompt(learner.core, {"num_virtual_tokens": 3}, str(base))
    adapted = add_lora(learner.core, MODES, {"r": 4} | settings)
    learner = shaken(replace(learner, model=adapted, soft_prompt=prompt), size)
    keep_trained(learner, folder, fingerprint(base), MODES | {"soft_prompt": "full"}, "plain")
    return learner
