"""Assembled folders load in plain transformers and give the same logits; broken ones are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from transformers import AutoProcessor, LlavaForConditionalGeneration

from lorgnette.errors import ModelError
from lorgnette.models.assembly import assemble
from lorgnette.models.fingerprint import fingerprint
from lorgnette.models.loading import Llava, load_llava
from lorgnette.models.saving import save_llava

Parts = Callable[[str, str], tuple[str, str]]


@pytest.fixture
def saved(llava: Llava, tmp_path: Path) -> Path:
    save_llava(llava, tmp_path / "model", {"kind": "base"})
    return tmp_path / "model"


@pytest.mark.parametrize("language_model", ["llama", "qwen2", "gemma"])
@pytest.mark.parametrize(
    ("tower", "strategy", "tokens"), [("clip", "default", 4), ("siglip", "full", 4), ("dinov2", "default", 4)]
)
def test_plain_transformers_loads_the_folder_and_gives_the_same_logits(
    parts: Parts, pictures: list[str], tmp_path: Path, tower: str, strategy: str, tokens: int, language_model: str
) -> None:
    llava = assemble(*parts(tower, language_model), seed=3)
    assert llava.core.config.vision_feature_select_strategy == strategy
    assert llava.image_tokens == tokens
    save_llava(llava, tmp_path / "model", {"kind": "base"})
    # a name with "v" in the folder or not must make no difference: everything below is transformers' own
    plain, report = LlavaForConditionalGeneration.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not any(report.values())
    processor = AutoProcessor.from_pretrained(tmp_path / "model", backend="pil")
    text = processor.tokenizer.apply_chat_template(
        [{"role": "user", "content": "<image>\nwhat color is the shape?"}], tokenize=False, add_generation_prompt=True
    )
    inputs = processor(text=text, images=Image.open(pictures[0]).convert("RGB"), return_tensors="pt")
    assert int((inputs["input_ids"] == plain.config.image_token_id).sum()) == tokens
    llava.core.model.language_model.set_attn_implementation("sdpa")
    with torch.no_grad():
        expected = llava.core(**inputs).logits
        found = plain.eval()(**inputs).logits
    assert torch.equal(found, expected)
    stop = plain.generation_config.eos_token_id
    assert processor.tokenizer.convert_tokens_to_ids("<|im_end|>") in stop


def test_parts_keep_their_weights(parts: Parts) -> None:
    from transformers import AutoModelForCausalLM, CLIPVisionModel

    tower, language_model = parts("clip", "llama")
    llava = assemble(tower, language_model)
    original = CLIPVisionModel.from_pretrained(tower).state_dict()
    assert all(torch.equal(value, original[name]) for name, value in llava.core.model.vision_tower.state_dict().items())
    words = AutoModelForCausalLM.from_pretrained(language_model)
    count = words.get_input_embeddings().num_embeddings
    found = llava.core.get_input_embeddings().weight
    assert torch.equal(found[:count], words.get_input_embeddings().weight)
    assert torch.equal(llava.core.lm_head.weight[:count], words.lm_head.weight)
    assert found.shape[0] % 64 == 0
    assert llava.core.config.image_token_id < found.shape[0]


@pytest.mark.parametrize("language_model", ["qwen2", "gemma"])
def test_tied_embeddings_stay_tied(parts: Parts, tmp_path: Path, language_model: str) -> None:
    llava = assemble(*parts("clip", language_model))
    assert llava.core.lm_head.weight is llava.core.get_input_embeddings().weight
    save_llava(llava, tmp_path / "m", {})
    again = load_llava(str(tmp_path / "m")).core
    assert again.lm_head.weight is again.get_input_embeddings().weight


def test_vision_tensors_have_the_names_that_both_transformers_4_and_5_read(saved: Path) -> None:
    with safe_open(saved / "model.safetensors", framework="pt") as file:
        names = list(file.keys())
    tower = [name for name in names if "vision_tower" in name]
    assert tower
    assert all(".vision_tower.vision_model." in f".{name}" for name in tower)
    # what else 4.57 needs, seen with 4.57.6: it knows neither the class nor the list of tokens that version 5 writes
    assert (saved / "preprocessor_config.json").exists()
    tokenizer = json.loads((saved / "tokenizer_config.json").read_text())
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not isinstance(tokenizer.get("extra_special_tokens"), list)
    assert "token_type_ids" not in tokenizer["model_input_names"]


@pytest.mark.parametrize("language_model", ["qwen2", "gemma"])
def test_tokenizers_of_every_class_are_written_as_4_57_reads_them(
    parts: Parts, tmp_path: Path, language_model: str
) -> None:
    """Seen with 4.57.6: a list of tokens is an error there in Qwen2's own class too."""
    save_llava(assemble(*parts("clip", language_model)), tmp_path / "m", {})
    tokenizer = json.loads((tmp_path / "m" / "tokenizer_config.json").read_text())
    assert not isinstance(tokenizer.get("extra_special_tokens"), list)
    again = load_llava(str(tmp_path / "m"))
    assert again.tokenizer.convert_tokens_to_ids("<image>") == again.core.config.image_token_id


def test_rotary_settings_are_spelled_for_both_and_read_back(parts: Parts, tmp_path: Path) -> None:
    llava = assemble(*parts("clip", "llama"))
    scaled = {"rope_type": "linear", "factor": 2.0, "rope_theta": 123456.0}
    llava.core.config.text_config.rope_parameters = scaled
    save_llava(llava, tmp_path / "m", {})
    text = json.loads((tmp_path / "m" / "config.json").read_text())["text_config"]
    assert text["rope_theta"] == 123456.0
    assert text["rope_scaling"] == {"rope_type": "linear", "factor": 2.0}
    assert load_llava(str(tmp_path / "m")).core.config.text_config.rope_parameters == scaled


def test_sharded_folders_have_renamed_tensors_and_index(llava: Llava, tmp_path: Path) -> None:
    save_llava(llava, tmp_path / "m", {}, max_shard_size="40KB")
    index = json.loads((tmp_path / "m" / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(set(index.values())) > 1
    again = load_llava(str(tmp_path / "m"))
    for (name, a), (_, b) in zip(llava.core.state_dict().items(), again.core.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


def test_several_feature_layers_widen_the_projector(parts: Parts, pictures: list[str]) -> None:
    llava = assemble(*parts("clip", "llama"), vision_feature_layer=[-1, -2])
    assert llava.core.model.multi_modal_projector.linear_1.in_features == 2 * 24
    assert llava.image_tokens == 4


def test_image_size_changes_the_number_of_tokens(parts: Parts) -> None:
    assert assemble(*parts("dinov2", "llama"), image_size=32).image_tokens == 16
    with pytest.raises(ModelError, match="image_size"):
        assemble(*parts("clip", "llama"), image_size=32)


def test_the_seed_decides_projector_and_image_token(parts: Parts) -> None:
    both = parts("clip", "llama")
    first, again, other = (assemble(*both, seed=seed).core.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(
        first["model.multi_modal_projector.linear_1.weight"], other["model.multi_modal_projector.linear_1.weight"]
    )


def _delete_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _truncate_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def _empty_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def _delete_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _garble_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def _delete_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def _rename_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if "multi_modal_projector" in name)
    tensors["something.else"] = tensors.pop(name)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    "spoil",
    [
        _delete_weights,
        _truncate_weights,
        _empty_weights,
        _delete_config,
        _garble_config,
        _delete_tokenizer,
        _rename_tensor,
    ],
)
def test_spoiled_folders_are_refused_with_their_name(saved: Path, spoil: Callable[[Path], None]) -> None:
    spoil(saved)
    with pytest.raises(ModelError, match="model"):
        load_llava(str(saved))


@pytest.mark.parametrize(
    ("file", "field", "value"),
    [
        ("config.json", "image_token_index", 10**30),
        ("config.json", "vision_feature_layer", "last"),
        ("processor_config.json", "rescale_factor", 0.0),
        ("processor_config.json", "image_std", [0.2, float("nan"), 0.2]),
        ("processor_config.json", "image_mean", [1e999, 0, 0]),
    ],
)
def test_settings_that_no_model_can_work_with_are_refused(saved: Path, file: str, field: str, value: object) -> None:
    content = json.loads((saved / file).read_text())
    settings = content["image_processor"] if file == "processor_config.json" else content
    assert field in settings or field == "image_token_index"
    settings[field] = value
    (saved / file).write_text(json.dumps(content))
    with pytest.raises(ModelError):
        load_llava(str(saved))


def test_two_models_that_do_not_fit_are_named(parts: Parts, tmp_path: Path) -> None:
    tower, language_model = parts("clip", "llama")
    with pytest.raises(ModelError, match="vision_feature_layer"):
        assemble(tower, language_model, vision_feature_layer=99)
    shutil.copytree(language_model, tmp_path / "words")
    settings = json.loads((tmp_path / "words" / "tokenizer_config.json").read_text())
    (tmp_path / "words" / "tokenizer_config.json").write_text(json.dumps(settings | {"model_max_length": {}}))
    with pytest.raises(ModelError, match="words: cannot load the tokenizer"):
        assemble(tower, str(tmp_path / "words"))


def test_memory_that_ran_out_is_not_blamed_on_the_folder(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr("lorgnette.models.loading.LlavaForConditionalGeneration.from_pretrained", full)
    with pytest.raises(RuntimeError, match="CUDA out of memory"):
        load_llava(str(saved))


def test_what_is_no_llava_is_refused(parts: Parts, tmp_path: Path) -> None:
    tower, language_model = parts("clip", "llama")
    with pytest.raises(ModelError, match="'llama' model"):
        load_llava(language_model)
    with pytest.raises(ModelError, match="no such folder"):
        load_llava(str(tmp_path / "nothing"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(ModelError, match="this is a file"):
        load_llava(str(tmp_path / "file"))
    with pytest.raises(ModelError, match="language model"):
        assemble(tower, tower)
    with pytest.raises(ModelError, match="no such starter model"):
        assemble("starter:tower", language_model)


def test_fingerprint_follows_the_content(saved: Path, tmp_path: Path) -> None:
    before = fingerprint(saved)
    shutil.copytree(saved, tmp_path / "renamed")
    assert fingerprint(tmp_path / "renamed") == before
    _rename_tensor(saved)
    assert fingerprint(saved) != before
    assert fingerprint("org/name") == "hub:org/name"


def test_the_fingerprint_of_a_hub_name_is_the_commit_that_was_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for commit in ("0" * 40, "1" * 40):
        snapshot = tmp_path / "models--org--name" / "snapshots" / commit
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text("{}")
        (tmp_path / "models--org--name" / "refs").mkdir(exist_ok=True)
        (tmp_path / "models--org--name" / "refs" / "main").write_text(commit)
        assert fingerprint("org/name") == f"hub:org/name@{commit}"
    assert fingerprint("no/such/folder") == "hub:no/such/folder"
