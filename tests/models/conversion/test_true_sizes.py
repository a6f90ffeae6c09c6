"""The models of five projects at their true size, on the meta device: parameter counts, and key maps that fill them.

The counts are sums by hand of matrices, biases and norms; 7,063,427,072 is also what llava-hf/llava-1.5-7b-hf has.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    CLIPVisionConfig,
    GemmaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Qwen2Config,
    T5Config,
    T5ForConditionalGeneration,
)

from lorgnette.models.conversion import internlm2, llava
from lorgnette.models.conversion.huggingface import MEMORY, NESTED, expected_shapes
from lorgnette.models.conversion.names import join, require_same, shapes_of, split
from lorgnette.models.conversion.vocabulary import original_rows, with_rows
from lorgnette.models.conversion.weights import LazyTensor

CLIP_L = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}
LLAVA_7B = {
    "model_type": "llava_llama",
    "architectures": ["LlavaLlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 32000,
    "tie_word_embeddings": False,
    "mm_vision_tower": "openai/clip-vit-large-patch14-336",
    "mm_projector_type": "mlp2x_gelu",
    "mm_vision_select_layer": -2,
    "image_aspect_ratio": "pad",
}
GEMMA_2B = GemmaConfig(
    vocab_size=256064,
    hidden_size=2048,
    intermediate_size=16384,
    num_hidden_layers=18,
    num_attention_heads=8,
    num_key_value_heads=1,
    head_dim=256,
)
QWEN_4B = Qwen2Config(
    vocab_size=151936,
    hidden_size=2560,
    intermediate_size=6912,
    num_hidden_layers=40,
    num_attention_heads=20,
    num_key_value_heads=20,
    tie_word_embeddings=False,
)
INTERNLM2 = {
    "vocab_size": 92544,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1000000,
    "tie_word_embeddings": False,
    "bias": False,
}


def parameters(model: torch.nn.Module) -> int:
    assert all(parameter.is_meta for parameter in model.parameters())
    return sum(parameter.numel() for parameter in model.parameters())


def with_eyes(text_config: Any) -> int:
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**CLIP_L),
        text_config=text_config,
        tie_word_embeddings=text_config.tie_word_embeddings,
    )
    with torch.device("meta"):
        return parameters(LlavaForConditionalGeneration(config))


def lazy(shapes: dict[str, tuple[int, ...]]) -> dict[str, LazyTensor]:
    return {name: LazyTensor.of(torch.empty(shape, device="meta")) for name, shape in shapes.items()}


def test_llava_7b(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAVA_7B))
    config = llava.read_config(tmp_path).config
    config.vision_config = CLIPVisionConfig(**CLIP_L)
    text = config.text_config
    with torch.device("meta"):
        language = AutoModelForCausalLM.from_config(text)
    # the checkpoint's names, from LLaVA's code: every one of them has a place, and every place is filled
    names = {name: tuple(value.shape) for name, value in language.state_dict().items()}
    names |= {"model.mm_projector.0.weight": (4096, 1024), "model.mm_projector.0.bias": (4096,)}
    names |= {"model.mm_projector.2.weight": (4096, 4096), "model.mm_projector.2.bias": (4096,)}
    text.vocab_size = 32064
    expected = expected_shapes(config)
    tower = {name: shape for name, shape in expected.items() if "vision_tower" in name}
    names |= {f"model.vision_tower.vision_tower.{NESTED}{n.split('vision_tower.')[1]}": s for n, s in tower.items()}
    parts = split(lazy(names), llava.FILES, "x")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        parts["language_model"][name] = with_rows(parts["language_model"][name], 32064)
    parts["vision_tower"] = {n.removeprefix(NESTED): t for n, t in parts["vision_tower"].items()}
    swaps = {"0.": "linear_1.", "2.": "linear_2."}
    parts["projector"] = {swaps[n[:2]] + n[2:]: t for n, t in parts["projector"].items()}
    require_same(shapes_of(join(parts, MEMORY)), expected, "x")
    assert with_eyes(text) == 7_063_427_072


@pytest.mark.parametrize(("text", "count"), [(GEMMA_2B, 2_816_106_496), (QWEN_4B, 4_263_056_896)])
def test_gemma_and_qwen_with_eyes(text: Any, count: int) -> None:
    assert with_eyes(text) == count


def test_internlm2_with_eyes() -> None:
    config = internlm2.llama_config(INTERNLM2, "x")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert parameters(model) == 1_889_110_016
    found = internlm2.to_llama(lazy(_internlm2_shapes()), config, "x")
    require_same(shapes_of(found), {n: tuple(t.shape) for n, t in model.state_dict().items()}, "x")
    config.vocab_size = 92608
    assert with_eyes(config) == 2_199_175_168


def _internlm2_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "model.tok_embeddings.weight": (92544, 2048),
        "model.norm.weight": (2048,),
        "output.weight": (92544, 2048),
    }
    for n in range(24):
        layer = f"model.layers.{n}."
        shapes |= {
            f"{layer}attention_norm.weight": (2048,),
            f"{layer}ffn_norm.weight": (2048,),
            f"{layer}attention.wqkv.weight": (4096, 2048),
            f"{layer}attention.wo.weight": (2048, 2048),
            f"{layer}feed_forward.w1.weight": (8192, 2048),
            f"{layer}feed_forward.w3.weight": (8192, 2048),
            f"{layer}feed_forward.w2.weight": (2048, 8192),
        }
    return shapes


def test_rut5_large() -> None:
    config = T5Config(d_model=1024, d_ff=4096, num_layers=24, num_heads=16, vocab_size=32128, feed_forward_proj="relu")
    with torch.device("meta"):
        assert parameters(T5ForConditionalGeneration(config)) == 737_668_096


@pytest.mark.parametrize(
    ("rows", "image", "before"),
    [
        (32064, 32000, 32000),  # llava-1.5-7b-hf
        (256064, 256000, 256000),  # deepvk/llava-gemma-2b-lora
        (128320, 128256, 128256),  # deepvk/llava-saiga-8b
        (92608, 92544, 92544),  # InternLM2
        (151936, 151646, 151936),  # Qwen1.5: the vocabulary was larger than the tokenizer before
    ],
)
def test_rows_that_a_conversion_appended_are_known(rows: int, image: int, before: int) -> None:
    assert original_rows(rows, image) == before
