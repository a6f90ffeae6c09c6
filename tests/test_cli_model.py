"""`lorgnette model inspect | build | merge` as a user types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlavaForConditionalGeneration

from lorgnette import cli
from lorgnette.data.templates import TEMPLATES
from lorgnette.models import merging
from lorgnette.models.adapters import add_lora, save_trained
from lorgnette.models.assembly import assemble
from lorgnette.models.fingerprint import fingerprint
from lorgnette.models.learner import load_model
from lorgnette.models.saving import save_llava

MODES = {"vision_tower": "lora", "projector": "full", "language_model": "lora"}


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.model, "settle", lambda: None)  # it changes filters of warnings for the whole process


@pytest.fixture
def base(parts: Callable[[str, str], tuple[str, str]], tmp_path: Path) -> Path:
    save_llava(assemble(*parts("clip", "llama"), seed=3), tmp_path / "base", {"kind": "base"})
    return tmp_path / "base"


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    """What a stage leaves: LoRA on tower and language model, a projector, and what it stands on."""
    learner = load_model(str(base))
    adapted = replace(learner, model=add_lora(learner.core, MODES, {"r": 4}))
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in adapted.model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    save_trained(adapted.model, tmp_path / "trained")
    record = {"kind": "trained parts", "base": str(base), "base_fingerprint": fingerprint(base)}
    (tmp_path / "trained" / "lorgnette.json").write_text(json.dumps(record))
    return tmp_path / "trained"


def lorgnette(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr("sys.argv", ["lorgnette", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def test_inspect_says_what_a_folder_is(
    base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lorgnette(monkeypatch, "model", "inspect", base) == 0
    shown = capsys.readouterr().out
    assert "LLaVA: clip_vision_model + llama" in shown
    assert "4 tokens an image" in shown
    assert fingerprint(base) in shown
    total = sum(p.numel() for p in LlavaForConditionalGeneration.from_pretrained(base).parameters())
    assert f"{total:,}" in shown


def test_inspect_of_a_recipe_shows_what_each_stage_trains(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        f"model: {{base: {base}}}\n"
        "stages:\n"
        "  - name: tune\n"
        "    data: [{path: x.json, format: llava}]\n"
        "    train: {language_model: lora, vision_tower: lora, last_layers: 1}\n"
        "    lora: {r: 4}\n"
        "    prompt_tuning: {num_virtual_tokens: 5}\n"
    )
    monkeypatch.setattr("lorgnette.models.loading.LlavaForConditionalGeneration.from_pretrained", None)
    assert lorgnette(monkeypatch, "model", "inspect", "--recipe", recipe) == 0
    shown = capsys.readouterr().out
    assert "stage tune" in shown
    assert "soft_prompt" in shown
    assert "5 virtual tokens" in shown
    assert lorgnette(monkeypatch, "model", "inspect") == 2


def test_build_puts_two_models_together(
    parts: Callable[[str, str], tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tower, words = parts("siglip", "qwen2")
    assert lorgnette(monkeypatch, "model", "build", tower, words, tmp_path / "new") == 0
    assert load_model(str(tmp_path / "new")).image_tokens == 4
    assert lorgnette(monkeypatch, "model", "build", tower, words, tmp_path / "new") == 2
    assert lorgnette(monkeypatch, "model", "build", tower, words, tmp_path / "n2", "--dtype", "float16") == 2
    assert not (tmp_path / "n2").exists()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_merged_folder_answers_as_base_and_adapter(
    base: Path,
    adapter: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    dtype: str,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    output = tmp_path / "имя с пробелом"
    words = ("model", "merge", base, adapter, "-o", output, "--dtype", dtype, "--max-shard-size", "50KB")
    assert lorgnette(monkeypatch, *words) == 0
    assert f"lorgnette evaluate '{output}' --task NAME" in capsys.readouterr().out
    output.rename(tmp_path / "merged")
    assert len(list((tmp_path / "merged").glob("*.safetensors"))) > 1
    record = json.loads((tmp_path / "merged" / "lorgnette.json").read_text())
    assert record["base_fingerprint"] == fingerprint(base)
    merged = LlavaForConditionalGeneration.from_pretrained(tmp_path / "merged")
    assert str(merged.dtype) == f"torch.{dtype}"
    name = "model.language_model.layers.0.self_attn.q_proj.weight"
    before = LlavaForConditionalGeneration.from_pretrained(base).state_dict()[name]
    assert (merged.state_dict()[name].float() - before).abs().max() > 0.05
    assert (tmp_path / "merged" / "tokenizer.json").exists()


def test_a_merge_on_another_base_is_refused(
    base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    weights = load_file(base / "model.safetensors")
    weights[next(iter(weights))] += 1
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    assert lorgnette(monkeypatch, "model", "merge", base, adapter, "-o", tmp_path / "merged") == 2
    assert "give the base that it was trained on" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "merged").exists()


def test_samples_without_their_pictures_are_told_with_the_option(
    base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    turns = [{"from": "human", "value": "<image>\n?"}, {"from": "gpt", "value": "yes"}]
    (tmp_path / "rows.json").write_text(json.dumps([{"image": "1.jpg", "conversations": turns}]))
    words = ("model", "merge", base, adapter, "-o", tmp_path / "m", "--samples", tmp_path / "rows.json")
    assert lorgnette(monkeypatch, *words) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "there is no image" in said
    assert "Next: name the folder of its images with --images" in said


def test_a_written_folder_that_answers_otherwise_is_taken_away(
    base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write = merging.save_model

    def spoilt(learner, folder, record, max_shard_size) -> None:
        write(learner, folder, record, max_shard_size)
        tensors = load_file(folder / "model.safetensors")
        tensors["multi_modal_projector.linear_1.bias"] += 1
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(merging, "save_model", spoilt)
    assert lorgnette(monkeypatch, "model", "merge", base, adapter, "-o", tmp_path / "merged") == 1
    assert "logits differ" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir() if "merged" in path.name) == []


def test_a_merge_that_is_stopped_leaves_nothing(
    base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = merging.load_model

    def stopped(source, *more, **named):
        if str(source).endswith(".unchecked"):
            raise KeyboardInterrupt
        return load(source, *more, **named)

    monkeypatch.setattr(merging, "load_model", stopped)
    assert lorgnette(monkeypatch, "model", "merge", base, adapter, "-o", tmp_path / "merged") == 130
    assert sorted(path.name for path in tmp_path.iterdir() if "merged" in path.name) == []


@pytest.mark.parametrize("size", ["", "4", "GB", "0GB", "-1GB", "4 G", "nanGB", "4GiB"])
def test_a_shard_size_that_is_none_is_refused_before_the_merge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], size: str
) -> None:
    words = ("model", "merge", tmp_path, tmp_path, "-o", tmp_path / "merged", f"--max-shard-size={size}")
    assert lorgnette(monkeypatch, *words) == 2
    assert "such as 4GB" in capsys.readouterr().err


def test_folders_without_an_adapter_are_refused(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    assert lorgnette(monkeypatch, "model", "merge", base, tmp_path / "empty", "-o", tmp_path / "merged") == 2
    assert lorgnette(monkeypatch, "model", "merge", tmp_path / "no", tmp_path / "empty", "-o", tmp_path / "m") == 2


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert lorgnette(monkeypatch, *words) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("Next:") == 1
    return said


def test_a_run_folder_names_the_models_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs/a/stages/finetune/trained").mkdir(parents=True)
    for command in (("model", "inspect"), ("evaluate", "--task", "easy-vqa")):
        assert "Next: give runs/a/stages/finetune/trained" in refused(monkeypatch, capsys, *command, "runs/a")
        said = refused(monkeypatch, capsys, *command, "runs/a/stages/finetune")
        assert "Next: give runs/a/stages/finetune/trained" in said
    Path("runs/a/merged").mkdir()
    assert refused(monkeypatch, capsys, "model", "inspect", "runs/a").endswith("Next: give runs/a/merged")


def test_a_folder_that_is_not_there_is_not_asked_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs/note").mkdir(parents=True)
    said = refused(monkeypatch, capsys, "evaluate", "runs/nope", "--task", "easy-vqa")
    assert said.startswith("error: runs/nope: there is no such folder in runs/, which is a folder here. Did you mean")
    for name in ("no/such/place", "./nope", "../nope/a", "/nowhere/nope", "~/nope"):
        assert f"{name}: there is no such folder. Next: check the path." in refused(
            monkeypatch, capsys, "model", "inspect", name
        )


def test_the_models_of_the_package_are_halves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    said = refused(monkeypatch, capsys, "model", "inspect", "starter:vision-tower")
    assert "Next: lorgnette model build starter:vision-tower starter:language-model OUTPUT" in said
    said = refused(monkeypatch, capsys, "model", "build", "starter:language-model", "starter:vision-tower", "out")
    assert "is a language model (llama), and a vision tower is expected here. Next: the tower comes first" in said
    assert not Path("out").exists()


def test_inspect_names_the_chat_template(
    base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = base / "chat_template.jinja"
    for text, name in ((TEMPLATES["vicuna_v1"].jinja, "vicuna_v1"), (TEMPLATES["chatml"].jinja, "chatml")):
        file.write_text(text)
        assert lorgnette(monkeypatch, "model", "inspect", base) == 0
        assert f"chat template: {name}" in " ".join(capsys.readouterr().out.split())
    file.write_text(TEMPLATES["chatml"].jinja + "{# mine #}")
    assert lorgnette(monkeypatch, "model", "inspect", base) == 0
    assert "chat template: its own" in " ".join(capsys.readouterr().out.split())


def test_a_missing_shard_is_told_in_sentences(
    base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    places = dict.fromkeys(load_file(base / "model.safetensors"), "model-00001-of-00001.safetensors")
    (base / "model.safetensors").unlink()
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    said = refused(monkeypatch, capsys, "evaluate", base, "--task", "easy-vqa", "--limit", "1")
    assert ". The folder holds: " in said
