"""InternLM2 from its report and modeling file, with the fused attention as it is written there, in plain torch.

Shapes: T tokens, H hidden size, K key-value heads, G query heads for each of them, D head dimension.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

Tensors = dict[str, torch.Tensor]
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1000000,
    "max_position_embeddings": 32768,
}


def make_tensors(vocab_size: int, *, bias: bool = False, seed: int = 3, sizes: dict = SIZES) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    hidden, inner, heads, kv = (
        sizes[name] for name in ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    )
    head = hidden // heads
    shapes: dict[str, tuple[int, ...]] = {
        "model.tok_embeddings.weight": (vocab_size, hidden),
        "model.norm.weight": (hidden,),
        "output.weight": (vocab_size, hidden),
    }
    for n in range(sizes["num_hidden_layers"]):
        layer = f"model.layers.{n}."
        shapes |= {
            f"{layer}attention_norm.weight": (hidden,),
            f"{layer}ffn_norm.weight": (hidden,),
            f"{layer}attention.wqkv.weight": ((heads + 2 * kv) * head, hidden),
            f"{layer}attention.wo.weight": (hidden, hidden),
            f"{layer}feed_forward.w1.weight": (inner, hidden),
            f"{layer}feed_forward.w3.weight": (inner, hidden),
            f"{layer}feed_forward.w2.weight": (hidden, inner),
        }
        if bias:
            shapes |= {
                f"{layer}attention.wqkv.bias": ((heads + 2 * kv) * head,),
                f"{layer}attention.wo.bias": (hidden,),
            }
    return {name: 0.3 * torch.randn(shape, generator=generator) + ("norm" in name) for name, shape in shapes.items()}


def write_folder(folder: Path, tensors: Tensors, *, bias: bool = False, **more: object) -> None:
    """config.json and weights as the hub has them; the tokenizer is written by the test."""
    folder.mkdir(parents=True, exist_ok=True)
    content = SIZES | {
        "model_type": "internlm2",
        "architectures": ["InternLM2ForCausalLM"],
        "auto_map": {"AutoConfig": "configuration_internlm2.InternLM2Config"},
        "vocab_size": tensors["model.tok_embeddings.weight"].shape[0],
        "bias": bias,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "rope_scaling": None,
        "torch_dtype": "float32",
        "attn_implementation": "eager",
    }
    (folder / "config.json").write_text(json.dumps(content | more))
    torch.save(tensors, folder / "pytorch_model.bin")


def logits(tensors: Tensors, embeddings: torch.Tensor, sizes: dict = SIZES) -> torch.Tensor:
    """(T, H) embeddings -> (T, V) logits."""
    x = embeddings
    for n in range(sizes["num_hidden_layers"]):
        own = {
            name.removeprefix(f"model.layers.{n}."): value
            for name, value in tensors.items()
            if name.startswith(f"model.layers.{n}.")
        }
        x = x + _attention(own, _norm(x, own["attention_norm.weight"], sizes), sizes)
        y = _norm(x, own["ffn_norm.weight"], sizes)
        gate, up = y @ own["feed_forward.w1.weight"].T, y @ own["feed_forward.w3.weight"].T
        x = x + (torch.nn.functional.silu(gate) * up) @ own["feed_forward.w2.weight"].T
    return _norm(x, tensors["model.norm.weight"], sizes) @ tensors["output.weight"].T


def _norm(x: torch.Tensor, weight: torch.Tensor, sizes: dict) -> torch.Tensor:
    return weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + sizes["rms_norm_eps"])


def _attention(own: Tensors, x: torch.Tensor, sizes: dict) -> torch.Tensor:
    heads, kv = sizes["num_attention_heads"], sizes["num_key_value_heads"]
    groups, head, length = heads // kv, sizes["hidden_size"] // heads, x.shape[0]
    qkv = x @ own["attention.wqkv.weight"].T + own.get("attention.wqkv.bias", torch.zeros(1))
    qkv = qkv.view(length, kv, groups + 2, head)  # (T, K, G + 2, D)
    q = _rotate(qkv[:, :, :groups].reshape(length, heads, head), sizes)
    k = _rotate(qkv[:, :, -2], sizes).repeat_interleave(groups, dim=1)
    v = qkv[:, :, -1].repeat_interleave(groups, dim=1)  # (T, K G, D)
    scores = torch.einsum("ihd,jhd->hij", q, k) / head**0.5
    scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf).softmax(-1)
    out = torch.einsum("hij,jhd->ihd", scores, v).reshape(length, -1)
    return out @ own["attention.wo.weight"].T + own.get("attention.wo.bias", torch.zeros(1))


def _rotate(x: torch.Tensor, sizes: dict) -> torch.Tensor:
    """Rotary positions, halves paired as in GPT-NeoX: (T, heads, D)."""
    head = x.shape[-1]
    angles = torch.arange(x.shape[0])[:, None] * sizes["rope_theta"] ** -(torch.arange(0, head, 2) / head)  # (T, D / 2)
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    first, second = x[..., : head // 2], x[..., head // 2 :]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
