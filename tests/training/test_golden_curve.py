"""Ten steps of a fixed small run give the losses that they gave when this was written."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress
from transformers import set_seed

from lorgnette.models.loading import Llava
from lorgnette.recipe.sections import Stage
from lorgnette.run import read_json_lines
from lorgnette.training.samples import render_stage
from lorgnette.training.stages import run_stage

GOLDEN = [6.34713, 6.51328, 5.48758, 5.72636, 5.134, 5.04989, 4.85183, 4.72641, 4.53148, 4.79116]


def test_ten_steps_give_the_golden_losses(llava: Llava, stage_of: Callable[..., Stage], tmp_path: Path) -> None:
    set_seed(7)
    stage = stage_of({"max_steps": 10, "per_device_train_batch_size": 8, "lr_scheduler_type": "cosine"})
    run_stage(
        stage,
        llava,
        render_stage(stage, llava, 7, 0.0, Progress(disable=True)),
        tmp_path / "finetune",
        seed=7,
        metrics=tmp_path / "metrics.jsonl",
        console=Console(file=io.StringIO()),
    )
    losses = [row["loss"] for row in read_json_lines(tmp_path / "metrics.jsonl")]
    assert losses == pytest.approx(GOLDEN, rel=1e-4)
    assert losses[-1] < losses[0]
