"""The original LLaVA's layouts to Hugging Face and back: tensor by tensor, and logit by logit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from formats import (
    hf_logits,
    ids_of,
    largest_difference,
    lora_on,
    make_original,
    pixels_of,
    projector_tensors,
    write_adapter,
    write_llava_config,
)
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import LlavaForConditionalGeneration

from lorgnette.errors import InputError, ModelError
from lorgnette.models.assembly import assemble
from lorgnette.models.conversion.convert import Done, Options, convert
from lorgnette.models.loading import load_llava
from lorgnette.models.saving import save_llava

Parts = Callable[[str, str], tuple[str, str]]
TEMPLATE = Options(template="chatml")


def to(source: Path, target: str, output: Path, **options) -> Done:
    return convert(str(source), target, output, Options(**options))


def test_a_linear_projector_beside_lora(parts: Parts, tmp_path: Path) -> None:
    tower, _ = parts("clip", "llama")
    original = make_original(tmp_path / "base", tower, "linear")
    to(tmp_path / "base", "hf", tmp_path / "hf", template="chatml")
    make_lora(tmp_path / "lora", tower, original, ["q_proj"], kind="linear")
    to(tmp_path / "lora", "hf", tmp_path / "peft", base=str(tmp_path / "hf"))
    base = LlavaForConditionalGeneration.from_pretrained(tmp_path / "hf").eval()
    adapted = PeftModel.from_pretrained(base, tmp_path / "peft").eval()
    ids, pixels = ids_of(original.tokenizer), pixels_of()
    assert largest_difference(hf_logits(adapted, ids, pixels, 4), original.logits(ids, pixels)) <= 1e-5
    to(tmp_path / "peft", "llava", tmp_path / "back", base=str(tmp_path / "hf"), vision_tower=tower)
    first, second = (torch.load(tmp_path / f / "non_lora_trainables.bin", weights_only=True) for f in ("lora", "back"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], value) for name, value in second.items())
    make_original(tmp_path / "other", tower)
    to(tmp_path / "other", "hf", tmp_path / "other-hf", template="chatml")
    with pytest.raises(ModelError, match="held with the activation 'linear'"):
        to(tmp_path / "lora", "hf", tmp_path / "no", base=str(tmp_path / "other-hf"))


@pytest.mark.parametrize("kind", ["linear", "mlp2x_gelu"])
@pytest.mark.parametrize("own_tower", [False, True])
def test_full_checkpoints_keep_logits_and_come_back_bit_for_bit(
    parts: Parts, tmp_path: Path, kind: str, own_tower: bool
) -> None:
    tower, _ = parts("clip", "llama")
    original = make_original(tmp_path / "some-name", tower, kind, own_tower=own_tower, pickled=own_tower)
    done = to(tmp_path / "some-name", "hf", tmp_path / "hf", template="chatml")
    assert "original LLaVA" in done.said[0]
    plain, report = LlavaForConditionalGeneration.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not any(report.values())
    ids, pixels = ids_of(original.tokenizer), pixels_of()
    expected = original.logits(ids, pixels)
    assert largest_difference(hf_logits(plain.eval(), ids, pixels, 4), expected) <= 1e-5
    llava = load_llava(str(tmp_path / "hf"))
    assert llava.image_tokens == 4
    assert llava.processor.image_processor.do_pad
    to(tmp_path / "hf", "llava", tmp_path / "back", vision_tower=tower)
    back = load_file(tmp_path / "back" / "model.safetensors")
    assert back.keys() == original.tensors.keys()
    assert all(torch.equal(back[name], value) for name, value in original.tensors.items())
    before, after = (json.loads((tmp_path / f / "config.json").read_text()) for f in ("some-name", "back"))
    changed = {name for name, value in before.items() if after.get(name) != value}
    assert changed <= {"tune_mm_mlp_adapter", "unfreeze_mm_vision_tower"}
    assert after["unfreeze_mm_vision_tower"] == own_tower
    words = json.loads((tmp_path / "back" / "tokenizer.json").read_text())["added_tokens"]
    assert "<image>" not in {token["content"] for token in words}
    again = to(tmp_path / "back", "hf", tmp_path / "hf2", template="chatml")
    assert again.next_step.startswith("lorgnette evaluate")
    first, second = (load_file(tmp_path / f / "model.safetensors") for f in ("hf", "hf2"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], value) for name, value in second.items())


def test_a_tower_that_only_we_know_by_name_is_not_written(parts: Parts, tmp_path: Path) -> None:
    make_original(tmp_path / "m", parts("clip", "llama")[0])
    to(tmp_path / "m", "hf", tmp_path / "hf", template="chatml")
    with pytest.raises(ModelError, match="loads its tower by name"):
        to(tmp_path / "hf", "llava", tmp_path / "back", vision_tower="starter:vision-tower")
    assert not (tmp_path / "back").exists()


def test_three_layers_are_refused_by_hugging_face_and_kept_by_the_others(parts: Parts, tmp_path: Path) -> None:
    make_original(tmp_path / "m", parts("clip", "llama")[0], "mlp3x_gelu")
    with pytest.raises(ModelError, match="mlp3x_gelu: 3 layers"):
        to(tmp_path / "m", "hf", tmp_path / "hf", template="chatml")
    assert not (tmp_path / "hf").exists()
    to(tmp_path / "m", "xtuner", tmp_path / "x")
    found = load_file(tmp_path / "x" / "projector" / "model.safetensors")
    expected = projector_tensors("mlp3x_gelu")
    assert found.keys() == {f"model.{name}" for name in expected}
    assert all(torch.equal(found[f"model.{name}"], value) for name, value in expected.items())


@pytest.mark.parametrize("kind", ["linear", "mlp2x_gelu", "mlp3x_gelu"])
@pytest.mark.parametrize("way", ["hf", "xtuner"])
def test_projectors_alone_come_back_bit_for_bit(tmp_path: Path, kind: str, way: str) -> None:
    tensors = {f"model.mm_projector.{name}": value for name, value in projector_tensors(kind).items()}
    torch.save(tensors, tmp_path / "any-name")
    if (kind, way) == ("mlp3x_gelu", "hf"):
        with pytest.raises(ModelError, match="3 layers"):
            to(tmp_path / "any-name", way, tmp_path / "there")
        return
    to(tmp_path / "any-name", way, tmp_path / "there")
    to(tmp_path / "there", "llava", tmp_path / "back")
    back = torch.load(tmp_path / "back" / "mm_projector.bin", weights_only=True)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], value) for name, value in tensors.items())


def make_lora(folder: Path, tower: str, original, targets: list[str], kind: str = "mlp2x_gelu", **more):
    """A LoRA folder as LLaVA's train.py leaves it; the base it was trained on is `original`, with another projector."""
    adapted, tensors = lora_on(original.language, targets, seed=11, **more)
    write_adapter(folder, tensors, {"r": 4, "lora_alpha": 8, "target_modules": targets} | more, pickled=True)
    projector = projector_tensors(kind, seed=12)
    beside = {f"base_model.model.model.mm_projector.{name}": value for name, value in projector.items()}
    torch.save(beside, folder / "non_lora_trainables.bin")
    write_llava_config(folder, original.language, tower, kind)
    original.language = adapted
    original.projector.load_state_dict(projector)
    return tensors


@pytest.mark.parametrize(
    ("more", "own_tower"), [({}, False), ({"use_rslora": True}, False), ({}, True)], ids=["lora", "rslora", "tower"]
)
def test_lora_folders_become_peft_folders_and_come_back(
    parts: Parts, tmp_path: Path, more: dict, own_tower: bool
) -> None:
    tower, _ = parts("clip", "llama")
    original = make_original(tmp_path / "base", tower)
    to(tmp_path / "base", "hf", tmp_path / "base-hf", template="chatml")
    tensors = make_lora(tmp_path / "lora", tower, original, ["q_proj", "down_proj"], **more)
    if own_tower:
        _train_tower(tmp_path / "lora" / "non_lora_trainables.bin", original)
    ids, pixels = ids_of(original.tokenizer), pixels_of()
    expected = original.logits(ids, pixels)
    to(tmp_path / "lora", "hf", tmp_path / "peft", base=str(tmp_path / "base-hf"))
    base = LlavaForConditionalGeneration.from_pretrained(tmp_path / "base-hf").eval()
    without = hf_logits(base, ids, pixels, 4)
    adapted = PeftModel.from_pretrained(base, tmp_path / "peft").eval()
    assert largest_difference(hf_logits(adapted, ids, pixels, 4), expected) <= 1e-5
    assert largest_difference(without, expected) > 1e-2
    to(tmp_path / "peft", "llava", tmp_path / "back", base=str(tmp_path / "base-hf"), vision_tower=tower)
    back = load_file(tmp_path / "back" / "adapter_model.safetensors")
    assert back.keys() == {name.replace(".default", "") for name in tensors}
    assert all(torch.equal(back[name.replace(".default", "")], value) for name, value in tensors.items())
    first, second = (torch.load(tmp_path / f / "non_lora_trainables.bin", weights_only=True) for f in ("lora", "back"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], value) for name, value in second.items())
    if own_tower:
        return
    # without --base its own config.json says the sizes
    to(tmp_path / "lora", "hf", tmp_path / "peft2")
    one, two = (load_file(tmp_path / f / "adapter_model.safetensors") for f in ("peft", "peft2"))
    assert all(torch.equal(one[name], value) for name, value in two.items())


def _train_tower(file: Path, original) -> None:
    """Change the tower and save it as LLaVA does with unfreeze_mm_vision_tower."""
    tower = {name: value + 0.05 for name, value in original.tower.state_dict().items()}
    original.tower.load_state_dict(tower)
    prefix = "base_model.model.model.vision_tower.vision_tower.vision_model."
    torch.save(torch.load(file, weights_only=True) | {prefix + n: v for n, v in tower.items()}, file)


def test_adapters_of_old_transformers_get_todays_names(parts: Parts, tmp_path: Path) -> None:
    tower, _ = parts("clip", "llama")
    original = make_original(tmp_path / "base", tower)
    to(tmp_path / "base", "hf", tmp_path / "hf", template="chatml")
    make_lora(tmp_path / "lora", tower, original, ["q_proj", "down_proj"])
    to(tmp_path / "lora", "hf", tmp_path / "new", base=str(tmp_path / "hf"))
    new = load_file(tmp_path / "new" / "adapter_model.safetensors")
    swaps = {
        "base_model.model.model.language_model.": "base_model.model.language_model.model.",
        "base_model.model.model.multi_modal_projector.": "base_model.model.multi_modal_projector.",
    }
    old = {}
    for name, value in new.items():
        prefix = next(prefix for prefix in swaps if name.startswith(prefix))
        old[swaps[prefix] + name.removeprefix(prefix)] = value
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"]}
    write_adapter(tmp_path / "old", old, settings | {"modules_to_save": ["multi_modal_projector"]})
    to(tmp_path / "old", "hf", tmp_path / "again", base=str(tmp_path / "hf"))
    again = load_file(tmp_path / "again" / "adapter_model.safetensors")
    assert again.keys() == new.keys()
    assert all(torch.equal(again[name], value) for name, value in new.items())
    base = LlavaForConditionalGeneration.from_pretrained(tmp_path / "hf").eval()
    adapted = PeftModel.from_pretrained(base, tmp_path / "again").eval()
    ids, pixels = ids_of(original.tokenizer), pixels_of()
    assert largest_difference(hf_logits(adapted, ids, pixels, 4), original.logits(ids, pixels)) <= 1e-5


def _spoil(file: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


SPOILED = {
    "renamed": (lambda t: t.update({"model.layer.0.q": t.pop("model.layers.0.self_attn.q_proj.weight")}), "q_proj"),
    "foreign": (lambda t: t.update({"transformer.wte": torch.zeros(2)}), "transformer.wte"),
    "missing": (lambda t: t.pop("model.norm.weight"), "missing: .*model.norm.weight|model.language_model.norm.weight"),
    "surplus": (lambda t: t.update({"model.layers.9.x.weight": torch.zeros(2)}), r"surplus: .*layers\.9\.x"),
    "shape": (lambda t: t.update({"lm_head.weight": torch.zeros(3, 32)}), "lm_head.weight 3x32 instead of"),
    "projector layer": (
        lambda t: [t.pop(f"model.mm_projector.2.{kind}") for kind in ("weight", "bias")],
        "mlp2x_gelu",
    ),
    "projector bias": (lambda t: t.pop("model.mm_projector.2.bias"), "missing: 2.bias"),
    "projector surplus": (lambda t: t.update({"model.mm_projector.1.weight": torch.zeros(2)}), "surplus: 1.weight"),
    "projector not finite": (lambda t: t["model.mm_projector.0.weight"].fill_(torch.inf), "0.weight .*not finite"),
}


@pytest.mark.parametrize("what", SPOILED)
def test_spoiled_checkpoints_are_refused_by_the_tensors_name(parts: Parts, tmp_path: Path, what: str) -> None:
    make_original(tmp_path / "m", parts("clip", "llama")[0])
    change, says = SPOILED[what]
    _spoil(tmp_path / "m" / "model.safetensors", change)
    for target, options in (("hf", {"template": "chatml"}), ("xtuner", {})):
        with pytest.raises(ModelError, match=says):
            to(tmp_path / "m", target, tmp_path / "out", **options)
    assert not list(tmp_path.glob("out*"))


def test_truncated_and_missing_files_are_refused(parts: Parts, tmp_path: Path) -> None:
    tower, _ = parts("clip", "llama")
    make_original(tmp_path / "m", tower)
    file = tmp_path / "m" / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-500])
    with pytest.raises(ModelError, match=r"model\.safetensors: .*truncated"):
        to(tmp_path / "m", "hf", tmp_path / "out", template="chatml")
    file.unlink()
    with pytest.raises(ModelError, match="no weights"):
        to(tmp_path / "m", "hf", tmp_path / "out", template="chatml")
    file.write_bytes(whole)
    _without_template(tmp_path / "m")
    with pytest.raises(ModelError, match="no chat template"):
        to(tmp_path / "m", "hf", tmp_path / "out")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps(config | {"mm_vision_tower": "nowhere/tower"}))
    with pytest.raises(ModelError, match="--vision-tower"):
        to(tmp_path / "m", "hf", tmp_path / "out", template="chatml")
    to(tmp_path / "m", "hf", tmp_path / "out", template="chatml", vision_tower=tower)
    with pytest.raises(InputError, match="is there already"):
        to(tmp_path / "m", "hf", tmp_path / "out", template="chatml", vision_tower=tower)


def _without_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    file = folder / "tokenizer_config.json"
    content = json.loads(file.read_text())
    content.pop("chat_template", None)
    file.write_text(json.dumps(content))


def test_lora_folders_that_lack_a_matrix_are_refused(parts: Parts, tmp_path: Path) -> None:
    tower, _ = parts("clip", "llama")
    original = make_original(tmp_path / "base", tower)
    make_lora(tmp_path / "lora", tower, original, ["q_proj", "v_proj"])
    file = tmp_path / "lora" / "adapter_model.bin"
    whole = torch.load(file, weights_only=True)
    half = "base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight"
    torch.save({name: value for name, value in whole.items() if name != half}, file)
    with pytest.raises(ModelError, match=r"missing: model\.layers\.1\.self_attn\.v_proj\.lora_B"):
        to(tmp_path / "lora", "hf", tmp_path / "out")
    torch.save({name: value for name, value in whole.items() if ".layers.1." not in name}, file)
    with pytest.raises(ModelError, match=r"missing: model\.layers\.1\.self_attn\.q_proj\.lora_A"):
        to(tmp_path / "lora", "hf", tmp_path / "out")
    torch.save(whole | {half.replace("v_proj", "z_proj"): torch.zeros(2, 4)}, file)
    with pytest.raises(ModelError, match=r"z_proj"):
        to(tmp_path / "lora", "hf", tmp_path / "out")


def test_later_llavas_are_refused(parts: Parts, tmp_path: Path) -> None:
    make_original(tmp_path / "m", parts("clip", "llama")[0])
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    for change in (
        {"image_aspect_ratio": "anyres"},
        {"mm_patch_merge_type": "spatial_unpad"},
        {"model_type": "llava_x"},
    ):
        (tmp_path / "m" / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(ModelError, match="Allowed"):
            to(tmp_path / "m", "hf", tmp_path / "out", template="chatml")


def test_the_kind_does_not_depend_on_names(parts: Parts, tmp_path: Path) -> None:
    make_original(tmp_path / "llava-lora-mm_projector.bin", parts("clip", "llama")[0])
    shutil.move(tmp_path / "llava-lora-mm_projector.bin", tmp_path / "iter_2181.pth")
    assert "original LLaVA" in to(tmp_path / "iter_2181.pth", "hf", tmp_path / "out", template="chatml").said[0]


def test_files_and_folders_may_have_any_name(parts: Parts, tmp_path: Path) -> None:
    tower, _ = parts("clip", "llama")
    original = make_original(tmp_path / "base", tower)
    make_lora(tmp_path / "lora", tower, original, ["q_proj"])
    to(tmp_path / "lora", "hf", tmp_path / "peft")
    shutil.move(tmp_path / "lora", tmp_path / "vicuna")
    shutil.move(tmp_path / "vicuna" / "non_lora_trainables.bin", tmp_path / "vicuna" / "rest.bin")
    torch.save({"not": "tensors"}, tmp_path / "vicuna" / "another.bin")
    to(tmp_path / "vicuna", "hf", tmp_path / "peft2")
    one, two = (load_file(tmp_path / f / "adapter_model.safetensors") for f in ("peft", "peft2"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], value) for name, value in two.items())
    # its projector in no file at all: refused, not left out
    (tmp_path / "vicuna" / "rest.bin").unlink()
    with pytest.raises(ModelError, match="without its projector"):
        to(tmp_path / "vicuna", "hf", tmp_path / "peft3")
    # the one weight file of a folder, whatever it is called; of two it must be said which
    (tmp_path / "work").mkdir()
    tensors = {f"projector.model.{name}": value for name, value in projector_tensors("mlp2x_gelu").items()}
    torch.save({"state_dict": tensors}, tmp_path / "work" / "mm_projector.bin")
    assert "XTuner" in to(tmp_path / "work", "hf", tmp_path / "p1").said[0]
    shutil.copy(tmp_path / "work" / "mm_projector.bin", tmp_path / "work" / "iter_2.pth")
    with pytest.raises(ModelError, match=r"iter_2\.pth, mm_projector\.bin could each be meant"):
        to(tmp_path / "work", "hf", tmp_path / "p2")


def test_matrices_that_need_another_base_are_refused(parts: Parts, tmp_path: Path) -> None:
    """PiSSA and its kind take what they start with out of the base."""
    tower, _ = parts("clip", "llama")
    original = make_original(tmp_path / "base", tower)
    make_lora(tmp_path / "lora", tower, original, ["q_proj"])
    file = tmp_path / "lora" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"init_lora_weights": "pissa_niter_4"}))
    with pytest.raises(ModelError, match="took weights out of the base"):
        to(tmp_path / "lora", "hf", tmp_path / "peft")


def test_numbers_that_are_not_finite_are_named(parts: Parts, tmp_path: Path) -> None:
    tower, _ = parts("clip", "llama")
    make_original(tmp_path / "base", tower)
    file = tmp_path / "base" / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = 1e30  # more than float16 holds
    save_file(tensors, file, metadata={"format": "pt"})
    to(tmp_path / "base", "hf", tmp_path / "fine", template="chatml")
    with pytest.raises(ModelError, match=r"layers\.1\.mlp\.up_proj\.weight holds numbers that are not finite"):
        to(tmp_path / "base", "hf", tmp_path / "out", template="chatml", dtype=torch.float16)
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = torch.nan
    save_file(tensors, file, metadata={"format": "pt"})
    for layout, more in (("hf", {"template": "chatml"}), ("xtuner", {})):
        source = tmp_path / ("base" if layout == "hf" else "fine")
        if layout == "xtuner":
            written = load_file(source / "model.safetensors")
            written["language_model.model.layers.1.mlp.up_proj.weight"][0, 0] = torch.inf
            save_file(written, source / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ModelError, match=r"layers\.1\.mlp\.up_proj\.weight holds numbers that are not finite"):
            to(source, layout, tmp_path / "out", **more)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "fine"]


@pytest.mark.parametrize("tower", ["siglip", "dinov2"])
def test_other_towers_come_back_bit_for_bit(parts: Parts, tmp_path: Path, tower: str) -> None:
    """DINOv2's tensors are called otherwise in files than in memory."""
    eyes, words = parts(tower, "gemma")
    save_llava(assemble(eyes, words, seed=3), tmp_path / "a", {"kind": "base"})
    to(tmp_path / "a", "hf4", tmp_path / "b")
    to(tmp_path / "b", "hf", tmp_path / "c")
    to(tmp_path / "c", "llava", tmp_path / "d", vision_tower=eyes)
    to(tmp_path / "d", "hf", tmp_path / "e", template="chatml")
    first, *others = (load_file(tmp_path / name / "model.safetensors") for name in "abce")
    for other in others:
        assert first.keys() == other.keys()
        for name, value in first.items():
            if "multi_modal_projector.linear_2" not in name and "embed_tokens" not in name:
                assert torch.equal(other[name], value)
    assert not load_llava(str(tmp_path / "e")).model.training
