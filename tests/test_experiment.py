"""The whole road with small random models: what it writes, how it goes on, what it refuses."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoProcessor, LlavaForConditionalGeneration

from lorgnette import cli, experiment
from lorgnette.evaluation import sharing
from lorgnette.inference import answers as answering
from lorgnette.models.adapters import TOLERANCES
from lorgnette.run import read_json, read_json_lines
from lorgnette.training import hand_over, trained
from small import make_text_to_text


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for commands in (cli.road, cli.results):  # it changes filters of warnings for the whole process
        monkeypatch.setattr(commands, "settle", lambda: None)


@pytest.fixture
def recipe(parts: Callable[[str, str], tuple[str, str]], tmp_path: Path) -> Path:
    tower, language_model = parts("clip", "llama")
    training = {"learning_rate": 1e-2, "save_steps": 2, "logging_steps": 1, "max_steps": 4}
    content = {
        "model": {"build": {"vision_tower": tower, "language_model": language_model}},
        "stages": [
            {
                "name": "pretrain",
                "data": [{"path": "easy-vqa", "format": "easy-vqa-captions", "split": "train", "limit": 16}],
                "train": {"projector": "full"},
                "chat_template": "plain",
                "training": training | {"per_device_train_batch_size": 4},
            },
            {
                "name": "finetune",
                "data": [{"path": "easy-vqa", "format": "easy-vqa", "split": "train", "limit": 40}],
                "validation": [{"path": "easy-vqa", "format": "easy-vqa", "split": "validation", "limit": 10}],
                "train": {"projector": "full", "language_model": "lora"},
                "lora": {"r": 4, "lora_dropout": 0.1},
                "training": training | {"per_device_train_batch_size": 8, "eval_strategy": "steps", "eval_steps": 2},
            },
        ],
        "evaluation": {"tasks": [{"name": "easy-vqa", "limit": 60}], "batch_size": 16},
        "seed": 3,
    }
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def lorgnette(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """Run a command as the shell would; return its exit code."""
    monkeypatch.setattr("sys.argv", ["lorgnette", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def answers(folder: Path, when: str) -> list[dict]:
    """The predictions, without how long they took."""
    rows = read_json_lines(folder / "evaluation" / when / "easy-vqa" / "predictions.jsonl")
    assert all(row.pop("seconds") >= 0 for row in rows)
    return rows


def test_the_road_leaves_everything_it_promises(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lorgnette(monkeypatch, "run", recipe) == 0
    shown = capsys.readouterr().out
    folder = tmp_path / "runs" / "small"
    assert "Next: open runs/small/report.html" in shown
    tables = ("comparison.json", "comparison.csv", "comparison.md", "changes.jsonl", "plots/loss-1.png")
    for name in ("recipe.yaml", "provenance.jsonl", "metrics.jsonl", *tables, "report.html"):
        assert (folder / name).is_file(), name
    (task,) = read_json(folder / "comparison.json")["tasks"]
    assert {"task", "metric", "n", "before", "after", "difference", "interval", "p_value"} <= task.keys()
    assert task["n"] == 60
    for when in ("before", "after"):
        result = read_json(folder / "evaluation" / when / "easy-vqa" / "result.json")
        assert {"prompt", "decoding", "chat_template", "versions", "model", "data", "interval"} <= result.keys()
        assert result["score"] == pytest.approx(sum(row["score"] for row in answers(folder, when)) / 60)
        assert sum(kind["n"] for kind in result["kinds"].values()) == 60
    assert {row["stage"] for row in read_json_lines(folder / "metrics.jsonl")} == {"pretrain", "finetune"}
    assert any("eval_loss" in row for row in read_json_lines(folder / "metrics.jsonl"))
    record = read_json(folder / "merged" / "lorgnette.json")
    assert record["kind"] == "merged"
    assert record["merge_difference"] <= TOLERANCES["float32"]
    assert read_json(folder / "stages" / "finetune" / "trained" / "lorgnette.json")["base_fingerprint"].startswith(
        "sha256"
    )
    # the merged folder is an ordinary one: transformers alone answers as the predictions say
    plain = LlavaForConditionalGeneration.from_pretrained(folder / "merged")
    processor = AutoProcessor.from_pretrained(folder / "merged", backend="pil")
    from PIL import Image

    for row in answers(folder, "after")[:5]:
        messages = [{"role": "user", "content": "<image>\n" + row["question"]}]
        text = processor.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        inputs = processor(text=text, images=Image.open(row["image"]).convert("RGB"), return_tensors="pt")
        made = plain.generate(**inputs, max_new_tokens=8, pad_token_id=0)[0, inputs["input_ids"].shape[1] :]
        assert processor.tokenizer.decode(made, skip_special_tokens=True).strip() == row["answer"]


def test_a_second_run_gives_bitwise_the_same_and_a_third_does_nothing(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lorgnette(monkeypatch, "run", recipe, "--output", "one") == 0
    assert lorgnette(monkeypatch, "run", recipe, "--output", "two") == 0
    for when in ("before", "after"):
        assert answers(tmp_path / "one", when) == answers(tmp_path / "two", when)
    weights = tmp_path / "one" / "merged" / "model.safetensors"
    assert weights.read_bytes() == (tmp_path / "two" / "merged" / "model.safetensors").read_bytes()
    assert (tmp_path / "one/comparison.json").read_bytes() == (tmp_path / "two/comparison.json").read_bytes()
    before = weights.stat().st_mtime_ns
    monkeypatch.setattr(experiment, "load_model", lambda *_: pytest.fail("a finished run loads no model"))
    assert lorgnette(monkeypatch, "run", recipe, "--output", "one") == 0
    assert weights.stat().st_mtime_ns == before


class Stop(KeyboardInterrupt):
    """Ctrl-C at a chosen call."""


def stopping(function: Callable, at: int) -> Callable:
    calls = 0

    def wrapped(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == at:
            raise Stop
        return function(*args, **kwargs)

    return wrapped


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the run that was never interrupted lies; the first test that needs it makes it."""
    return tmp_path_factory.mktemp("finished") / "run"


@pytest.mark.parametrize(
    ("owner", "name", "at"),
    [
        (experiment, "built", 1),
        (answering, "generate", 2),
        (experiment, "run_stage", 2),
        (hand_over, "merge", 1),
        (experiment, "save_model", 2),
        (sharing, "append_json_line", 70),
        (experiment, "write_report", 1),
    ],
)
def test_interrupted_and_called_again_it_goes_on(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: Path, owner, name: str, at: int
) -> None:
    whole = finished
    assert lorgnette(monkeypatch, "run", recipe, "--output", whole) == 0
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, stopping(getattr(owner, name), at))
        assert lorgnette(patch, "run", recipe, "--output", "broken") == 130
    assert lorgnette(monkeypatch, "run", recipe, "--output", "broken") == 0
    for when in ("before", "after"):
        assert answers(tmp_path / "broken", when) == answers(whole, when)
    assert (tmp_path / "broken/comparison.json").read_bytes() == (whole / "comparison.json").read_bytes()


def test_a_line_cut_in_the_middle_is_made_again(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lorgnette(monkeypatch, "run", recipe, "--output", "run") == 0
    folder = tmp_path / "run" / "evaluation" / "after" / "easy-vqa"
    expected = answers(tmp_path / "run", "after")
    (folder / "result.json").unlink()
    file = folder / "predictions.jsonl"
    file.write_bytes(file.read_bytes()[:-30])
    assert lorgnette(monkeypatch, "run", recipe, "--output", "run") == 0
    assert answers(tmp_path / "run", "after") == expected


def test_a_folder_of_another_recipe_is_refused_and_left_alone(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    assert lorgnette(monkeypatch, "train", recipe, "--output", "run") == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.safetensors")}
    capsys.readouterr()
    assert lorgnette(monkeypatch, "run", recipe, "--output", "run", "--set", "seed=4") == 2
    assert "seed: 3 -> 4" in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.safetensors")}


def test_what_the_last_stage_lacks_is_said_before_the_first_one_trains(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lorgnette(monkeypatch, "train", recipe, "--set", "stages.1.lora.target_modules=[q_prj]") == 2
    said = capsys.readouterr().err
    assert "stages: finetune: lora.target_modules" in said
    assert "Did you mean 'q_proj'" in said
    assert not (tmp_path / "runs").exists()


def test_all_that_a_recipe_names_wrongly_is_told_at_once(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = (
        "stages.0.data.0.split=tset",
        "stages.0.chat_template=vicuna",
        "stages.1.lora.target_modules=[q_prj]",
        "stages.1.validation.0.path=/gone.json",
        "evaluation.tasks=[easy-vqq, {name: vqa, path: nowhere.json}]",
    )
    assert lorgnette(monkeypatch, "run", recipe, *(word for field in wrong for word in ("--set", field))) == 2
    said = capsys.readouterr().err
    names = ("'tset'", "'vicuna'", "'q_proj'", "/gone.json", "'easy-vqq'", "nowhere.json")
    assert [said.count(f"{name}") > 0 for name in names] == [True] * 6
    assert said.startswith("error: 6 things are wrong:\n- ")


def test_a_broken_row_of_the_last_stage_is_told_before_anything_is_built(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the mended recipe goes on in the same folder."""
    row = {
        "image": answers_picture(),
        "conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "y"}],
    }
    rows = [row] * 40
    (tmp_path / "data.json").write_text(json.dumps([*rows, row | {"image": "/gone.png"}]))
    source = "stages.1.data=[{path: data.json, format: llava, images: /}]"
    words = ("run", recipe, "--output", "run", "--set", source)
    assert lorgnette(monkeypatch, *words) == 2
    assert "/gone.png" in capsys.readouterr().err
    assert not (tmp_path / "run" / "base").exists()
    assert lorgnette(monkeypatch, *words, "--set", "max_bad_share=0.1", "--set", "stages.1.training.max_steps=2") == 0
    shown = capsys.readouterr().out
    assert "changed in the recipe since the last start:\n  stages.1.training.max_steps: 4 -> 2" in shown
    last = read_json_lines(tmp_path / "run" / "provenance.jsonl")[-1]
    assert last["recipe_changed"] == ["stages.1.training.max_steps: 4 -> 2", "max_bad_share: 0.01 -> 0.1"]
    # what a log holds that nobody looks at while it is written
    assert "finetune: step 2 of 2, loss " in shown
    assert "before easy-vqa: exact_match 0." in shown
    assert "after easy-vqa: exact_match 0." in shown


def test_a_benchmark_with_an_image_that_is_gone_is_told_before_anything_is_built(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"image": image, "question": "?", "answer": "yes"} for image in (answers_picture(), "/gone.png")]
    (tmp_path / "test.json").write_text(json.dumps(rows))
    task = "evaluation.tasks=[{name: vqa, path: test.json, images: /}]"
    assert lorgnette(monkeypatch, "run", recipe, "--output", "run", "--set", task) == 2
    assert "/gone.png" in capsys.readouterr().err
    assert not (tmp_path / "run" / "base").exists()


def test_test_questions_that_are_trained_on_are_told_in_time_and_in_the_result(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = "stages.1.data=[{path: easy-vqa, format: easy-vqa, split: test, limit: 40}]"
    assert lorgnette(monkeypatch, "run", recipe, "--output", "run", "--set", source) == 0
    shown = capsys.readouterr().out
    warning = "40 of 60 questions stand in the training data too: how they are answered says nothing about new ones"
    assert f"warning: easy-vqa: {warning}" in shown
    assert shown.index(warning) < shown.index("stage pretrain")
    for when, said in (("before", False), ("after", True)):
        result = read_json(tmp_path / "run" / "evaluation" / when / "easy-vqa" / "result.json")
        assert (warning in result["warnings"]) == said
    assert "40 of 60 questions stand in the training data" in (tmp_path / "run" / "report.html").read_text()


def test_a_task_is_added_to_a_finished_run(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: Path
) -> None:
    assert lorgnette(monkeypatch, "run", recipe, "--output", finished) == 0
    shutil.copytree(finished, tmp_path / "run")
    rows = [{"image": answers_picture(), "question": "Is it red?", "answer": "yes"}]
    (tmp_path / "test.json").write_text(json.dumps(rows))
    tasks = "evaluation.tasks=[{name: easy-vqa, limit: 60}, {name: vqa, path: test.json, images: /}]"
    assert lorgnette(monkeypatch, "run", recipe, "--output", "run", "--set", tasks) == 0
    assert [task["task"] for task in read_json(tmp_path / "run" / "comparison.json")["tasks"]] == ["easy-vqa", "vqa"]
    for when in ("before", "after"):
        assert answers(tmp_path / "run", when) == answers(finished, when)


def test_one_benchmark_is_measured_on_several_sets(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], finished: Path
) -> None:
    assert lorgnette(monkeypatch, "run", recipe, "--output", finished) == 0
    shutil.copytree(finished, tmp_path / "run")
    sets = []
    for name, references in (("ucm", ("yes", "yes")), ("sydney", ("no", "yes", "no"))):
        rows = [{"image": answers_picture(), "question": f"{n}?", "answer": a} for n, a in enumerate(references)]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
        sets.append(f"{{name: {name}, task: vqa, path: {name}.json, images: /}}")
    tasks = f"evaluation.tasks=[{{name: easy-vqa, limit: 60}}, {', '.join(sets)}]"
    assert lorgnette(monkeypatch, "run", recipe, "--output", "run", "--set", tasks) == 0
    compared = read_json(tmp_path / "run" / "comparison.json")["tasks"]
    assert [(task["task"], task["n"]) for task in compared] == [("easy-vqa", 60), ("sydney", 3), ("ucm", 2)]
    result = read_json(tmp_path / "run" / "evaluation" / "after" / "ucm" / "result.json")
    assert (result["task"], result["name"], result["options"]["path"]) == ("vqa", "ucm", "ucm.json")

    words = ("--task", "vqa", "--data", "ucm.json", "--images", "/", "--name", "ucm")
    assert lorgnette(monkeypatch, "evaluate", "run/merged", *words) == 0
    folder = Path("results/run-merged/ucm")
    assert (
        read_json_lines(folder / "predictions.jsonl")[0]["answer"]
        == read_json_lines(tmp_path / "run" / "evaluation" / "after" / "ucm" / "predictions.jsonl")[0]["answer"]
    )
    said = [{"id": row["id"], "answer": "yes"} for row in read_json_lines(folder / "predictions.jsonl")]
    Path("said.json").write_text(json.dumps(said))
    words = ("--task", "vqa", "--references", "ucm.json", "--images", "/", "--name", "ucm")
    assert lorgnette(monkeypatch, "score", "said.json", *words) == 0
    assert read_json(tmp_path / "results/said.json/ucm/result.json")["score"] == 1.0
    assert lorgnette(monkeypatch, "compare", "results/run-merged", "results/said.json", "--intersect") == 0
    assert "ucm, vqa_accuracy" in capsys.readouterr().out
    assert lorgnette(monkeypatch, "score", "said.json", *words[:-1], "../ucm") == 2
    assert "--name: got '../ucm'" in capsys.readouterr().err


def test_what_is_trained_without_a_benchmark_can_be_measured_next(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lorgnette(monkeypatch, "train", recipe, "--output", "run", "--set", "evaluation=null") == 0
    assert "Next: lorgnette evaluate run/merged --task NAME" in capsys.readouterr().out


def test_the_kept_recipe_goes_on_in_its_own_folder(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what --set changed, and with another batch size where some answers are there already."""
    assert lorgnette(monkeypatch, "train", recipe, "--output", "my run", "--set", "seed=4") == 0
    following = capsys.readouterr().out.rpartition("Next: lorgnette ")[2].partition("   ")[0]
    assert following == "run 'my run/recipe.yaml'"
    with monkeypatch.context() as patch:
        patch.setattr(sharing, "append_json_line", stopping(sharing.append_json_line, 40))
        assert lorgnette(patch, *shlex.split(following)) == 130
    assert lorgnette(monkeypatch, *shlex.split(following), "--set", "evaluation.batch_size=7") == 0
    assert (tmp_path / "my run" / "report.html").exists()
    assert not (tmp_path / "runs").exists()
    result = read_json(tmp_path / "my run" / "evaluation" / "before" / "easy-vqa" / "result.json")
    assert result["batch_size"] == 7


def test_a_folder_with_other_things_is_no_run_folder(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A `base` that lies there would be taken for the one that the recipe builds."""
    (tmp_path / "mine" / "base").mkdir(parents=True)
    assert lorgnette(monkeypatch, "run", recipe, "--output", "mine") == 2
    assert "mine: holds other things than a run (base)" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["base"]


@pytest.mark.parametrize(
    "content", ["[]", "{}", "null", '{"model": 3}', '{"model": {"fingerprint": []}}', "[" * 99_999]
)
def test_a_result_that_was_spoiled_is_named(
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    finished: Path,
    content: str,
) -> None:
    assert lorgnette(monkeypatch, "run", recipe, "--output", finished) == 0
    shutil.copytree(finished, tmp_path / "run")
    result = tmp_path / "run" / "evaluation" / "before" / "easy-vqa" / "result.json"
    result.write_text(content)
    capsys.readouterr()
    assert lorgnette(monkeypatch, "run", recipe, "--output", "run") == 2
    assert "result.json: " in capsys.readouterr().err
    assert result.read_text() == content


def test_what_changed_since_is_noticed(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data.json"
    picture = answers_picture()
    rows = [
        {"image": picture, "conversations": [{"from": "human", "value": f"{n}?"}, {"from": "gpt", "value": "red"}]}
        for n in range(20)
    ]
    data.write_text(json.dumps(rows))
    source = f"stages.1.data=[{{path: {data}, format: llava, images: /}}]"
    words = ("run", recipe, "--output", "run", "--set", source)
    with monkeypatch.context() as patch:
        patch.setattr(trained, "save_trained", stopping(trained.save_trained, 2))
        assert lorgnette(patch, *words) == 130
    data.write_text(json.dumps(rows[:-1]))
    assert lorgnette(monkeypatch, *words) == 2  # the data of a checkpoint
    assert "made with another data" in capsys.readouterr().err
    data.write_text(json.dumps(rows))
    assert lorgnette(monkeypatch, *words) == 0
    shutil.rmtree(tmp_path / "run" / "merged")
    with (tmp_path / "run" / "base" / "config.json").open("a") as file:
        file.write("\n")
    assert lorgnette(monkeypatch, *words) == 2  # the model under a result
    assert "another model" in capsys.readouterr().err


def answers_picture() -> str:
    """One of easy-VQA's pictures."""
    from lorgnette.data.readers.easy_vqa import easy_vqa_questions

    return easy_vqa_questions(split="test")[0].image


def test_predictions_of_unknown_origin_are_not_gone_on_with(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lorgnette(monkeypatch, "train", recipe, "--output", "run") == 0
    words = ("evaluate", "run/merged", "--task", "easy-vqa", "--limit", 20, "--output", "a")
    assert lorgnette(monkeypatch, *words) == 0
    settings = tmp_path / "a" / "settings.json"
    kept = settings.read_text()
    for spoiled in ("{", "[]", None):
        settings.unlink() if spoiled is None else settings.write_text(spoiled)
        assert lorgnette(monkeypatch, *words) == 2
        assert "delete the folder" in capsys.readouterr().err
    settings.write_text(kept)
    (tmp_path / "a" / "predictions.jsonl").write_text("garbage\n")
    assert lorgnette(monkeypatch, *words) == 2
    assert "line 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("raise SystemExit(0)", "cannot be imported"),
        ("class T(EasyVQA):\n    prompt = None", "are texts"),
        ("class T(EasyVQA):\n    def documents(self, split): raise KeyError('x')", "documents() raised"),
        ("class T(EasyVQA):\n    def documents(self, split): return [1]", "Allowed: a Document"),
        ("class T(EasyVQA):\n    def score(self, document, answer): return float('nan')", "score() gave nan"),
        ("class T(EasyVQA):\n    def score(self, document, answer): return 7", "score() gave 7"),
        ("class T(EasyVQA):\n    def score(self, document, answer): return 1 / 0", "score() raised"),
    ],
)
def test_tasks_of_users_are_checked(
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    body: str,
    says: str,
) -> None:
    import sys

    (tmp_path / "mine.py").write_text(f"from lorgnette.evaluation.tasks.easy_vqa import EasyVQA\n{body}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("mine", None)
    settings = ("--set", "stages=[]", "--set", "evaluation.tasks=[{name: 'mine:T', limit: 5}]")
    assert lorgnette(monkeypatch, "run", recipe, "--output", "run", *settings) == 2
    assert says in " ".join(capsys.readouterr().err.split())


def test_evaluate_and_compare_from_the_command_line(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lorgnette(monkeypatch, "train", recipe, "--output", "run") == 0
    for model, out in (("run/base", "a"), ("run/merged", "b")):
        assert lorgnette(monkeypatch, "evaluate", model, "--task", "easy-vqa", "--limit", 20, "--output", out) == 0
    assert lorgnette(monkeypatch, "compare", "a", "b", "--output", "c") == 0
    assert read_json(tmp_path / "c" / "comparison.json")["tasks"][0]["n"] == 20
    capsys.readouterr()
    # other settings into the same folder would mix two measurements
    assert lorgnette(monkeypatch, "evaluate", "run/base", "--task", "easy-vqa", "--limit", 30, "--output", "a") == 2
    assert "made otherwise:\n  data.limit: 20 -> 30\n  data.documents: 20 -> 30\n  data.f" in capsys.readouterr().err
    assert lorgnette(monkeypatch, "evaluate", "run/base", "--task", "easy-vq", "--output", "d") == 2
    assert "Did you mean 'easy-vqa'" in capsys.readouterr().err
    assert lorgnette(monkeypatch, "evaluate", "run/nothing", "--task", "easy-vqa", "--output", "d") == 2


def test_two_adapter_stages_follow_each_other(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = yaml.safe_load(recipe.read_text())
    content["stages"].append(content["stages"][1] | {"name": "again"})
    recipe.write_text(yaml.safe_dump(content))
    assert lorgnette(monkeypatch, "run", recipe, "--output", "run") == 0
    # the last adapter belongs to the model that it started from, which lies beside it
    from peft import PeftModel

    start = tmp_path / "run" / "stages" / "again" / "start"
    adapted = PeftModel.from_pretrained(
        LlavaForConditionalGeneration.from_pretrained(start), tmp_path / "run" / "stages" / "again" / "trained"
    )
    merged = LlavaForConditionalGeneration.from_pretrained(tmp_path / "run" / "merged")
    for (name, a), (_, b) in zip(
        adapted.merge_and_unload().state_dict().items(), merged.state_dict().items(), strict=True
    ):
        assert torch.allclose(a, b, atol=1e-6), name
    shutil.move(tmp_path / "run" / "merged", tmp_path / "before")
    assert lorgnette(monkeypatch, "run", recipe, "--output", "run") == 0


@pytest.mark.parametrize("projector_mode", ["frozen", "full"])
def test_a_stage_starts_with_a_projector_from_outside(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, projector_mode: str
) -> None:
    names = {"0.weight": (32, 24), "0.bias": (32,), "2.weight": (32, 32), "2.bias": (32,)}
    given = {name: 0.1 * torch.randn(shape) for name, shape in names.items()}
    state = {f"projector.model.{name}": value for name, value in given.items()}
    torch.save({"meta": {"iter": 2181}, "state_dict": state}, tmp_path / "iter_2181.pth")
    content = yaml.safe_load(recipe.read_text())
    finetune = content["stages"][1]
    finetune["train"]["projector"] = projector_mode
    finetune["init_projector"] = str(tmp_path / "iter_2181.pth")
    finetune["training"]["max_steps"] = 2
    content |= {"stages": [finetune], "evaluation": None}
    recipe.write_text(yaml.safe_dump(content))
    assert lorgnette(monkeypatch, "train", recipe, "--output", "once") == 0

    def projector(folder: str) -> torch.Tensor:
        model = LlavaForConditionalGeneration.from_pretrained(tmp_path / folder)
        return model.model.multi_modal_projector.linear_2.weight.detach()

    if projector_mode == "frozen":
        assert torch.equal(projector("once/merged"), given["2.weight"])
    else:
        assert not torch.equal(projector("once/merged"), given["2.weight"])
        assert torch.allclose(projector("once/merged"), given["2.weight"], atol=0.05)
    # it lies in the folder of the adapter, so that plain PEFT on the base finds it
    adapter = load_file(tmp_path / "once/stages/finetune/trained/adapter_model.safetensors")
    kept = [value for name, value in adapter.items() if name.endswith("multi_modal_projector.linear_2.weight")]
    assert torch.equal(kept[0], projector("once/merged"))
    # merged again from what the stage left: the projector is there again
    before = (tmp_path / "once/merged/model.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "once/merged")
    assert lorgnette(monkeypatch, "train", recipe, "--output", "once") == 0
    assert (tmp_path / "once/merged/model.safetensors").read_bytes() == before
    torch.save({"state_dict": state | {"llm.x": torch.zeros(1)}}, tmp_path / "iter_2181.pth")
    assert lorgnette(monkeypatch, "train", recipe, "--output", "other") == 2
    assert not (tmp_path / "other" / "base").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run", "nothing.yaml"], "nothing.yaml"),
        (["run", "empty.yaml"], "empty"),
        (["run", "small.yaml", "--set", "model.build.vision_tower=/nowhere"], "/nowhere"),
        (["run", "small.yaml", "--set", "stages.0.data.0.format=easy-vqq"], "Did you mean 'easy-vqa'"),
        (["run", "small.yaml", "--set", "stages.0.data.0.split=tset"], "no split 'tset'"),
        (["run", "small.yaml", "--set", "stages.0.chat_template=vicuna"], "no template 'vicuna'"),
        (["run", "small.yaml", "--set", "stages.1.lora.target_modules=[q_prj]"], "Did you mean 'q_proj'"),
        (["run", "small.yaml", "--set", "evaluation.tasks.0.name=easy_vqa"], "no task 'easy_vqa'"),
        (["run", "small.yaml", "--output", "small.yaml"], "run folder"),
        (["compare", "nothing", "nothing"], "nothing"),
        (["run", "small.yaml", "--set", "evaluation.tasks=[{name: captions, options: {java: tru}}]"], "true or false"),
        (["run", "small.yaml", "--set", "stages.0.training.max_steps=0"], "train nothing"),
        (["run", "small.yaml", "--set", "stages.0.training.eval_strategy=epoch"], "needs `validation:`"),
        (["run", "small.yaml", "--set", "stages.0.training.report_to=wanbd"], "Did you mean 'wandb'"),
        (["run", "small.yaml", "--set", "stages.0.training.report_to=null"], "training.report_to: 'None' is unknown"),
        (["run", "small.yaml", "--set", "evaluation.tasks=[easy-vqa, 'twin:Mine']"], "both call themselves 'easy-vqa'"),
        (["run", "small.yaml", "--set", "stages.0.training.report_to=[neptune]"], "pip install neptune"),
        (["run", "small.yaml", "--set", "stages.0.training.label_smoothing_factor=0.1"], "the plain one"),
        (["run", "small.yaml", "--set", "stages.0.data.0.weight=0.001"], "leaves none"),
        (["run", "small.yaml", "--set", "model.build.vision_feature_layer=-99"], "no features"),
    ],
)
def test_wrong_input_is_explained_with_exit_code_2(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    Path("empty.yaml").write_text("")
    Path("twin.py").write_text("from lorgnette.evaluation.tasks.easy_vqa import EasyVQA\nclass Mine(EasyVQA): pass\n")
    monkeypatch.syspath_prepend(str(Path.cwd()))
    assert lorgnette(monkeypatch, *words) == 2
    captured = capsys.readouterr()
    assert says in " ".join(captured.err.split())
    assert "Traceback" not in captured.err


def test_schema_is_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert lorgnette(monkeypatch, "recipe", "schema") == 0
    assert "stages" in json.loads(capsys.readouterr().out)["properties"]


def test_qlora_and_a_soft_prompt_walk_the_road(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = yaml.safe_load(recipe.read_text())
    content["model"]["quantization"] = {"bnb_4bit_compute_dtype": "float32"}
    content["stages"][1] |= {
        "train": {"language_model": "lora", "vision_tower": "lora", "last_layers": 1},
        "prompt_tuning": {"num_virtual_tokens": 4},
        "learning_rates": {"soft_prompt": 0.1},
    }
    content["stages"][1]["lora"] = {"r": 2}
    recipe.write_text(yaml.safe_dump(content))
    assert lorgnette(monkeypatch, "run", recipe, "--output", "one") == 0
    trained = tmp_path / "one" / "stages" / "finetune" / "trained"
    assert read_json(trained / "lorgnette.json")["quantization"]["bnb_4bit_quant_type"] == "nf4"
    assert {path.name for path in trained.iterdir()} >= {"adapter_config.json", "prompt"}
    assert "multi_modal_projector" in (trained / "adapter_config.json").read_text()  # of the stage before
    rows = {row["part"]: row for row in read_json(trained.parent / "stage.json")["parts"]}
    assert rows["soft_prompt"]["trainable"] == 4 * 32
    assert rows["vision_tower"]["mode"] == "lora"
    assert (tmp_path / "one" / "merged" / "prompt" / "adapter_config.json").exists()
    # not merged, in its 4 bits, it answers as the merged model does
    words = ("--task", "easy-vqa", "--limit", "60", "--output", "unmerged", "--batch-size", "16")
    assert lorgnette(monkeypatch, "evaluate", trained, *words) == 0
    said = [row["answer"] for row in read_json_lines(tmp_path / "unmerged" / "predictions.jsonl")]
    assert said == [row["answer"] for row in answers(tmp_path / "one", "after")]
    named = read_json(tmp_path / "unmerged" / "result.json")["model"]
    assert named["quantization"] == read_json(trained / "lorgnette.json")["quantization"]
    # interrupted before the merge and called again: bitwise the same
    monkeypatch.setattr(experiment, "merged_model", stopping(experiment.merged_model, 1))
    assert lorgnette(monkeypatch, "run", recipe, "--output", "two") == 130
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    for commands in (cli.road, cli.results):
        monkeypatch.setattr(commands, "settle", lambda: None)
    assert lorgnette(monkeypatch, "run", recipe, "--output", "two") == 0
    assert (tmp_path / "one/comparison.json").read_bytes() == (tmp_path / "two/comparison.json").read_bytes()
    for name in ("model.safetensors", "prompt/adapter_model.safetensors"):
        assert (tmp_path / "one/merged" / name).read_bytes() == (tmp_path / "two/merged" / name).read_bytes()


TEXT_TASK = '''
from lorgnette.evaluation.tasks.task import Document


class Words:
    """Say the word again."""

    name = "words"
    metric = "exact_match"
    split = "test"
    prompt = "{question}"
    max_new_tokens = 4

    def documents(self, split):
        return [Document(str(n), (), f"say {word}", word, "word") for n, word in enumerate(["blue", "red", "teal"] * 4)]

    def score(self, document, answer):
        return float(answer == document.reference)
'''


def test_a_text_to_text_model_walks_the_same_road(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_text_to_text(tmp_path / "t5")
    (tmp_path / "road_words.py").write_text(TEXT_TASK)
    monkeypatch.syspath_prepend(tmp_path)
    rows = [
        {"conversations": [{"from": "human", "value": f"say {word}"}, {"from": "gpt", "value": word}]}
        for word in ["blue", "red", "teal"] * 8
    ]
    (tmp_path / "said.json").write_text(json.dumps(rows))
    content = {
        "model": {"base": str(tmp_path / "t5")},
        "stages": [
            {
                "name": "tune",
                "data": [{"path": str(tmp_path / "said.json"), "format": "llava"}],
                "train": {"language_model": "lora"},
                "lora": {"r": 8, "lora_alpha": 32, "target_modules": ["q", "v", "wi", "wo"]},
                "prompt_tuning": {"num_virtual_tokens": 3},
                "learning_rates": {"soft_prompt": 0.1},
                "training": {"learning_rate": 3e-2, "max_steps": 40, "per_device_train_batch_size": 12},
            }
        ],
        "evaluation": {"tasks": ["road_words:Words"], "batch_size": 5},
    }
    recipe = tmp_path / "t5.yaml"
    recipe.write_text(yaml.safe_dump(content))
    assert lorgnette(monkeypatch, "run", recipe, "--output", "t5-run") == 0
    (task,) = read_json(tmp_path / "t5-run" / "comparison.json")["tasks"]
    assert (task["before"], task["n"]) == (0.0, 12)
    assert task["after"] > 0.5
    assert (tmp_path / "t5-run" / "merged" / "prompt").is_dir()
    content["stages"][0]["train"] = {"language_model": "lora", "projector": "full"}
    recipe.write_text(yaml.safe_dump(content))
    assert lorgnette(monkeypatch, "run", recipe, "--output", "no-projector") == 2
