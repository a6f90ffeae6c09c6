"""Killed with SIGKILL at the worst moments and called again, a stage ends with bitwise the same weights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lorgnette.models.assembly import assemble
from lorgnette.models.saving import save_llava
from lorgnette.recipe.sections import Stage
from lorgnette.run import is_whole, last_whole_checkpoint, read_json_lines, seal_checkpoint

# run one stage in a process of its own; `kill` names the call within which it kills itself
SCRIPT = """
import os, signal, sys, json
from pathlib import Path
import torch
from rich.console import Console
from rich.progress import Progress
from transformers import set_seed
from lorgnette.models import llava
from lorgnette.models.loading import load_llava
from lorgnette.recipe.sections import Stage
from lorgnette.training import stages, trained, trainer
from lorgnette.training.samples import render_stage

base, folder, kill, stage = sys.argv[1:5]

def killing(function, at):
    calls = 0
    def wrapped(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return wrapped

if kill == "training":
    llava.row_logits = killing(llava.row_logits, 11)
elif kill == "before the seal":
    trainer.seal_checkpoint = killing(trainer.seal_checkpoint, 2)
elif kill == "within a file":
    save = torch.save
    def half(value, path, *more, **options):
        save(value, path, *more, **options)
        if "checkpoint-6" in str(path) and "optimizer" in str(path):
            with open(path, "r+b") as stream:
                stream.truncate(1000)
            os.kill(os.getpid(), signal.SIGKILL)
    torch.save = half
elif kill == "within the result":
    trained.save_trained = killing(trained.save_trained, 1)

torch.set_num_threads(1)
set_seed(7)
stage, model = Stage(**json.loads(stage)), load_llava(base)
data = render_stage(stage, model, 7, 0.0, Progress(disable=True))
stages.run_stage(
    stage, model, data, Path(folder) / "finetune", seed=7, metrics=Path(folder) / "metrics.jsonl", console=Console(),
)
"""


def run(base: Path, folder: Path, stage: Stage, kill: str = "") -> int:
    settings = json.dumps(stage.model_dump(mode="json"))
    finished = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, str(base), str(folder), kill, settings],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert finished.returncode in (0, -signal.SIGKILL), finished.stderr
    return finished.returncode


def result(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "finetune" / "trained" / "adapter_model.safetensors")


def test_a_killed_stage_ends_with_bitwise_the_same_weights(
    parts: Callable[[str, str], tuple[str, str]], stage_of: Callable[..., Stage], tmp_path: Path
) -> None:
    # dropout, accumulation, several epochs, a schedule: all of it has to go on from where it was
    stage = stage_of(
        {
            "per_device_train_batch_size": 3,
            "gradient_accumulation_steps": 2,
            "max_steps": 9,
            "save_strategy": "steps",
            "save_steps": 3,
            "lr_scheduler_type": "cosine",
            "save_total_limit": 1,
            "logging_steps": 2,
        }
    )
    base = tmp_path / "base"
    save_llava(assemble(*parts("clip", "llama"), seed=3), base, {"kind": "base"})
    assert run(base, tmp_path / "whole", stage) == 0
    expected = result(tmp_path / "whole")
    losses = read_json_lines(tmp_path / "whole" / "metrics.jsonl")
    assert [row["step"] for row in losses] == [2, 3, 4, 6, 8, 9]  # every second one, and with every checkpoint
    for moment in ("training", "before the seal", "within a file", "within the result"):
        folder = tmp_path / moment.replace(" ", "-")
        assert run(base, folder, stage, kill=moment) == -signal.SIGKILL
        assert not (folder / "finetune" / "trained").exists()
        assert list((folder / "finetune").glob("checkpoint-*"))
        assert run(base, folder, stage) == 0
        found = result(folder)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected), moment
        again = read_json_lines(folder / "metrics.jsonl")
        assert [row["loss"] for row in again] == [row["loss"] for row in losses], moment


@pytest.mark.parametrize("spoil", ["delete", "truncate", "unseal"])
def test_a_checkpoint_that_is_not_whole_is_passed_over(tmp_path: Path, spoil: str) -> None:
    for step in (3, 12):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "weights").write_bytes(b"x" * 100)
        seal_checkpoint(folder)
        assert is_whole(folder)
    last = tmp_path / "checkpoint-12"
    if spoil == "delete":
        (last / "weights").unlink()
    elif spoil == "truncate":
        (last / "weights").write_bytes(b"x" * 99)
    else:
        (last / "whole.json").unlink()
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-3"
    assert not last.exists()
