"""Attention over rows: every block or stack of a row's layout is one call of `scaled_dot_product_attention`.

Registered with transformers as an attention implementation, so that any decoder of the library runs on rows without a
patch. The layout travels through the model's forward as the keyword `row_layout`. No mask over the whole row is ever
made, so the cost is that of the samples alone.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface

from lorgnette.data.rows import Block, Layout, Stack
from lorgnette.errors import ModelError

ROWS = "lorgnette_rows"


def row_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    row_layout: Layout | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attend block by block.

    Args:
        query: (1, heads, T, head dim); key and value: (1, key-value heads, K, head dim).

    Returns:
        (1, T, heads, head dim), and no attention weights.

    Raises:
        ModelError: if the model asks for an attention that blocks cannot give exactly (a mask of its own, a sliding
            window shorter than a sample, capped scores, attention sinks), or was called without a layout.
    """
    if row_layout is None or attention_mask is not None or query.shape[0] != 1:
        raise ModelError("row attention needs one row with its layout and no attention mask.")
    if softcap is not None or s_aux is not None:
        raise ModelError(
            f"{type(module).__name__} caps its attention scores or has attention sinks; rows do not support that yet. "
            "Next: choose another language model."
        )
    if sliding_window is not None and row_layout.longest > sliding_window:
        raise ModelError(
            f"a sample spans {row_layout.longest} tokens, more than the model's sliding window of {sliding_window}. "
            f"Next: set max_text_tokens so that samples stay within it."
        )
    outputs = [
        _attend(block, query, key, value, scaling, dropout)
        if isinstance(block, Block)
        else _attend_stacked(block, query, key, value, scaling)
        for block in row_layout.blocks
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2), None


def _attend(
    block: Block, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None, dropout: float
) -> torch.Tensor:
    """Attend within a block: (1, heads, its queries, head dim)."""
    block_key, block_value = _joined(key, block.keys), _joined(value, block.keys)
    # grouped key-value heads are repeated a block at a time: the fast CPU and CUDA kernels take no masked groups
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        block_key = block_key.repeat_interleave(repeats, dim=1)
        block_value = block_value.repeat_interleave(repeats, dim=1)
    return torch.nn.functional.scaled_dot_product_attention(
        query[:, :, block.queries],
        block_key,
        block_value,
        attn_mask=block.mask,
        dropout_p=dropout,
        is_causal=block.mask is None,
        scale=scaling,
    )


def _joined(tensor: torch.Tensor, slices: tuple[slice, ...]) -> torch.Tensor:
    parts = [tensor[:, :, part] for part in slices]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _attend_stacked(
    stack: Stack, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None
) -> torch.Tensor:
    """Attend in all groups of a stack at once: (1, heads, kept queries, head dim).

    The heads that share keys and values stand as queries one after another, so that keys are never repeated.
    """
    heads, width = query.shape[1], query.shape[3]
    groups, asking = stack.queries.shape
    shared, repeats = key.shape[1], query.shape[1] // key.shape[1]
    stacked = query[0][:, stack.queries].transpose(0, 1)  # (G, heads, Q, head dim)
    answer = torch.nn.functional.scaled_dot_product_attention(
        stacked.reshape(groups, shared, repeats * asking, width),
        key[0][:, stack.keys].transpose(0, 1),  # (G, key-value heads, K, head dim)
        value[0][:, stack.keys].transpose(0, 1),
        attn_mask=stack.mask.repeat(1, repeats, 1)[:, None],
        scale=scaling,
    )
    answer = answer.reshape(groups, heads, asking, -1).transpose(0, 1).flatten(1, 2)  # (heads, G * Q, head dim)
    return answer[None, :, stack.kept]


def _no_mask(*_: Any, **__: Any) -> None:
    return None


AttentionInterface.register(ROWS, row_attention)
AttentionMaskInterface.register(ROWS, _no_mask)
