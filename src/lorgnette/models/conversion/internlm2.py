"""InternLM2 in the layout of Llama: the same numbers under other names, with the fused attention taken apart.

Exact, no code of the model's folder is run. `wqkv` holds, for each key-value head, the rows of its query heads, then
those of the key, then those of the value (InternLM2's modeling file: "b q (h gs d)"); Llama has three matrices. Rotary
positions are the same in both.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from lorgnette.data.templates import TEMPLATES, chat_template, stop_ids
from lorgnette.errors import ModelError
from lorgnette.models.conversion.lora import Adapter
from lorgnette.models.conversion.names import KeyMap, rename, require_same, shapes_of, without_recomputed
from lorgnette.models.conversion.sentencepiece_bpe import read_tokenizer
from lorgnette.models.conversion.weights import LazyTensor, Tensors, read_folder, write_weights
from lorgnette.models.saving import name_tokenizer_for_both, spell_rotary
from lorgnette.run import whole_folder

NAMES: KeyMap = {
    "model.tok_embeddings.": "model.embed_tokens.",
    "model.norm.": "model.norm.",
    "output.": "lm_head.",
    "model.layers.{n}.attention_norm.": "model.layers.{n}.input_layernorm.",
    "model.layers.{n}.ffn_norm.": "model.layers.{n}.post_attention_layernorm.",
    "model.layers.{n}.attention.wqkv.": "model.layers.{n}.self_attn.qkv_proj.",
    "model.layers.{n}.attention.wo.": "model.layers.{n}.self_attn.o_proj.",
    "model.layers.{n}.feed_forward.w1.": "model.layers.{n}.mlp.gate_proj.",
    "model.layers.{n}.feed_forward.w3.": "model.layers.{n}.mlp.up_proj.",
    "model.layers.{n}.feed_forward.w2.": "model.layers.{n}.mlp.down_proj.",
}
FUSED = ".qkv_proj."
"""Stands for the three matrices until they are taken apart."""
SHARED = "lora_A.weight"
"""Of a LoRA on the fused matrix: the half that its three parts have in common."""
KEPT_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "rms_norm_eps",
    "rope_theta",
    "tie_word_embeddings",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)


def is_internlm2(tensors: Tensors) -> bool:
    """Tell by their names whether tensors are InternLM2's."""
    return any(".attention.w" in name or ".feed_forward.w" in name for name in tensors)


def rows_of(config: Any) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """Return for q, k and v how their rows are taken out of those of `wqkv`.

    Args:
        config: of the model in Llama's layout.
    """
    kv = config.num_key_value_heads
    groups = config.num_attention_heads // kv

    def heads(rows: torch.Tensor) -> torch.Tensor:  # (h gs d, ...) -> (h, gs, d, ...)
        return rows.reshape(kv, groups + 2, config.head_dim, *rows.shape[1:])

    return {
        "q_proj": lambda rows: heads(rows)[:, :groups].flatten(0, 2),
        "k_proj": lambda rows: heads(rows)[:, groups].flatten(0, 1),
        "v_proj": lambda rows: heads(rows)[:, groups + 1].flatten(0, 1),
    }


def to_llama(tensors: Tensors, config: Any, where: str) -> Tensors:
    """Rename tensors of InternLM2, weights or LoRA, and take the fused matrices apart.

    Everything that has a row for each output (weight, bias, lora_B, DoRA's magnitude) is taken apart by rows; lora_A
    goes to all three as it is.

    Raises:
        ModelError: naming tensors that are not InternLM2's, or a fused matrix of another shape.
    """
    separate: Tensors = {}
    heads = {
        "q_proj": config.num_attention_heads,
        "k_proj": config.num_key_value_heads,
        "v_proj": config.num_key_value_heads,
    }
    total = sum(heads.values()) * config.head_dim
    for name, tensor in rename(tensors, NAMES, where).items():
        if FUSED not in name:
            separate[name] = tensor
            continue
        if not name.endswith(SHARED) and tensor.shape[0] != total:
            raise ModelError(
                f"{where}: wqkv of {name} has {tensor.shape[0]} rows instead of {total} ({config.num_attention_heads} "
                f"heads, {config.num_key_value_heads} for keys and values, {config.head_dim} wide)."
            )
        for part, take in rows_of(config).items():
            shape = (heads[part] * config.head_dim, *tensor.shape[1:])
            own = tensor if name.endswith(SHARED) else tensor.then(take, shape)
            separate[name.replace(FUSED, f".{part}.")] = own
    return separate


def adapter_to_llama(adapter: Adapter, config: Any, where: str) -> Adapter:
    """Take LoRA on InternLM2's modules to Llama's; on `wqkv` it becomes three that compute the same."""
    marked: Tensors = {
        f"{module}.alpha": LazyTensor.of(torch.tensor(alpha)) for module, alpha in adapter.alphas.items()
    }
    alphas: dict[str, float] = {}
    for name, alpha in rename(marked, NAMES, where).items():
        module = name.removesuffix(".alpha")
        modules = [module.replace(FUSED[:-1], f".{part}") for part in rows_of(config)]
        alphas |= dict.fromkeys(modules if f"{module}.".find(FUSED) >= 0 else [module], float(alpha.read()))
    return Adapter(to_llama(adapter.tensors, config, where), alphas, adapter.rslora, adapter.dropout)


def llama_config(content: dict[str, Any], where: str) -> Any:
    """Turn InternLM2's config.json into Llama's.

    Raises:
        ModelError: if a field is missing, or positions are scaled in a way that Llama does not have.
    """
    scaling = content.get("rope_scaling")
    if scaling is not None and (not isinstance(scaling, dict) or scaling.get("type") not in ("dynamic", "linear")):
        raise ModelError(f"{where}: rope_scaling {scaling!r}. Allowed: null, type dynamic or linear.")
    missing = [name for name in ("hidden_size", "num_attention_heads", "num_hidden_layers") if name not in content]
    if missing:
        raise ModelError(f"{where}: config.json has no {', '.join(missing)}.")
    kept = {name: content[name] for name in KEPT_FIELDS if name in content and name != "rope_theta"}
    rope = {"rope_type": "default", "rope_theta": float(content.get("rope_theta", 10000.0))}
    if scaling is not None:
        rope |= {"rope_type": scaling["type"], "factor": float(scaling["factor"])}
    try:
        return LlamaConfig(
            **kept,
            rope_parameters=rope,
            attention_bias=bool(content.get("bias", False)),
            mlp_bias=False,
            dtype=content.get("torch_dtype") or content.get("dtype"),
            architectures=["LlamaForCausalLM"],
        )
    except (ValueError, TypeError) as error:
        raise ModelError(f"{where}: transformers refuses these settings: {error}") from error


def read_config(folder: Path) -> Any:
    """Read config.json of an InternLM2 folder, as Llama's.

    Raises:
        ModelError: if there is none.
    """
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{folder}: cannot read config.json ({error}).") from error
    return llama_config(content, str(folder))


def convert_internlm2(folder: Path, output: Path, *, template: str | None, dtype: Any) -> list[str]:
    """Write an InternLM2 folder as an ordinary Llama: weights, configuration, tokenizer, generation settings.

    Raises:
        ModelError: if tensors are missing, surplus or of another shape, or the tokenizer cannot be read.
    """
    config = read_config(folder)
    tensors, notes = without_recomputed(read_folder(folder))
    found = to_llama(tensors, config, str(folder))
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name not in tied}
    require_same(shapes_of(found), expected, str(folder))
    tokenizer = read_tokenizer(folder)
    if template is not None or not tokenizer.chat_template:
        name = template or "internlm2"
        notes.append(f"the chat template is {name}")
        chat_template(tokenizer, name)
        tokenizer.chat_template = TEMPLATES[name].jinja
    generation = GenerationConfig()
    if (folder / "generation_config.json").is_file():
        generation = GenerationConfig.from_pretrained(folder)
    generation.eos_token_id = sorted(stop_ids(chat_template(tokenizer)))
    generation.pad_token_id = config.pad_token_id
    config.dtype = dtype or next(iter(found.values())).dtype
    with whole_folder(output) as unfinished:
        write_weights({name: tensor.to(dtype) for name, tensor in found.items()}, unfinished)
        config.save_pretrained(unfinished)
        content = json.loads((unfinished / "config.json").read_text(encoding="utf-8"))
        spell_rotary(content)
        (unfinished / "config.json").write_text(json.dumps(content, indent=2), encoding="utf-8")
        generation.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
        name_tokenizer_for_both(unfinished / "tokenizer_config.json")
    return notes
