"""A small training run: data file, recipe stage, trainer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorgnette.recipe.sections import Stage


@pytest.fixture
def data_file(tmp_path: Path, pictures: list[str]) -> Path:
    """Sixteen conversations in LLaVA's format about four pictures."""
    colors = ["red", "blue", "green", "teal"]
    rows = [
        {
            "id": f"row-{number}",
            "image": pictures[number % 4],
            "conversations": [
                {"from": "human", "value": f"<image>\nwhat color is shape {number}?"},
                {"from": "gpt", "value": " ".join([colors[number % 4]] * (1 + number % 3))},
            ],
        }
        for number in range(16)
    ]
    file = tmp_path / "train.json"
    file.write_text(json.dumps(rows))
    return file


@pytest.fixture
def stage_of(data_file: Path) -> Callable[..., Stage]:
    """(training settings, other stage settings) -> a stage with LoRA on the language model and a full projector."""

    def made(training: dict[str, Any] | None = None, **more: Any) -> Stage:
        settings: dict[str, Any] = {
            "name": "finetune",
            "data": [{"path": str(data_file), "format": "llava", "images": "/"}],
            "train": {"projector": "full", "language_model": "lora"},
            "lora": {"r": 4, "lora_alpha": 8, "lora_dropout": 0.1},
            "learning_rates": {"projector": 2e-3},
        }
        defaults = {"per_device_train_batch_size": 8, "max_steps": 4, "learning_rate": 1e-2, "logging_steps": 1}
        return Stage(**(settings | more), training=defaults | {"save_strategy": "no"} | (training or {}))

    return made
