"""Two processes, really launched with torchrun on the CPU, against one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from lorgnette.run import read_json, read_json_lines, write_json_lines

pytestmark = pytest.mark.slow
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


def lorgnette(folder: Path, *words: object, together: bool = False) -> None:
    """Run a command in one process or two, each with one thread."""
    launch = TORCHRUN if together else ()
    done = subprocess.run(
        [sys.executable, *launch, "-m", "lorgnette", *map(str, words)],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Next:") == 1  # one process talks


def recipe_of(parts: Callable[[str, str], tuple[str, str]], folder: Path, batch_size: int) -> Path:
    """Two stages on 19 samples, so that batches of 6 leave one over: a process then has no share of a step."""
    tower, language_model = parts("clip", "llama")
    training = {
        "num_train_epochs": 2,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "save_steps": 3,
        "per_device_train_batch_size": batch_size,
    }
    content = {
        "model": {"build": {"vision_tower": tower, "language_model": language_model}},
        "stages": [
            {
                "name": "pretrain",
                "data": [{"path": "easy-vqa", "format": "easy-vqa-captions", "split": "train", "limit": 19}],
                "train": {"projector": "full"},
                "chat_template": "plain",
                "training": training,
            },
            {
                "name": "finetune",
                "data": [{"path": "easy-vqa", "format": "easy-vqa", "split": "train", "limit": 19}],
                "validation": [{"path": "easy-vqa", "format": "easy-vqa", "split": "validation", "limit": 7}],
                "train": {"projector": "full", "language_model": "lora"},
                "lora": {"r": 4, "lora_dropout": 0.0},
                "training": training
                | {"eval_strategy": "steps", "eval_steps": 2, "per_device_eval_batch_size": batch_size}
                | {"gradient_accumulation_steps": 2},
            },
        ],
        "evaluation": {"tasks": [{"name": "easy-vqa", "limit": 60}], "batch_size": 16},
        "seed": 3,
    }
    file = folder / f"batches-of-{batch_size}.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def predictions(folder: Path) -> list[dict[str, Any]]:
    """The predictions, without how long they took."""
    rows = read_json_lines(folder / "predictions.jsonl")
    assert all(row.pop("seconds") >= 0 for row in rows)
    return rows


@pytest.fixture(scope="module")
def runs(parts: Callable[[str, str], tuple[str, str]], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same recipe by one process in batches of 6, and by two in batches of 3 each."""
    folder = tmp_path_factory.mktemp("processes")
    lorgnette(folder, "run", recipe_of(parts, folder, 6), "--output", "one")
    lorgnette(folder, "run", recipe_of(parts, folder, 3), "--output", "two", together=True)
    return folder / "one", folder / "two"


def test_losses_are_those_of_one_process_with_twice_the_batch(runs: tuple[Path, Path]) -> None:
    one, two = (read_json_lines(run / "metrics.jsonl") for run in runs)
    assert [(row["stage"], row["step"]) for row in one] == [(row["stage"], row["step"]) for row in two]
    assert [row["stage"] for row in one].count("pretrain") == 8  # 19 samples: 6, 6, 6 and 1, twice
    for name in ("loss", "eval_loss", "learning_rate", "grad_norm"):
        expected = [row[name] for row in one if name in row]
        assert expected
        assert [row[name] for row in two if name in row] == pytest.approx(expected, rel=1e-4)


def test_weights_are_those_of_one_process_with_twice_the_batch(runs: tuple[Path, Path]) -> None:
    base = load_file(runs[0] / "base" / "model.safetensors")
    one, two = (load_file(run / "merged" / "model.safetensors") for run in runs)
    assert one.keys() == two.keys()
    changed = 0
    for name, tensor in one.items():
        learned = (tensor - base[name]).norm()
        changed += bool(learned)
        assert (two[name] - tensor).norm() <= 1e-3 * learned, name
    assert changed > 10


def test_answers_before_training_are_equal_and_all_files_are_there_once(runs: tuple[Path, Path]) -> None:
    one, two = (run / "evaluation" / "before" / "easy-vqa" for run in runs)
    assert predictions(one) == predictions(two)
    first, second = read_json(one / "result.json"), read_json(two / "result.json")
    for result in (first, second):
        result["model"].pop("path")
    assert first == second
    files = [{str(file.relative_to(run)) for file in run.rglob("*") if file.is_file()} for run in runs]
    apart = {name for name in files[0] ^ files[1] if "rng_state" not in name}  # each process keeps its random numbers
    assert apart == set()
    assert len(read_json_lines(runs[1] / "provenance.jsonl")) == 1


def test_an_evaluation_that_was_killed_goes_on_with_another_number_of_processes(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    words = ("evaluate", runs[0] / "base", "--task", "easy-vqa", "--limit", 60, "--batch-size", 16, "--output", "out")
    lorgnette(tmp_path, *words)
    expected, result = predictions(tmp_path / "out"), read_json(tmp_path / "out" / "result.json")
    assert expected == predictions(runs[0] / "evaluation" / "before" / "easy-vqa")
    rows = read_json_lines(tmp_path / "out" / "predictions.jsonl")
    write_json_lines(tmp_path / "out" / "predictions.jsonl", rows[:20])
    write_json_lines(tmp_path / "out" / "predictions.1.jsonl", rows[-9:])
    (tmp_path / "out" / "result.json").unlink()
    lorgnette(tmp_path, *words, together=True)
    assert predictions(tmp_path / "out") == expected
    assert read_json(tmp_path / "out" / "result.json") == result
    assert sorted(file.name for file in (tmp_path / "out").iterdir() if not file.name.startswith(".")) == [
        "predictions.jsonl",
        "result.json",
        "settings.json",
    ]
