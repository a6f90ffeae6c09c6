"""The quickstart itself, in a process of its own: its bars, its memory, its determinism, a kill in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from transformers import AutoImageProcessor, AutoModel, AutoModelForCausalLM, AutoTokenizer

from lorgnette.data.readers.easy_vqa import easy_vqa_questions
from lorgnette.models.assembly import located
from lorgnette.run import read_json, read_json_lines

ROOT = Path(__file__).parents[1]


def quickstart(folder: Path) -> subprocess.Popen:
    words = [sys.executable, "-m", "lorgnette", "quickstart", "--output", str(folder)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def predictions(folder: Path, when: str) -> list[dict]:
    """The predictions, without how long they took."""
    rows = read_json_lines(folder / "evaluation" / when / "easy-vqa" / "predictions.jsonl")
    return [row | {"seconds": None} for row in rows]


@pytest.mark.slow
def test_the_quickstart_reaches_its_bars_twice_the_same_also_when_killed(tmp_path: Path) -> None:
    first = quickstart(tmp_path / "first")
    began = time.monotonic()
    shown, _ = first.communicate()
    assert first.returncode == 0, shown
    print(f"{time.monotonic() - began:.0f} s")
    (task,) = read_json(tmp_path / "first" / "comparison.json")["tasks"]
    assert task["after"] >= 0.90
    assert task["n"] >= 1000
    assert "Next: open" in shown
    assert "\x1b[" not in shown  # no bars, no colours where the output is no terminal
    import resource

    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss <= 2 * 1024**2  # KiB
    killed = quickstart(tmp_path / "second")
    while not list((tmp_path / "second").glob("stages/finetune/checkpoint-*/whole.json")):
        assert killed.poll() is None
        time.sleep(0.2)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    again = quickstart(tmp_path / "second")
    shown, _ = again.communicate()
    assert "going on from checkpoint-" in shown
    for when in ("before", "after"):
        assert predictions(tmp_path / "first", when) == predictions(tmp_path / "second", when)


def test_the_starter_models_are_ordinary_folders() -> None:
    tower = AutoModel.from_pretrained(located("starter:vision-tower"))
    words = AutoModelForCausalLM.from_pretrained(located("starter:language-model"))
    tokenizer = AutoTokenizer.from_pretrained(located("starter:language-model"))
    AutoImageProcessor.from_pretrained(located("starter:vision-tower"), backend="pil")
    assert (tower.config.model_type, words.config.model_type) == ("clip_vision_model", "llama")
    assert tokenizer.eos_token == "<|im_end|>"


def test_the_starter_texts_do_not_hold_the_questions_of_easy_vqa(monkeypatch: pytest.MonkeyPatch) -> None:
    from random import Random

    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import starter_texts

    asked = {row.question for split in ("train", "test") for row in easy_vqa_questions(split=split)}
    random = Random(0)
    questions = set()
    for lesson in (starter_texts.FIRST_LESSON, starter_texts.FULL_LESSON):
        for _ in range(3000):
            text = "".join(piece for piece, _ in starter_texts.write_dialogue(lesson, random))
            lines = text.replace("<|im_end|>", "\n").splitlines()
            questions |= {line.strip().lower() for line in lines if line.strip().endswith("?")}
    assert len(questions) > 500
    assert not questions & asked


@pytest.mark.slow
def test_the_script_makes_both_starter_models(tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / "tools" / "make_starter_models.py"), str(tmp_path)]
    subprocess.run([*script, "--tower-steps", "2", "--language-steps", "2"], check=True)
    for name in ("vision-tower", "language-model"):
        made = {file.name for file in (tmp_path / name).iterdir()}
        assert made == {file.name for file in Path(located(f"starter:{name}")).iterdir()}
