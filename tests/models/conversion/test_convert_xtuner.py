"""XTuner's checkpoints and exports to Hugging Face and PEFT: logits as XTuner's own arrangement computes them."""

from __future__ import annotations

import json
import shutil
import sys
import types
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from formats import (
    hf_logits,
    ids_of,
    largest_difference,
    llava_logits,
    lora_on,
    make_original,
    pixels_of,
    projector_module,
    projector_tensors,
    text_model,
    write_adapter,
)
from internlm2_reference import logits as internlm2_logits
from internlm2_reference import make_tensors, write_folder
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, CLIPVisionModel, LlavaForConditionalGeneration

from lorgnette.errors import ModelError
from lorgnette.models.assembly import assemble
from lorgnette.models.conversion.convert import Options, convert
from lorgnette.models.conversion.xtuner import parse_settings
from lorgnette.models.saving import save_llava
from small import make_tokenizer

Parts = Callable[[str, str], tuple[str, str]]
CONFIG = """
llm_name_or_path = 'internlm/internlm2-chat-1_8b'
model = dict(
    freeze_llm=True,
    llm=dict(pretrained_model_name_or_path=llm_name_or_path, type='transformers.AutoModelForCausalLM.from_pretrained'),
    llm_lora=dict(bias='none', lora_alpha=16, lora_dropout=0.05, r=4, task_type='CAUSAL_LM', type='peft.LoraConfig'),
    type='xtuner.model.LLaVAModel',
    visual_encoder_lora=dict(bias='none', lora_alpha=6, lora_dropout=0.1, r=2, type='peft.LoraConfig'),
    visual_select_layer=-2)
"""


class HistoryBuffer:
    """As mmengine's: keeps numpy arrays and its own methods, so its pickle asks for classes and functions."""

    def __init__(self) -> None:
        self.log = np.array([1.0, 2.0])
        self.statistics_methods = {"mean": HistoryBuffer.mean}

    def mean(self) -> float:
        return float(self.log.mean())


@pytest.fixture
def training_log(monkeypatch: pytest.MonkeyPatch) -> object:
    """What mmengine puts into every checkpoint beside the tensors."""
    module = types.ModuleType("mmengine.logging.history_buffer")
    for name in ("mmengine", "mmengine.logging"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(HistoryBuffer, "__module__", module.__name__)
    module.HistoryBuffer = HistoryBuffer  # type: ignore[attr-defined]
    return {"log_scalars": OrderedDict(loss=HistoryBuffer()), "runtime_info": OrderedDict(iter=2181)}


def checkpoint(tensors: dict[str, torch.Tensor], log: object = None, config: str | None = CONFIG) -> dict:
    meta = {"epoch": 0, "iter": 2181, "time": "20240101_000000", "mmengine_version": "0.10.3"}
    return {
        "meta": meta if config is None else meta | {"cfg": config},
        "state_dict": OrderedDict(tensors),
        "message_hub": log,
        "param_schedulers": [{"base_values": [1e-3], "last_step": 2181}],
    }


@pytest.fixture
def base(parts: Parts, tmp_path: Path) -> Path:
    """The LLaVA that an XTuner run starts from, as `model build` makes it."""
    llava = assemble(*parts("clip", "llama"), seed=3)
    save_llava(llava, tmp_path / "base", {})
    return tmp_path / "base"


def xtuner_parts(parts: Parts, *, lora: bool = True):
    """Language model, tower and projector as an XTuner run leaves them, and the tensors that it saves."""
    tower_folder, language_folder = parts("clip", "llama")
    language = AutoModelForCausalLM.from_pretrained(language_folder).eval()
    tower = CLIPVisionModel.from_pretrained(tower_folder).eval()
    projector = projector_tensors("mlp2x_gelu", seed=21)
    saved = {f"projector.model.{name}": value for name, value in projector.items()}
    if lora:
        language, own = lora_on(language, ["q_proj", "v_proj", "lm_head"], seed=22, r=4, alpha=16)
        saved |= {f"llm.{name}": value for name, value in own.items()}
        tower, own = lora_on(tower, ["k_proj", "fc1"], seed=23, r=2, alpha=6)
        old = "visual_encoder.base_model.model.vision_model."
        saved |= {old + name.removeprefix("base_model.model."): value for name, value in own.items()}
    return language, tower, projector_module(projector), saved


def test_checkpoints_with_lora_on_both_become_one_peft_folder(
    parts: Parts, base: Path, tmp_path: Path, training_log: object
) -> None:
    language, tower, projector, saved = xtuner_parts(parts)
    torch.save(checkpoint(saved, training_log), tmp_path / "whatever")
    done = convert(str(tmp_path / "whatever"), "hf", tmp_path / "peft", Options(base=str(base)))
    assert "XTuner" in done.said[0]
    assert any("pads pictures" in sentence and "--do-pad" in sentence for sentence in done.said)
    plain = LlavaForConditionalGeneration.from_pretrained(base)
    adapted = PeftModel.from_pretrained(plain, tmp_path / "peft").eval()
    ids, pixels = ids_of(AutoTokenizer.from_pretrained(base)), pixels_of()
    expected = llava_logits(language, tower, projector, ids, pixels)
    assert largest_difference(hf_logits(adapted, ids, pixels, 4), expected) <= 1e-5
    # to XTuner's own export and back: the same adapters
    convert(str(tmp_path / "peft"), "xtuner", tmp_path / "export", Options(base=str(base)))
    found = load_file(tmp_path / "export" / "visual_encoder_adapter" / "adapter_model.safetensors")
    for name, value in saved.items():
        if name.startswith("visual_encoder."):
            plain_name = name.removeprefix("visual_encoder.").replace(".default", "")
            assert torch.equal(found[plain_name], value), name
    for name in ("llm_adapter", "visual_encoder_adapter", "projector"):  # their names say nothing
        (tmp_path / "export" / name).rename(tmp_path / "export" / name[::-1])
    (base / "preprocessor_config.json").write_text('{"do_pad": true}')
    done = convert(str(tmp_path / "export"), "hf", tmp_path / "again", Options(base=str(base)))
    assert not any("pads pictures" in sentence for sentence in done.said)
    one, two = (load_file(tmp_path / f / "adapter_model.safetensors") for f in ("peft", "again"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], value) for name, value in two.items())
    assert _settings(tmp_path / "peft") == _settings(tmp_path / "again")


def test_a_tower_trained_whole_beside_lora(parts: Parts, base: Path, tmp_path: Path) -> None:
    language, _, projector, saved = xtuner_parts(parts)
    tower = CLIPVisionModel.from_pretrained(parts("clip", "llama")[0]).eval()
    tower.load_state_dict({name: value + 0.04 for name, value in tower.state_dict().items()})
    saved = {name: value for name, value in saved.items() if not name.startswith("visual_encoder.")}
    saved |= {f"visual_encoder.vision_model.{name}": value for name, value in tower.state_dict().items()}
    torch.save(checkpoint(saved), tmp_path / "iter_1.pth")
    convert(str(tmp_path / "iter_1.pth"), "hf", tmp_path / "peft", Options(base=str(base)))
    adapted = PeftModel.from_pretrained(LlavaForConditionalGeneration.from_pretrained(base), tmp_path / "peft").eval()
    ids, pixels = ids_of(AutoTokenizer.from_pretrained(base)), pixels_of()
    expected = llava_logits(language, tower, projector, ids, pixels)
    assert largest_difference(hf_logits(adapted, ids, pixels, 4), expected) <= 1e-5
    lacking = "visual_encoder.vision_model.post_layernorm.bias"
    torch.save(checkpoint({name: value for name, value in saved.items() if name != lacking}), tmp_path / "iter_2.pth")
    with pytest.raises(ModelError, match=r"missing: model\.vision_tower\.post_layernorm\.bias"):
        convert(str(tmp_path / "iter_2.pth"), "hf", tmp_path / "out", Options(base=str(base)))


def _settings(folder: Path) -> dict:
    settings = json.loads((folder / "adapter_config.json").read_text())
    return {name: settings.get(name) for name in ("r", "lora_alpha", "rank_pattern", "alpha_pattern")}


def test_lora_without_its_alpha_is_refused_until_the_configuration_is_given(
    parts: Parts, base: Path, tmp_path: Path
) -> None:
    _, _, _, saved = xtuner_parts(parts)
    torch.save(checkpoint(saved, config=None), tmp_path / "iter_1.pth")
    with pytest.raises(ModelError, match="--xtuner-config"):
        convert(str(tmp_path / "iter_1.pth"), "hf", tmp_path / "peft", Options(base=str(base)))
    (tmp_path / "c.py").write_text("raise SystemExit('never run')\n" + CONFIG)
    options = Options(base=str(base), xtuner_config=tmp_path / "c.py")
    convert(str(tmp_path / "iter_1.pth"), "hf", tmp_path / "peft", options)
    assert _settings(tmp_path / "peft")["lora_alpha"] in (6, 16)
    assert parse_settings("model = dict(llm_lora=dict(lora_alpha=open('x')))") == {"llm_lora": {}}


@pytest.mark.parametrize("depth", ["linear", "mlp2x_gelu", "mlp3x_gelu"])
def test_projector_checkpoints_come_back_bit_for_bit(tmp_path: Path, depth: str, training_log: object) -> None:
    # XTuner's projector is a Sequential even with one layer
    tensors = projector_tensors(depth)
    if depth == "linear":
        tensors = {f"0.{name}": value for name, value in tensors.items()}
    torch.save(
        checkpoint({f"projector.model.{n}": t for n, t in tensors.items()}, training_log), tmp_path / "iter_2181.pth"
    )
    convert(str(tmp_path / "iter_2181.pth"), "llava", tmp_path / "llava", Options())
    convert(str(tmp_path / "llava"), "xtuner", tmp_path / "back", Options())
    back = load_file(tmp_path / "back" / "projector" / "model.safetensors")
    assert back.keys() == {f"model.{name}" for name in tensors}
    assert all(torch.equal(back[f"model.{name}"], value) for name, value in tensors.items())


@pytest.mark.parametrize("depth", [0, -1, 10**12, "two", None, 1e999])
def test_a_projector_of_no_depth_is_refused(tmp_path: Path, depth: object) -> None:
    saved = {f"projector.model.{name}": tensor for name, tensor in projector_tensors("mlp2x_gelu").items()}
    torch.save(checkpoint(saved), tmp_path / "iter_1.pth")
    convert(str(tmp_path / "iter_1.pth"), "xtuner", tmp_path / "export", Options())
    config = tmp_path / "export" / "projector" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"depth": depth}))
    with pytest.raises(ModelError, match="Allowed: 1 to 16 layers"):
        convert(str(tmp_path / "export"), "hf", tmp_path / "out", Options())
    assert not (tmp_path / "out").exists()


def test_full_checkpoints_become_a_llava(parts: Parts, tmp_path: Path) -> None:
    tower_folder, language_folder = parts("clip", "llama")
    _, _, projector, saved = xtuner_parts(parts, lora=False)
    tokenizer = AutoTokenizer.from_pretrained(language_folder)
    language = text_model(len(tokenizer), seed=31)
    tower = CLIPVisionModel.from_pretrained(tower_folder).eval()
    tower.load_state_dict({name: value - 0.03 for name, value in tower.state_dict().items()})
    saved |= {f"llm.{name}": value for name, value in language.state_dict().items()}
    saved |= {f"visual_encoder.vision_model.{name}": value for name, value in tower.state_dict().items()}
    torch.save(checkpoint(saved), tmp_path / "iter_9.pth")
    options = Options(base=language_folder, vision_tower=tower_folder)
    convert(str(tmp_path / "iter_9.pth"), "hf", tmp_path / "hf", options)
    plain = LlavaForConditionalGeneration.from_pretrained(tmp_path / "hf").eval()
    ids, pixels = ids_of(tokenizer), pixels_of()
    expected = llava_logits(language, tower, projector, ids, pixels)
    assert largest_difference(hf_logits(plain, ids, pixels, 4), expected) <= 1e-5
    # exported as XTuner does, and read again
    done = convert(str(tmp_path / "hf"), "xtuner", tmp_path / "export", Options())
    assert not any("XTuner pads" in line for line in done.said)
    convert(str(tmp_path / "export"), "hf", tmp_path / "again", options)
    one, two = (load_file(tmp_path / f / "model.safetensors") for f in ("hf", "again"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], value) for name, value in two.items())


def test_internlm2_inside_is_taken_apart(parts: Parts, tmp_path: Path) -> None:
    """The Chinese project's setting: LoRA on all of InternLM2's modules and the head, projector, frozen tower."""
    tower_folder, _ = parts("clip", "llama")
    tokenizer = make_tokenizer(tmp_path / "internlm2", bos=True)
    tensors = make_tensors(len(tokenizer))
    write_folder(tmp_path / "internlm2", tensors)
    convert(str(tmp_path / "internlm2"), "hf", tmp_path / "llama", Options())
    save_llava(assemble(tower_folder, str(tmp_path / "llama")), tmp_path / "base", {})
    generator = torch.Generator().manual_seed(5)
    saved = {f"projector.model.{n}": t for n, t in projector_tensors("mlp2x_gelu", seed=6).items()}
    merged = dict(tensors)
    for name, weight in tensors.items():
        module = name.removesuffix(".weight")
        if module.split(".")[-1] in ("wqkv", "wo", "w1", "w2", "w3", "output"):
            a = 0.3 * torch.randn(4, weight.shape[1], generator=generator)
            b = 0.3 * torch.randn(weight.shape[0], 4, generator=generator)
            saved |= {f"llm.base_model.model.{module}.lora_{x}.default.weight": t for x, t in (("A", a), ("B", b))}
            merged[name] = weight + 4 * b @ a
    torch.save(checkpoint(saved), tmp_path / "iter_1.pth")
    convert(str(tmp_path / "iter_1.pth"), "hf", tmp_path / "peft", Options(base=str(tmp_path / "base")))
    plain = LlavaForConditionalGeneration.from_pretrained(tmp_path / "base")
    adapted = PeftModel.from_pretrained(plain, tmp_path / "peft").eval()
    tower = CLIPVisionModel.from_pretrained(tower_folder).eval()
    projector = projector_module(projector_tensors("mlp2x_gelu", seed=6))
    ids, pixels = ids_of(tokenizer), pixels_of()
    with torch.no_grad():
        features = projector(tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:])[0]
    where = ids.index(-200)
    embeddings = tensors["model.tok_embeddings.weight"]
    before, after = embeddings[ids[:where]], embeddings[ids[where + 1 :]]
    expected = internlm2_logits(merged, torch.cat([before, features, after]))
    assert largest_difference(hf_logits(adapted, ids, pixels, 4), expected) <= 1e-5


def test_deepspeed_folders(tmp_path: Path) -> None:
    tensors = {f"projector.model.{n}": t.half() for n, t in projector_tensors("mlp2x_gelu").items()}
    folder = tmp_path / "iter_5.pth"
    folder.mkdir()
    torch.save({"module": tensors, "meta": {"iter": 5}}, folder / "mp_rank_00_model_states.pt")
    done = convert(str(folder), "llava", tmp_path / "out", Options())
    assert any("DeepSpeed" in sentence for sentence in done.said)
    found = torch.load(tmp_path / "out" / "mm_projector.bin", weights_only=True)
    assert found["model.mm_projector.0.weight"].dtype == torch.float16
    (folder / "mp_rank_00_model_states.pt").rename(folder / "zero_pp_rank_0_mp_rank_00_model_states.pt")
    with pytest.raises(ModelError, match="ZeRO-3"):
        convert(str(folder), "llava", tmp_path / "out2", Options())


def test_spoiled_checkpoints_are_refused(parts: Parts, base: Path, tmp_path: Path) -> None:
    _, _, _, saved = xtuner_parts(parts)
    half = "llm.base_model.model.model.layers.1.self_attn.v_proj.lora_B.default.weight"
    cases = {
        r"missing: model\.layers\.1\.self_attn\.v_proj\.lora_B": {n: t for n, t in saved.items() if n != half},
        r"missing: model\.layers\.1\.self_attn\.q_proj": {
            n: t for n, t in saved.items() if "llm" not in n or ".1." not in n
        },
        r"v_prj": saved | {half.replace("v_proj", "v_prj"): saved[half], half: saved[half]},
        r"v_proj\.lora_B\.weight 2x4 instead of 16x4": saved | {half: torch.zeros(2, 4)},
        r"missing: 2\.bias": {n: t for n, t in saved.items() if n != "projector.model.2.bias"},
    }
    for number, (says, tensors) in enumerate(cases.items()):
        torch.save(checkpoint(tensors), tmp_path / f"{number}.pth")
        with pytest.raises(ModelError, match=says):
            convert(str(tmp_path / f"{number}.pth"), "hf", tmp_path / "out", Options(base=str(base)))
    torch.save(checkpoint(saved | {"optimizer.x": torch.zeros(1)}), tmp_path / "foreign.pth")
    with pytest.raises(ModelError, match=r"optimizer\.x"):
        convert(str(tmp_path / "foreign.pth"), "hf", tmp_path / "out", Options(base=str(base)))
    torch.save(checkpoint(saved), tmp_path / "whole.pth")
    with pytest.raises(ModelError, match="--base"):
        convert(str(tmp_path / "whole.pth"), "hf", tmp_path / "out", Options())
    data = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "whole.pth").write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelError, match="truncated or damaged"):
        convert(str(tmp_path / "whole.pth"), "hf", tmp_path / "out", Options(base=str(base)))


def test_an_adapter_folder_of_the_language_model_alone(parts: Parts, base: Path, tmp_path: Path) -> None:
    original = make_original(tmp_path / "m", parts("clip", "llama")[0])
    _, tensors = lora_on(original.language, ["q_proj"], seed=2)
    write_adapter(tmp_path / "llm_adapter", tensors, {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]})
    convert(str(tmp_path / "llm_adapter"), "hf", tmp_path / "out", Options(base=str(base)))
    names = load_file(tmp_path / "out" / "adapter_model.safetensors").keys()
    assert all(name.startswith("base_model.model.model.language_model.layers.") for name in names)
    assert len(names) == len(tensors)
    save_file({"x": torch.zeros(1)}, tmp_path / "llm_adapter" / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=r"'base_model\.model\.'"):
        convert(str(tmp_path / "llm_adapter"), "hf", tmp_path / "out2", Options(base=str(base)))


def test_an_export_with_all_parts_needs_no_base(parts: Parts, base: Path, tmp_path: Path) -> None:
    done = convert(str(base), "xtuner", tmp_path / "export", Options())
    assert any("XTuner pads pictures to squares, and this model does not" in line for line in done.said)
    shutil.move(tmp_path / "export" / "llm", tmp_path / "export" / "anything")
    convert(str(tmp_path / "export"), "hf", tmp_path / "back", Options())
    one, two = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "back"))
    assert one.keys() == two.keys()
    # the row of the image token is made anew
    kept = {name: slice(0, 400) if "embed_tokens" in name or "lm_head" in name else slice(None) for name in one}
    assert all(torch.equal(one[name][kept[name]], two[name][kept[name]]) for name in one)
