"""A training step executes what it must and nothing more, counted by torch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count
from transformers import GemmaConfig, GemmaForCausalLM

from lorgnette.data.dataset import RowCollator
from lorgnette.data.rows import Row
from lorgnette.data.sample import Sample
from lorgnette.models.assembly import assemble
from lorgnette.models.forward import row_logits
from lorgnette.models.loading import Llava
from lorgnette.recipe.sections import Stage
from lorgnette.training.stages import prepare
from small import conversation, make_tokenizer, make_tower, renderer_of

# torch 2.13 does not count its CPU kernel of attention
ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda out, q, k, v, *_, **__: sdpa_backward_flop_count(out, q, k, v)
    ),
}


def counting() -> FlopCounterMode:
    return FlopCounterMode(display=False, custom_mapping=ATTENTION)


def step(llava: Llava, row: Row) -> dict[str, dict]:
    llava.core.model.vision_tower.eval()
    with counting() as counter:
        logits = row_logits(llava.model, llava.core, row, llava.scale)
        assert logits.shape[0] == row.labels.numel()  # one row of logits a labelled token
        cross_entropy(logits, row.labels).backward()
    return counter.get_flop_counts()


def needed(llava: Llava, row: Row) -> float:
    """The least a LoRA + projector step can cost, from the shapes alone.

    Frozen linear layer: forward and gradient to its input, 2 * 2 * in * out a token. LoRA beside it: forward, gradient
    to its input and to its weights, 3 * 2 * r * (in + out). Attention: every query times the keys of its own sample,
    two products forward, five backward (the backward kernel computes the scores again), for all heads.
    """
    config = llava.core.config.text_config
    tokens, places = row.input_ids.shape[1], row.pixel_values.shape[0] * llava.image_tokens
    total = 0.0
    modules = dict(llava.core.named_modules())
    for name, module in modules.items():
        if not isinstance(module, nn.Linear) or ".lora_" in name or "original_module" in name:
            continue
        size = module.in_features * module.out_features
        if "language_model" in name:
            total += 4 * size * tokens
            if name.endswith(".base_layer"):
                rank = modules[name.removesuffix("base_layer") + "lora_A.default"].out_features
                total += 6 * rank * (module.in_features + module.out_features) * tokens
        elif "multi_modal_projector" in name:
            # all three products, but for the first layer: nothing asks for the gradient of the tower's features
            total += (4 if name.endswith("linear_1") else 6) * size * places
        elif "vision_tower" in name:
            total += 2 * size * row.pixel_values.shape[0] * (llava.image_tokens + 1)
        elif name.endswith("lm_head"):
            total += 4 * size * row.labels.numel()
    width = config.hidden_size
    for group in row.groups:
        branches = [stop - start for _, start, stop in group.branches]
        pairs = group.prefix**2 + sum(branch * (group.prefix + branch) for branch in branches)
        total += config.num_hidden_layers * 7 * 2 * width * pairs
    vision = llava.core.config.vision_config
    images = row.pixel_values.shape[0]
    total += vision.num_hidden_layers * 4 * vision.hidden_size * (llava.image_tokens + 1) ** 2 * images
    total += 2 * 3 * vision.patch_size**2 * vision.hidden_size * llava.image_tokens * images
    return total


@pytest.fixture(scope="module")
def proportioned(tmp_path_factory: pytest.TempPathFactory) -> Llava:
    """A Gemma-like LLaVA whose parts keep the proportions of Gemma-2B + CLIP-L: tower 15 %, head 26 % of the work."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("proportioned")
    words = {
        "hidden_size": 256,
        "num_hidden_layers": 6,
        "intermediate_size": 1024,
        "num_attention_heads": 4,
        "head_dim": 64,
    }
    config = GemmaConfig(vocab_size=6000, num_key_value_heads=1, tie_word_embeddings=True, **words)
    make_tokenizer(root / "words")
    GemmaForCausalLM(config).save_pretrained(root / "words")
    make_tower(
        root / "eyes", hidden_size=128, num_hidden_layers=6, num_attention_heads=2, intermediate_size=512, image_size=64
    )
    return assemble(str(root / "eyes"), str(root / "words"))


def test_a_step_costs_what_it_must(proportioned: Llava, pictures: list[str], stage_of: Callable[..., Stage]) -> None:
    prepared = prepare(stage_of(lora={"r": 8}), proportioned)
    prepared.model.train()
    asked = [
        "what color is the shape?",
        "is there a circle in the picture?",
        "what is this?",
        "Where?",
        "is it teal or red?",
    ]
    samples = [
        conversation(f"{image}-{number}", [image], question, "red " * (1 + number))
        for image in pictures
        for number, question in enumerate(asked)
    ]
    rendered = [renderer_of(prepared).render(sample) for sample in samples]
    row = RowCollator(prepared.processor.image_processor, prepared.core.config.image_token_id)(rendered)["row"]
    executed = sum(step(prepared, row)["Global"].values())
    assert 0.99 * needed(prepared, row) <= executed <= 1.05 * needed(prepared, row)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_frozen_tower_runs_forward_once_and_never_backward(
    llava: Llava, samples: list[Sample], stage_of: Callable[..., Stage], checkpointing: bool
) -> None:
    prepared = prepare(stage_of(lora={"r": 4}), llava)
    prepared.model.train()
    if checkpointing:  # transformers' hooks would make the tower differentiable
        prepared.core.activation_checkpointing_enable()
    rendered = [renderer_of(llava).render(sample) for sample in samples]
    row = RowCollator(llava.processor.image_processor, llava.core.config.image_token_id)(rendered)["row"]
    tower = step(prepared, row)["CLIPVisionModel"]
    assert tower
    assert not any("backward" in str(op) for op in tower)
    assert all(p.grad is None for p in llava.core.model.vision_tower.parameters())
    once = counting()
    with once, torch.no_grad():
        llava.core.model.vision_tower(llava.scale.normalise(row.pixel_values), output_hidden_states=True)
    assert sum(tower.values()) == once.get_total_flops()
