"""Ctrl-C ends a stage after its step, and nothing of what it did is lost."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console
from rich.progress import Progress
from safetensors.torch import load_file
from transformers import set_seed

from lorgnette.models import llava as models
from lorgnette.models.assembly import assemble
from lorgnette.models.loading import load_llava
from lorgnette.models.saving import save_llava
from lorgnette.recipe.sections import Stage
from lorgnette.run import last_whole_checkpoint
from lorgnette.training import stopping, trainer
from lorgnette.training.samples import render_stage
from lorgnette.training.stages import run_stage


def run(base: Path, folder: Path, stage: Stage) -> str:
    """Run a stage; return what it said."""
    said = io.StringIO()
    set_seed(7)
    model = load_llava(str(base))
    data = render_stage(stage, model, 7, 0.0, Progress(disable=True))
    try:
        run_stage(
            stage,
            model,
            data,
            folder / "finetune",
            seed=7,
            metrics=folder / "metrics.jsonl",
            console=Console(file=said),
        )
    except KeyboardInterrupt:
        said.write("KeyboardInterrupt")
    return said.getvalue()


def signalling(function: Callable, at: int, number: int) -> Callable:
    calls = 0

    def wrapped(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == at:
            os.kill(os.getpid(), number)
        return function(*args, **kwargs)

    return wrapped


def test_a_stopped_stage_keeps_its_last_step_and_ends_with_bitwise_the_same_weights(
    parts: Callable[[str, str], tuple[str, str]],
    stage_of: Callable[..., Stage],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    often = {"save_strategy": "steps", "save_steps": 3, "gradient_accumulation_steps": 2, "max_steps": 7}
    stage = stage_of({"per_device_train_batch_size": 3, "lr_scheduler_type": "cosine"} | often)
    base, logits, seal = tmp_path / "base", models.row_logits, trainer.seal_checkpoint
    save_llava(assemble(*parts("clip", "llama"), seed=3), base, {"kind": "base"})
    run(base, tmp_path / "whole", stage)
    expected = load_file(tmp_path / "whole" / "finetune" / "trained" / "adapter_model.safetensors")
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    def terminated(*_: object) -> None:
        raise KeyboardInterrupt("SIGTERM")

    for moment, kept in (("stop", 5), ("terminate", 5), ("at once", 3), ("within the last checkpoint", 7)):
        with monkeypatch.context() as patch:
            if moment == "within the last checkpoint":
                patch.setattr(trainer, "seal_checkpoint", signalling(seal, 3, signal.SIGINT))
            else:
                number = signal.SIGTERM if moment == "terminate" else signal.SIGINT
                stopped = signalling(logits, 9, number)  # within step 5
                patch.setattr(models, "row_logits", stopped)
            if moment == "at once":
                patch.setattr(stopping, "SAME_PRESS", -1.0)
                patch.setattr(models, "row_logits", signalling(stopped, 10, number))
            if moment == "terminate":
                signal.signal(signal.SIGTERM, terminated)
            said = run(base, tmp_path / moment, stage)
            assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == [
                handlers[0],
                terminated if moment == "terminate" else handlers[1],
            ]
            signal.signal(signal.SIGTERM, handlers[1])
        assert said.endswith("KeyboardInterrupt"), moment
        assert ("finetune: stopped after step 5 of 7, which is kept" in said) == (moment in ("stop", "terminate"))
        folder = tmp_path / moment / "finetune"
        assert last_whole_checkpoint(folder) == folder / f"checkpoint-{kept}"
        assert not (folder / "trained").exists()
        assert f"going on from checkpoint-{kept}" in run(base, tmp_path / moment, stage)
        found = load_file(folder / "trained" / "adapter_model.safetensors")
        assert all(torch.equal(found[name], expected[name]) for name in expected), moment


def test_where_no_checkpoints_are_wanted_a_stage_stops_at_once(
    parts: Callable[[str, str], tuple[str, str]],
    stage_of: Callable[..., Stage],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save_llava(assemble(*parts("clip", "llama"), seed=3), tmp_path / "base", {"kind": "base"})
    monkeypatch.setattr(models, "row_logits", signalling(models.row_logits, 2, signal.SIGINT))
    assert run(tmp_path / "base", tmp_path / "run", stage_of()).endswith("KeyboardInterrupt")
    assert not list((tmp_path / "run" / "finetune").glob("checkpoint-*"))
