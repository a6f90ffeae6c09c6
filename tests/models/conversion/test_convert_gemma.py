"""LLaVAs on Gemma from before transformers 5.4: recognised, corrected once, written for either side.

What version 4 computes is imitated here by what it did: all embeddings, image features too, times sqrt(hidden size).
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from formats import hf_logits, ids_of, largest_difference, pixels_of, projector_tensors
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, LlavaForConditionalGeneration

from lorgnette.errors import ModelError
from lorgnette.models.assembly import assemble
from lorgnette.models.conversion.convert import Options, convert
from lorgnette.models.conversion.projector import load_projector, read_projector
from lorgnette.models.loading import Llava, load_llava
from lorgnette.models.saving import save_llava

Parts = Callable[[str, str], tuple[str, str]]
SCALE = 32**0.5


def old_logits(folder: Path, ids: list[int], pixels: torch.Tensor) -> torch.Tensor:
    """Compute as transformers 4.57 does: its Gemma multiplies inputs_embeds, whatever they are made of."""
    model = LlavaForConditionalGeneration.from_pretrained(folder).eval()
    last = model.model.multi_modal_projector.linear_2
    last.register_forward_hook(lambda *call: call[2] * SCALE)
    return hf_logits(model, ids, pixels, 4)


@pytest.fixture
def old(parts: Parts, tmp_path: Path) -> Path:
    """A folder as deepvk/llava-gemma-2b-lora: saved by 4.42.4, activation null, a processor without patch size."""
    llava = assemble(*parts("clip", "gemma"), seed=3)
    llava.core.model.multi_modal_projector.linear_2.weight.data *= 4
    save_llava(llava, tmp_path / "old", {})
    file = tmp_path / "old" / "config.json"
    config = json.loads(file.read_text())
    config["transformers_version"] = "4.42.4"
    config["text_config"] |= {"hidden_act": "gelu", "hidden_activation": None}
    config["text_config"].pop("rope_parameters")
    file.write_text(json.dumps(config))
    (tmp_path / "old" / "processor_config.json").write_text('{"processor_class": "LlavaProcessor"}')
    return tmp_path / "old"


def logits_of(llava: Llava) -> torch.Tensor:
    return hf_logits(llava.core, ids_of(llava.tokenizer), pixels_of(), llava.image_tokens)


def test_an_old_folder_is_corrected_on_load_and_says_so(old: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain = LlavaForConditionalGeneration.from_pretrained(old).eval()
    with caplog.at_level(logging.WARNING):
        llava = load_llava(str(old))
    assert "transformers 4.42.4" in caplog.text
    assert "5.6569" in caplog.text
    ids, pixels = ids_of(llava.tokenizer), pixels_of()
    expected = old_logits(old, ids, pixels)
    assert largest_difference(logits_of(llava), expected) <= 1e-5
    assert largest_difference(hf_logits(plain, ids, pixels, 4), expected) > 1e-2
    assert llava.core.config.text_config.hidden_act == "gelu_pytorch_tanh"
    assert llava.processor.patch_size == 8
    assert llava.processor.num_additional_image_tokens == 1


def test_what_we_write_is_recognised_and_never_corrected_again(
    old: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    llava = load_llava(str(old))
    expected = logits_of(llava)
    save_llava(llava, tmp_path / "new", {})
    caplog.clear()
    assert largest_difference(logits_of(load_llava(str(tmp_path / "new"))), expected) <= 1e-6
    assert not caplog.text
    text = json.loads((tmp_path / "new" / "config.json").read_text())["text_config"]
    assert text["hidden_act"] == text["hidden_activation"] == "gelu_pytorch_tanh"
    plain = LlavaForConditionalGeneration.from_pretrained(tmp_path / "new").eval()
    ids, pixels = ids_of(llava.tokenizer), pixels_of()
    assert largest_difference(hf_logits(plain, ids, pixels, 4), expected) <= 1e-6


def test_converted_for_either_side(old: Path, tmp_path: Path) -> None:
    llava = load_llava(str(old))
    ids, pixels, expected = ids_of(llava.tokenizer), pixels_of(), logits_of(llava)
    done = convert(str(old), "hf", tmp_path / "new", Options())
    assert any("multiplied by 5.6569" in sentence for sentence in done.said)
    plain = LlavaForConditionalGeneration.from_pretrained(tmp_path / "new").eval()
    assert largest_difference(hf_logits(plain, ids, pixels, 4), expected) <= 1e-5
    processor = AutoProcessor.from_pretrained(tmp_path / "new", backend="pil")
    assert (processor.patch_size, processor.vision_feature_select_strategy) == (8, "default")
    # back to the old side: recognised as old again, the same numbers but for the rounding of two multiplications
    done = convert(str(tmp_path / "new"), "hf4", tmp_path / "back", Options())
    assert any("divided by 5.6569" in sentence for sentence in done.said)
    assert largest_difference(old_logits(tmp_path / "back", ids, pixels), expected) <= 1e-5
    assert largest_difference(logits_of(load_llava(str(tmp_path / "back"))), expected) <= 1e-5
    one, two = (load_file(tmp_path / f / "model.safetensors") for f in ("old", "back"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        if "linear_2" in name:
            assert torch.allclose(two[name], value, rtol=3e-7, atol=0)
        else:
            assert torch.equal(two[name], value), name
    # old to old changes nothing at all
    convert(str(old), "hf4", tmp_path / "same", Options())
    same = load_file(tmp_path / "same" / "model.safetensors")
    assert all(torch.equal(same[name], value) for name, value in one.items())
    assert json.loads((tmp_path / "same" / "config.json").read_text())["transformers_version"] == "5.3.0"


def test_the_original_layout_holds_old_numbers(parts: Parts, old: Path, tmp_path: Path) -> None:
    tower, _ = parts("clip", "gemma")
    convert(str(old), "llava", tmp_path / "llava", Options(vision_tower=tower))
    found, before = (load_file(f / "model.safetensors") for f in (tmp_path / "llava", old))
    assert torch.equal(found["model.mm_projector.2.weight"], before["multi_modal_projector.linear_2.weight"])
    assert json.loads((tmp_path / "llava" / "config.json").read_text())["model_type"] == "llava_gemma"
    convert(str(tmp_path / "llava"), "hf", tmp_path / "hf", Options())
    llava = load_llava(str(old))
    rows = llava.core.config.image_token_id  # those after it were cut and made anew
    found = logits_of(load_llava(str(tmp_path / "hf")))[:, :rows]
    assert largest_difference(found, logits_of(llava)[:, :rows]) <= 1e-5


def test_a_version_that_is_not_there_is_asked_for(old: Path, parts: Parts, tmp_path: Path) -> None:
    config = json.loads((old / "config.json").read_text())
    config.pop("transformers_version")
    (old / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="transformers_version"):
        load_llava(str(old))
    llama = assemble(*parts("clip", "llama"))  # where it does not matter nobody asks
    save_llava(llama, tmp_path / "llama", {})
    content = json.loads((tmp_path / "llama" / "config.json").read_text())
    content.pop("transformers_version")
    (tmp_path / "llama" / "config.json").write_text(json.dumps(content))
    load_llava(str(tmp_path / "llama"))


def test_projectors_alone_are_brought_to_the_right_side(parts: Parts, tmp_path: Path) -> None:
    tensors = projector_tensors("mlp2x_gelu")
    torch.save({f"model.mm_projector.{n}": t for n, t in tensors.items()}, tmp_path / "mm_projector.bin")
    convert(str(tmp_path / "mm_projector.bin"), "hf", tmp_path / "p", Options())
    assert json.loads((tmp_path / "p" / "lorgnette.json").read_text())["meant_for"] == "transformers < 5.4"
    for kind, scale in (("gemma", SCALE), ("llama", 1.0)):
        for source in ("mm_projector.bin", "p"):
            core = assemble(*parts("clip", kind)).core
            load_projector(core, read_projector(tmp_path / source), source)
            found = core.model.multi_modal_projector.linear_2.weight
            assert torch.allclose(found, tensors["2.weight"] * scale, rtol=1e-6)
            assert torch.equal(core.model.multi_modal_projector.linear_1.weight, tensors["0.weight"])
    unknown = {
        f"multi_modal_projector.linear_{n}.{k}": tensors[f"{2 * n - 2}.{k}"] for n in (1, 2) for k in ("weight", "bias")
    }
    save_file(unknown, tmp_path / "x.safetensors")
    load_projector(assemble(*parts("clip", "llama")).core, read_projector(tmp_path / "x.safetensors"), "x")
    with pytest.raises(ModelError, match=r"nothing says whether it was trained with transformers before 5\.4"):
        load_projector(assemble(*parts("clip", "gemma")).core, read_projector(tmp_path / "x.safetensors"), "x")


def test_old_processors_without_patch_size_are_completed(llava: Llava, tmp_path: Path) -> None:
    save_llava(llava, tmp_path / "m", {})
    shutil.copytree(tmp_path / "m", tmp_path / "old")
    (tmp_path / "old" / "processor_config.json").write_text('{"processor_class": "LlavaProcessor"}')
    assert load_llava(str(tmp_path / "old")).processor.patch_size == 8
    convert(str(tmp_path / "old"), "hf", tmp_path / "new", Options())
    one, two = (json.loads((tmp_path / f / "processor_config.json").read_text()) for f in ("m", "new"))
    assert one == two
