"""What was trained, with its base and not merged: it is as it was trained, and nothing foreign is taken for it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lorgnette.data.sample import Sample
from lorgnette.data.templates import named_like
from lorgnette.errors import InputError, ModelError, RunError
from lorgnette.models import merging
from lorgnette.models.adapted import is_adapted, load_model_or_adapter
from lorgnette.models.adapters import add_lora
from lorgnette.models.assembly import assemble
from lorgnette.models.fingerprint import fingerprint
from lorgnette.models.inspection import describe_source
from lorgnette.models.learner import Learner, load_model
from lorgnette.models.merging import merge_adapters
from lorgnette.models.saving import save_llava
from lorgnette.training.trained import keep_trained
from small import make_text_to_text
from trained import MODES, PLAN, shaken, trained_on


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def logits(learner: Learner, samples: list[Sample]) -> torch.Tensor:
    learner.model.eval()
    renderer = learner.renderer()
    row = learner.collator()([renderer.render(sample) for sample in samples])["row"]
    with torch.no_grad():
        return learner.logits(row).float()


@pytest.fixture
def base(parts: Callable[[str, str], tuple[str, str]], tmp_path: Path) -> Path:
    save_llava(assemble(*parts("clip", "llama"), seed=3), tmp_path / "base", {"kind": "base"})
    return tmp_path / "base"


@pytest.mark.parametrize(
    "settings",
    [{}, {"quantization": PLAN}, {"use_dora": True}, {"target_modules": ["q_proj", "lm_head"]}],
    ids=["lora", "4 bits", "dora", "head"],
)
def test_loaded_unmerged_it_answers_as_it_was_trained(
    base: Path, tmp_path: Path, samples: list[Sample], settings: dict
) -> None:
    trained = trained_on(base, tmp_path / "stage", **settings)
    assert is_adapted(str(tmp_path / "stage" / "trained"))
    again = load_model_or_adapter(str(tmp_path / "stage" / "trained"))
    assert again.quantization == settings.get("quantization")
    assert named_like(again.template_text()) == "vicuna_v1"
    assert torch.equal(logits(again, samples), logits(trained, samples))
    plain = replace(again, model=load_model_or_adapter(str(base)).model)
    assert not torch.allclose(logits(plain, samples), logits(trained, samples), atol=1e-2)


def test_a_run_that_was_moved_finds_its_own_base(base: Path, tmp_path: Path, samples: list[Sample]) -> None:
    trained = trained_on(base, tmp_path / "stages" / "tune")
    expected = logits(trained, samples)
    (tmp_path / "elsewhere").mkdir()
    for name in ("base", "stages"):
        shutil.move(tmp_path / name, tmp_path / "elsewhere" / name)
    moved = tmp_path / "elsewhere" / "stages" / "tune" / "trained"
    assert torch.equal(logits(load_model_or_adapter(str(moved)), samples), expected)
    settings = tmp_path / "elsewhere" / "base" / "config.json"
    settings.write_text(settings.read_text() + " ")
    with pytest.raises(InputError, match="give the base that it was trained on"):
        load_model_or_adapter(str(moved))


def test_a_merge_carries_template_and_soft_prompt(base: Path, tmp_path: Path, samples: list[Sample]) -> None:
    trained = trained_on(base, tmp_path / "stage")
    merge_adapters(str(base), [tmp_path / "stage/trained"], tmp_path / "m", dtype="float32", max_shard_size="4GB")
    merged = load_model(str(tmp_path / "m"))
    assert named_like(merged.template_text()) == "vicuna_v1"
    assert (tmp_path / "m" / "chat_template.jinja").read_text() == trained.template_text()
    assert torch.allclose(logits(merged, samples), logits(trained, samples), atol=1e-4)


def test_half_precision_is_written_on_wish(base: Path, tmp_path: Path) -> None:
    trained_on(base, tmp_path / "stage")
    merge_adapters(str(base), [tmp_path / "stage/trained"], tmp_path / "m", dtype="float16", max_shard_size="4GB")
    assert {t.dtype for t in load_file(tmp_path / "m/model.safetensors").values()} == {torch.float16}


def test_a_small_adapter_that_was_not_written_is_noticed(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its logits differ from the base's by less than bfloat16 may round."""
    trained_on(base, tmp_path / "stage", size=0.001)
    write = merging.save_model

    def forgetful(learner, folder, record, max_shard_size) -> None:
        prompt, template = learner.soft_prompt, learner.template_text()
        plain = load_model(str(base), torch.bfloat16)
        plain.processor.chat_template = plain.tokenizer.chat_template = template
        write(replace(plain, soft_prompt=prompt), folder, record, max_shard_size)

    monkeypatch.setattr(merging, "save_model", forgetful)
    with pytest.raises(RunError, match="was not written as it was merged"):
        merge_adapters(str(base), [tmp_path / "stage/trained"], tmp_path / "m", dtype="bfloat16", max_shard_size="4GB")
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith("m")]


def test_whatever_stops_a_merge_nothing_is_left_behind(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained_on(base, tmp_path / "stage")
    words = {"dtype": "float32", "max_shard_size": "4GB"}
    for name in ("save_model", "_require_same_weights"):

        def stopped(*_: object, name: str = name) -> None:
            raise KeyboardInterrupt(name)

        with monkeypatch.context() as patch:
            patch.setattr(merging, name, stopped)
            with pytest.raises(KeyboardInterrupt):
                merge_adapters(str(base), [tmp_path / "stage/trained"], tmp_path / "m", **words)
    with monkeypatch.context() as patch:
        patch.setattr("lorgnette.models.saving.write_beside_weights", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            merge_adapters(str(base), [tmp_path / "stage/trained"], tmp_path / "m", **words)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("m")) == []


def test_it_goes_with_its_base_only(base: Path, tmp_path: Path) -> None:
    trained_on(base, tmp_path / "stage")
    settings = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(settings | {"vision_feature_layer": -1}))
    with pytest.raises(InputError, match="give the base that it was trained on"):
        load_model_or_adapter(str(tmp_path / "stage" / "trained"))
    (tmp_path / "stage" / "trained" / "lorgnette.json").unlink()
    file = tmp_path / "stage" / "trained" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": None}))
    with pytest.raises(ModelError, match="does not say what it was trained on"):
        load_model_or_adapter(str(tmp_path / "stage" / "trained"))


def test_a_gemmas_projector_of_unknown_side_is_refused(
    parts: Callable[[str, str], tuple[str, str]], tmp_path: Path
) -> None:
    save_llava(assemble(*parts("clip", "gemma"), seed=3), tmp_path / "base", {"kind": "base"})
    trained_on(tmp_path / "base", tmp_path / "stage")
    load_model_or_adapter(str(tmp_path / "stage" / "trained"))
    file = tmp_path / "stage" / "trained" / "lorgnette.json"
    record = json.loads(file.read_text())
    record.pop("versions")
    for side in ({}, {"meant_for": "transformers < 5.4"}):
        file.write_text(json.dumps(record | side))
        with pytest.raises(ModelError, match=r"not known to be meant for transformers >= 5.4.*model convert"):
            load_model_or_adapter(str(tmp_path / "stage" / "trained"))


def test_inspecting_it_shows_what_was_trained_on_what(base: Path, tmp_path: Path) -> None:
    trained = trained_on(base, tmp_path / "stage", quantization=PLAN)
    found = describe_source(str(tmp_path / "stage" / "trained"))
    facts = dict(found.facts)
    assert facts["base"] == str(base)
    assert facts["base fingerprint"] == fingerprint(base)
    assert "nf4" in facts["quantization"]
    assert facts["soft prompt"] == "3 virtual tokens"
    counted = {part.part: (part.mode, part.trainable) for part in found.parts}
    own = {name: p.numel() for name, p in trained.module.named_parameters() if p.requires_grad}
    assert sum(count for _, count in counted.values()) == sum(own.values())
    assert {part: mode for part, (mode, _) in counted.items()} == MODES | {"soft_prompt": "full"}


def test_a_text_to_text_adapter_too(tmp_path: Path) -> None:
    make_text_to_text(tmp_path / "t5")
    learner = load_model(str(tmp_path / "t5"))
    modes = {"language_model": "lora"}
    adapted = add_lora(learner.core, modes, {"r": 4, "target_modules": ["q", "v"]})
    learner = shaken(replace(learner, model=adapted))
    keep_trained(learner, tmp_path / "stage", fingerprint(tmp_path / "t5"), modes, None)
    again = load_model_or_adapter(str(tmp_path / "stage" / "trained"))
    words = again.tokenizer("What is this?", return_tensors="pt")["input_ids"]
    asked = {"input_ids": words, "decoder_input_ids": torch.tensor([[0, 5]])}
    with torch.no_grad():
        assert torch.equal(again.model(**asked).logits, learner.model.eval()(**asked).logits)
    assert {part.mode for part in describe_source(str(tmp_path / "stage" / "trained")).parts} == {"lora"}


def test_a_merge_names_what_is_not_finite(base: Path, tmp_path: Path) -> None:
    trained_on(base, tmp_path / "stage")
    file = tmp_path / "stage" / "trained" / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("layers.1.self_attn.v_proj.lora_B.weight"))
    tensors[name][0, 0] = torch.nan
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"layers\.1\.self_attn\.v_proj\.lora_B.* not finite"):
        merge_adapters(str(base), [file.parent], tmp_path / "m", dtype="float32", max_shard_size="4GB")
    assert not (tmp_path / "m").exists()


def _without(name: str) -> Callable[[dict], dict]:
    return lambda tensors: {key: value for key, value in tensors.items() if not key.endswith(name)}


def _renamed(name: str) -> Callable[[dict], dict]:
    return lambda tensors: {key.replace(name, "other"): value for key, value in tensors.items()}


def _narrower(name: str) -> Callable[[dict], dict]:
    return lambda ts: {k: v[..., :-1].contiguous() if k.endswith(name) else v for k, v in ts.items()}


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (_without("layers.0.mlp.up_proj.lora_B.weight"), r"missing: .*layers\.0\.mlp\.up_proj\.lora_B"),
        (_without("linear_1.bias"), r"missing: .*linear_1\.bias"),
        (_renamed("layers.1.self_attn.q_proj"), r"missing: .*1\.self_attn\.q_proj.*surplus: .*other"),
        (_narrower("layers.0.mlp.up_proj.lora_A.weight"), r"of another shape: .*up_proj\.lora_A\.weight 4x31"),
        (_narrower("linear_2.weight"), r"of another shape: .*linear_2\.weight"),
    ],
    ids=["missing", "projector", "renamed", "shape", "projector shape"],
)
def test_tensors_that_do_not_fit_are_named(base: Path, tmp_path: Path, spoil: Callable, named: str) -> None:
    trained_on(base, tmp_path / "stage")
    file = tmp_path / "stage" / "trained" / "adapter_model.safetensors"
    save_file(spoil(load_file(file)), file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=named):
        load_model_or_adapter(str(file.parent))


def test_files_of_what_was_trained_that_are_gone_are_named(base: Path, tmp_path: Path) -> None:
    """Whatever trained: without its file the base's own weights would answer in silence."""
    learner = load_model(str(base), torch.float32)
    modes = {"vision_tower": "full", "projector": "full", "language_model": "lora"}
    adapted = add_lora(learner.core, modes, {"r": 4})
    keep_trained(shaken(replace(learner, model=adapted)), tmp_path / "whole", fingerprint(base), modes, None)
    trained_on(base, tmp_path / "prompted")
    for stage, file, parts in (
        ("whole", "trained.safetensors", "vision_tower"),
        ("whole", "adapter_config.json", "language_model"),
        ("prompted", "prompt", "soft_prompt"),
    ):
        folder = shutil.copytree(tmp_path / stage / "trained", tmp_path / f"without {file}")
        shutil.move(folder / file, tmp_path / f"moved {file}")
        with pytest.raises(ModelError, match=rf"lacks {file} \({parts}\) of what was trained"):
            load_model_or_adapter(str(folder))
        with pytest.raises(ModelError, match=rf"lacks {file} \({parts}\) of what was trained"):
            merge_adapters(str(base), [folder], tmp_path / "m", dtype="float32", max_shard_size="4GB")
    file = tmp_path / "whole" / "trained" / "trained.safetensors"
    tensors = load_file(file)
    gone = next(name for name in tensors if name.endswith("layers.0.mlp.fc1.bias"))
    save_file({name: value for name, value in tensors.items() if name != gone}, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"missing: .*layers\.0\.mlp\.fc1\.bias"):
        load_model_or_adapter(str(file.parent))


@pytest.mark.parametrize(
    ("field", "value"),
    [("chat_template", 5), ("quantization", {"bits": 4}), ("modes", ["lora"]), ("in_place", "all"), ("dtype", 16)],
)
def test_a_record_that_training_does_not_write_is_refused(
    base: Path, tmp_path: Path, field: str, value: object
) -> None:
    trained_on(base, tmp_path / "stage")
    file = tmp_path / "stage" / "trained" / "lorgnette.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
    with pytest.raises(ModelError, match=rf"lorgnette\.json, {field}"):
        load_model_or_adapter(str(file.parent))


class Evil:
    def __reduce__(self) -> tuple:
        return (os.system, ("true",))


def test_pickles_that_ask_for_more_are_explained_here_too(base: Path, tmp_path: Path) -> None:
    trained_on(base, tmp_path / "stage")
    folder = tmp_path / "stage" / "trained"
    (folder / "adapter_model.safetensors").unlink()
    torch.save({"a": Evil()}, folder / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"wants to run posix\.system.*refused"):
        load_model_or_adapter(str(folder))
    (base / "model.safetensors").unlink()
    torch.save({"a": Evil()}, base / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"wants to run posix\.system.*refused"):
        load_model(str(base))


def test_a_projector_of_another_kind_is_refused(base: Path, tmp_path: Path) -> None:
    trained_on(base, tmp_path / "stage")
    folder = tmp_path / "stage" / "trained"
    tensors = load_file(folder / "adapter_model.safetensors")
    own = {name.removeprefix("base_model.model."): v for name, v in tensors.items() if "multi_modal_projector" in name}
    (tmp_path / "projector").mkdir()
    save_file(own, tmp_path / "projector" / "trained.safetensors", metadata={"format": "pt"})
    record = {"base": str(base), "activation": "linear"}
    (tmp_path / "projector" / "lorgnette.json").write_text(json.dumps(record))
    with pytest.raises(ModelError, match=r"activation 'linear'.*init_projector"):
        load_model_or_adapter(str(tmp_path / "projector"))
    (tmp_path / "projector" / "lorgnette.json").write_text(json.dumps(record | {"activation": "gelu"}))
    load_model_or_adapter(str(tmp_path / "projector"))
