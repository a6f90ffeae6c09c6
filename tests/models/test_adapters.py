"""What a stage leaves loads in plain PEFT; a merge keeps the logits; foreign or broken adapters are refused."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import LlavaForConditionalGeneration

from lorgnette.data.dataset import RowCollator
from lorgnette.data.sample import Sample
from lorgnette.errors import ModelError, RunError
from lorgnette.models.adapters import add_lora, load_trained, merge, require_equal_logits, save_trained, spare_casts
from lorgnette.models.forward import prepare_for_rows, row_logits
from lorgnette.models.loading import Llava, load_llava
from lorgnette.models.saving import save_llava
from lorgnette.models.trainable import freeze_all_but
from small import renderer_of

MODES = {"vision_tower": "frozen", "projector": "full", "language_model": "lora"}


def logits_of(llava: Llava, samples: list[Sample], model=None) -> torch.Tensor:
    rendered = [renderer_of(llava).render(sample) for sample in samples]
    row = RowCollator(llava.processor.image_processor, llava.core.config.image_token_id)(rendered)["row"]
    used = llava.model if model is None else model
    core = used.get_base_model() if isinstance(used, PeftModel) else used
    prepare_for_rows(core)
    with torch.no_grad():
        return row_logits(used.eval(), core, row, llava.scale)


@pytest.fixture
def trained(llava: Llava, tmp_path: Path) -> tuple[Llava, PeftModel]:
    """A base folder, and an adapter on it whose weights are far from their start."""
    save_llava(llava, tmp_path / "base", {"kind": "base"})
    base = load_llava(str(tmp_path / "base"))
    adapted = add_lora(base.core, MODES, {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"]})
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    save_trained(adapted, tmp_path / "adapter")
    return base, adapted


def test_plain_peft_loads_adapter_and_projector_from_one_folder(
    trained: tuple[Llava, PeftModel], samples: list[Sample], tmp_path: Path
) -> None:
    base, adapted = trained
    expected = logits_of(base, samples, adapted)
    plain = PeftModel.from_pretrained(
        LlavaForConditionalGeneration.from_pretrained(tmp_path / "base"), tmp_path / "adapter"
    )
    assert torch.equal(logits_of(base, samples, plain), expected)
    untrained = load_llava(str(tmp_path / "base"))
    assert not torch.allclose(logits_of(untrained, samples), expected, atol=1e-2)


def test_merged_logits_equal_base_and_adapter_and_survive_saving(
    trained: tuple[Llava, PeftModel], samples: list[Sample], tmp_path: Path
) -> None:
    base, adapted = trained
    before = logits_of(base, samples, adapted)
    merged = merge(adapted)
    after = logits_of(base, samples, merged)
    assert require_equal_logits(before, after, 1e-5) <= 1e-5
    whole = Llava(merged, base.processor, base.image_tokens, base.scale, base.source)
    save_llava(whole, tmp_path / "merged", {"kind": "merged"})
    assert torch.equal(logits_of(base, samples, load_llava(str(tmp_path / "merged")).core), after)


def test_a_merge_that_changes_the_logits_is_an_error() -> None:
    before = torch.tensor([10.0, -3.0])
    with pytest.raises(RunError, match="Nothing was written"):
        require_equal_logits(before, before + torch.tensor([0.0, 0.001]), 1e-5)
    with pytest.raises(RunError):
        require_equal_logits(before, before * float("nan"), 1e-5)


def test_restored_weights_are_bitwise_the_saved_ones(trained: tuple[Llava, PeftModel], tmp_path: Path) -> None:
    _, adapted = trained
    expected = {name: p.clone() for name, p in adapted.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for parameter in adapted.parameters():
            parameter.add_(1)
    load_trained(adapted, tmp_path / "adapter")
    found = dict(adapted.named_parameters())
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_projector_alone_is_saved_and_restored(llava: Llava, tmp_path: Path) -> None:
    freeze_all_but(llava.core, {"vision_tower": "frozen", "projector": "full", "language_model": "frozen"})
    save_trained(llava.core, tmp_path / "t")
    expected = {n: p.clone() for n, p in llava.core.named_parameters() if p.requires_grad}
    assert len(expected) == 4
    with torch.no_grad():
        for parameter in llava.core.model.multi_modal_projector.parameters():
            parameter.zero_()
    load_trained(llava.core, tmp_path / "t")
    assert all(torch.equal(dict(llava.core.named_parameters())[name], value) for name, value in expected.items())


def test_targets_that_match_nothing_are_refused(llava: Llava) -> None:
    with pytest.raises(ModelError, match="Did you mean 'q_proj'"):
        add_lora(llava.core, MODES, {"r": 4, "target_modules": ["q_prj"]})
    with pytest.raises(ModelError, match=r"matches no full path.*\[q_proj\]"):
        add_lora(llava.core, MODES, {"r": 4, "target_modules": "q_proj"})
    with pytest.raises(ModelError, match=r"none of them is in projector. It has: linear_1, linear_2"):
        add_lora(llava.core, MODES | {"projector": "lora"}, {"r": 4, "target_modules": ["q_proj"]})


def _truncate(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def _forget_a_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "adapter_model.safetensors")
    tensors.pop(next(name for name in tensors if "lora_B" in name))
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("spoil", [_truncate, _forget_a_tensor, lambda f: (f / "adapter_model.safetensors").unlink()])
def test_broken_adapters_are_refused(
    trained: tuple[Llava, PeftModel], tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(tmp_path / "adapter")
    with pytest.raises(ModelError, match="adapter"):
        load_trained(trained[1], tmp_path / "adapter")


def test_an_adapter_of_other_shapes_is_refused(llava: Llava, tmp_path: Path, trained: tuple[Llava, PeftModel]) -> None:
    other = add_lora(llava.core, MODES, {"r": 2, "target_modules": ["q_proj", "down_proj"]})
    with pytest.raises(ModelError, match="do not fit the model"):
        load_trained(other, tmp_path / "adapter")


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_lora_without_its_casts_gives_bitwise_the_same_gradients(
    llava: Llava, samples: list[Sample], dropout: float
) -> None:
    core = llava.core.to(torch.bfloat16)
    adapted = add_lora(core, MODES, {"r": 4, "lora_dropout": dropout, "init_lora_weights": False})
    rendered = [renderer_of(llava).render(sample) for sample in samples]
    row = RowCollator(llava.processor.image_processor, llava.core.config.image_token_id)(rendered)["row"]
    prepare_for_rows(core)
    seen: set[torch.dtype] = set()
    for name, module in adapted.named_modules():
        if name.endswith("lora_A.default"):
            module.register_forward_pre_hook(lambda _, inputs: seen.add(inputs[0].dtype))

    def gradients(casts: AbstractContextManager[None]) -> list[torch.Tensor]:
        seen.clear()
        adapted.zero_grad()
        torch.manual_seed(3)
        with torch.autocast("cpu", torch.bfloat16), casts:
            row_logits(adapted, core, row, llava.scale).float().sum().backward()
        return [parameter.grad for parameter in adapted.parameters() if parameter.grad is not None]

    expected = gradients(nullcontext())
    assert seen == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        spared = spare_casts(adapted)
    found = gradients(spared)
    assert seen == {torch.float32 if dropout else torch.bfloat16}
    assert len(found) == len(expected) > 4
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
