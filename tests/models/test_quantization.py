"""Four bits in the language model and nowhere else; the merge takes the weights that were computed with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lorgnette.data.dataset import RowCollator
from lorgnette.data.sample import Sample
from lorgnette.models.adapters import add_lora, load_trained, merge, require_equal_logits, save_trained
from lorgnette.models.forward import prepare_for_rows, row_logits
from lorgnette.models.loading import Llava, load_llava
from lorgnette.models.quantization import quantized_layers, take_dequantized
from lorgnette.models.saving import save_llava
from lorgnette.models.trainable import part_of, parts_table
from small import renderer_of

PLAN = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": "float32"}
MODES = {"vision_tower": "lora", "projector": "full", "language_model": "lora"}


def logits_of(llava: Llava, samples: list[Sample]) -> torch.Tensor:
    rendered = [renderer_of(llava).render(sample) for sample in samples]
    row = RowCollator(llava.processor.image_processor, llava.core.config.image_token_id)(rendered)["row"]
    llava.model.eval()
    with torch.no_grad():
        return row_logits(llava.model, llava.core, row, llava.scale)


@pytest.fixture
def quantized(llava: Llava, tmp_path: Path) -> Llava:
    """The small LLaVA with its language model in 4 bits."""
    save_llava(llava, tmp_path / "base", {"kind": "base"})
    return load_llava(str(tmp_path / "base"), torch.float32, quantization=PLAN)


def test_only_the_language_model_is_in_four_bits(quantized: Llava, llava: Llava, samples: list[Sample]) -> None:
    names = quantized_layers(quantized.core)
    linear = [
        name
        for name, module in llava.core.named_modules()
        if isinstance(module, torch.nn.Linear) and part_of(name) == "language_model" and name != "lm_head"
    ]
    assert sorted(names) == sorted(linear)
    measured = logits_of(quantized, samples)
    assert (measured - logits_of(llava, samples)).abs().max() > 1e-3  # 4 bits are coarse
    quantized.model.train()
    rendered = [renderer_of(quantized).render(sample) for sample in samples]
    row = RowCollator(quantized.processor.image_processor, quantized.core.config.image_token_id)(rendered)["row"]
    assert torch.equal(row_logits(quantized.model, quantized.core, row, quantized.scale), measured)


def test_qlora_merges_into_the_weights_that_it_was_trained_on(
    quantized: Llava, samples: list[Sample], tmp_path: Path
) -> None:
    adapted = replace(quantized, model=add_lora(quantized.core, MODES, {"r": 4}))
    torch.manual_seed(6)
    with torch.no_grad():
        for parameter in adapted.model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    save_trained(adapted.model, tmp_path / "adapter")
    before = logits_of(adapted, samples)
    plain = load_llava(str(tmp_path / "base"), torch.float32)
    take_dequantized(plain.core, adapted.core)
    carried = replace(plain, model=add_lora(plain.core, MODES, {"r": 4}))
    load_trained(carried.model, tmp_path / "adapter")
    merged = replace(plain, model=merge(carried.model))
    prepare_for_rows(merged.core)
    assert require_equal_logits(before, logits_of(merged, samples), 1e-5) <= 1e-5


def test_two_weights_in_a_byte_are_counted_as_two(quantized: Llava, llava: Llava) -> None:
    frozen = dict.fromkeys(MODES, "frozen")
    rates = dict.fromkeys(MODES, 1e-4)
    packed, plain = (parts_table(one.core, frozen, rates) for one in (quantized, llava))
    assert [part.parameters for part in packed] == [part.parameters for part in plain]
    adapted = [add_lora(one.core, MODES, {"r": 4}) for one in (quantized, llava)]
    assert parts_table(adapted[0], MODES, rates) == parts_table(adapted[1], MODES, rates)


def test_gradients_reach_everything_that_trains(quantized: Llava, samples: list[Sample]) -> None:
    adapted = replace(quantized, model=add_lora(quantized.core, MODES, {"r": 4}))
    rendered = [renderer_of(adapted).render(sample) for sample in samples]
    row = RowCollator(adapted.processor.image_processor, adapted.core.config.image_token_id)(rendered)["row"]
    row_logits(adapted.model, adapted.core, row, adapted.scale).square().sum().backward()
    got = {part_of(n) for n, p in adapted.model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert got == set(MODES)
