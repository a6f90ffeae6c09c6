"""A projector alone: read from every format, put into a model, written so that plain torch loads it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from formats import hf_logits, ids_of, largest_difference, llava_logits, pixels_of, projector_module, projector_tensors
from safetensors.torch import load_file, save_file
from transformers import LlavaForConditionalGeneration

from lorgnette.errors import ModelError
from lorgnette.models.adapters import save_trained
from lorgnette.models.assembly import assemble
from lorgnette.models.conversion.convert import Options, convert
from lorgnette.models.conversion.projector import load_projector, read_projector
from lorgnette.models.loading import Llava
from lorgnette.models.trainable import freeze_all_but
from lorgnette.run import library_versions, write_json

Parts = Callable[[str, str], tuple[str, str]]


def _bin(tmp_path: Path, kind: str = "mlp2x_gelu") -> Path:
    tensors = {f"model.mm_projector.{name}": value for name, value in projector_tensors(kind).items()}
    torch.save(tensors, tmp_path / "mm_projector.bin")
    return tmp_path / "mm_projector.bin"


@pytest.mark.parametrize("kind", ["linear", "mlp2x_gelu"])
@pytest.mark.parametrize("way", ["bin", "hf", "xtuner"])
def test_logits_with_an_imported_projector(parts: Parts, tmp_path: Path, kind: str, way: str) -> None:
    source = _bin(tmp_path, kind)
    if way != "bin":
        convert(str(source), way, tmp_path / "p", Options())
        source = tmp_path / "p"
    llava = assemble(*parts("clip", "llama"), seed=3)
    load_projector(llava.core, read_projector(source), str(source))
    from transformers import AutoModelForCausalLM, CLIPVisionModel

    tower, language = parts("clip", "llama")
    ids, pixels = ids_of(llava.tokenizer), pixels_of()
    expected = llava_logits(
        AutoModelForCausalLM.from_pretrained(language).eval(),
        CLIPVisionModel.from_pretrained(tower).eval(),
        projector_module(projector_tensors(kind)),
        ids,
        pixels,
    )
    assert largest_difference(hf_logits(llava.core, ids, pixels, 4), expected) <= 1e-5


def test_plain_torch_loads_the_folder(llava: Llava, tmp_path: Path) -> None:
    convert(str(_bin(tmp_path)), "hf", tmp_path / "p", Options())
    plain = LlavaForConditionalGeneration(llava.core.config)
    report = plain.load_state_dict(load_file(tmp_path / "p" / "trained.safetensors"), strict=False)
    assert not report.unexpected_keys
    assert torch.equal(plain.model.multi_modal_projector.linear_2.bias, projector_tensors("mlp2x_gelu")["2.bias"])
    about = json.loads((tmp_path / "p" / "lorgnette.json").read_text())
    assert (about["kind"], about["sizes"], about["activation"]) == ("projector", [24, 32], "gelu")


def test_what_a_stage_left_is_a_projector_too(llava: Llava, parts: Parts, tmp_path: Path) -> None:
    freeze_all_but(llava.core, {"vision_tower": "frozen", "projector": "full", "language_model": "frozen"})
    save_trained(llava.core, tmp_path / "trained")
    write_json(tmp_path / "trained" / "lorgnette.json", {"kind": "trained parts", "versions": library_versions()})
    other = assemble(*parts("clip", "llama"), seed=99).core
    load_projector(other, read_projector(tmp_path / "trained"), "x")
    for name, value in llava.core.model.multi_modal_projector.state_dict().items():
        assert torch.equal(other.model.multi_modal_projector.state_dict()[name], value)
    convert(str(tmp_path / "trained"), "llava", tmp_path / "out", Options())
    found = torch.load(tmp_path / "out" / "mm_projector.bin", weights_only=True)
    linear = llava.core.model.multi_modal_projector.linear_1.weight
    assert torch.equal(found["model.mm_projector.0.weight"], linear)


def test_projectors_that_do_not_fit_are_refused(llava: Llava, tmp_path: Path) -> None:
    wide = {f"model.mm_projector.{n}": t for n, t in projector_tensors("mlp2x_gelu", width=48).items()}
    torch.save(wide, tmp_path / "wide.bin")
    with pytest.raises(ModelError, match=r"from 24 to 48; this model needs one from 24 \(tower\) to 32"):
        load_projector(llava.core, read_projector(tmp_path / "wide.bin"), "wide.bin")
    with pytest.raises(ModelError, match="3 layers"):
        load_projector(llava.core, read_projector(_bin(tmp_path, "mlp3x_gelu")), "x")
    torch.save(wide | {"lm_head.weight": torch.zeros(1)}, tmp_path / "more.bin")
    with pytest.raises(ModelError, match=r"lm_head\.weight are no part of a projector file"):
        read_projector(tmp_path / "more.bin")
    wide["model.mm_projector.2.weight"] = torch.zeros(48, 47)
    torch.save(wide, tmp_path / "torn.bin")
    with pytest.raises(ModelError, match=r"2\.weight is \(48, 47\); the layer before it gives 48"):
        read_projector(tmp_path / "torn.bin")
    with pytest.raises(ModelError, match="no such file"):
        read_projector(tmp_path / "nothing.bin")


def test_token_embeddings_beside_it_are_left_out_and_said(tmp_path: Path) -> None:
    file = _bin(tmp_path)
    torch.save(torch.load(file, weights_only=True) | {"model.embed_tokens.weight": torch.zeros(4, 4)}, file)
    done = convert(str(file), "hf", tmp_path / "p", Options())
    assert any("left out model.embed_tokens.weight" in sentence for sentence in done.said)


def test_names_of_hugging_face_are_checked(tmp_path: Path) -> None:
    tensors = {"multi_modal_projector.linear_1.weight": torch.zeros(4, 4)}
    save_file(tensors, tmp_path / "p.safetensors")
    with pytest.raises(ModelError, match=r"missing: linear_2\.weight"):
        read_projector(tmp_path / "p.safetensors")
