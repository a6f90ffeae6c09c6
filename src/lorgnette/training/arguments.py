"""A stage's settings as transformers takes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.integrations import get_available_reporting_integrations
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from lorgnette.errors import RecipeError, nearest
from lorgnette.recipe.sections import Stage
from lorgnette.training.trainer import RowTrainer


def rates_of(stage: Stage, learning_rate: float) -> dict[str, float]:
    """Return part -> learning rate, the stage's own where a part has none."""
    return {part: rate or learning_rate for part, rate in stage.learning_rates.model_dump().items()}


def training_arguments(stage: Stage, folder: Path, seed: int) -> TrainingArguments:
    """Make transformers' arguments: the recipe's, and those that are Lorgnette's to set.

    Raises:
        RecipeError: if transformers refuses the combination.
    """
    defaults: dict[str, Any] = {
        "report_to": "none",
        "logging_steps": 10,
        "logging_nan_inf_filter": False,
        # transformers refuses bf16 on a machine without accelerator unless told that the CPU is meant
        "use_cpu": not torch.accelerator.is_available(),
    }
    try:
        made = TrainingArguments(
            **(defaults | stage.training),
            output_dir=str(folder),
            seed=seed,
            data_seed=seed,
            remove_unused_columns=False,
            label_names=["labels"],
            disable_tqdm=True,
        )
        RowTrainer.get_optimizer_cls_and_kwargs(made)  # an optimizer whose library is missing
    except (ValueError, TypeError, ImportError) as error:
        raise RecipeError(f"stages: {stage.name}: training: transformers refuses these settings: {error}") from error
    if made.n_gpu > 1:
        made._n_gpu = 1  # transformers would part a batch, but a row is whole; a process a GPU shares the work
    wrong = {
        "max_steps: 0 and num_train_epochs: 0 train nothing": made.max_steps == 0 or made.num_train_epochs <= 0,
        "max_steps must be more than 0, or -1, which leaves it to num_train_epochs": made.max_steps < -1,
        "eval_strategy needs `validation:` data": made.eval_strategy != "no" and not stage.validation,
        "dataloader_num_workers must be 0 or more": made.dataloader_num_workers < 0,
    }
    for reason, holds in wrong.items():
        if holds:
            raise RecipeError(f"stages: {stage.name}: training: {reason}.")
    return made


def require_reports(stage: str, report_to: Sequence[str]) -> None:
    """Check that what a stage reports to is known and installed, as the trainer does when the model is loaded.

    Raises:
        RecipeError: naming what is not.
    """
    installed = get_available_reporting_integrations()
    for name in report_to:
        if name not in INTEGRATION_TO_CALLBACK:
            known = sorted(INTEGRATION_TO_CALLBACK)
            raise RecipeError(
                f"stages: {stage}: training.report_to: '{name}' is unknown. Allowed: none or all alone, or of "
                f"{', '.join(known)}.{nearest(str(name), known)}"
            )
        if name not in installed:
            raise RecipeError(
                f"stages: {stage}: training.report_to: {name} is not installed. Next: install its library (pip "
                f"install {name}), or leave report_to out."
            )
