"""Attention over rows: every block or stack of a row's layout is one call of `scaled_dot_product_attention`.

Registered with transformers as an attention implementation, so that any decoder of the library runs on rows without a
patch. The layout travels through the model's forward as the keyword `row_layout`. No mask over the whole row is ever
made, so the cost is that of the samples alone.
"""

from __future__ import annotations

from itertools import pairwise
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
    dtype = query.dtype
    if dtype.itemsize < 4 and query.device.type == "cpu" and query.requires_grad:
        # the backward pass of torch's CPU kernel is three times as slow in half precision as in single, and less exact
        query, key, value = query.float(), key.float(), value.float()
    blocks = [block for block in row_layout.blocks if isinstance(block, Block)]
    asking = _edges([block.queries for block in blocks], query.shape[2])
    asked = _edges([part for block in blocks for part in block.keys], key.shape[2])
    parts = (_Pieces(query, asking), _Pieces(key, asked), _Pieces(value, asked)) if blocks else ()
    with torch.autocast(query.device.type, enabled=False):  # it would go back to half precision
        outputs = [
            _attend(block, parts, scaling, dropout)
            if isinstance(block, Block)
            else _attend_stacked(block, query, key, value, scaling)
            for block in row_layout.blocks
        ]
    return torch.cat(outputs, dim=2).transpose(1, 2).to(dtype), None


def _edges(slices: list[slice], tokens: int) -> list[int]:
    """List the places where a slice begins or ends, and those of the whole."""
    return sorted({0, tokens}.union(*((part.start, part.stop) for part in slices)))


class _Pieces:
    """A tensor (1, heads, T, head dim) cut once at all edges.

    The gradient of a slice is as long as the whole row, so that slices would cost blocks times tokens; that of all
    pieces of one cut is put together once.
    """

    def __init__(self, tensor: torch.Tensor, edges: list[int]) -> None:
        self._pieces = tensor.split([stop - start for start, stop in pairwise(edges)], dim=2)  # type: ignore[no-untyped-call]
        self._index = {edge: index for index, edge in enumerate(edges)}

    def take(self, slices: tuple[slice, ...]) -> torch.Tensor:
        """Join the tokens of some slices: (1, heads, tokens, head dim)."""
        taken = [piece for part in slices for piece in self._pieces[self._index[part.start] : self._index[part.stop]]]
        return taken[0] if len(taken) == 1 else torch.cat(taken, dim=2)


def _attend(block: Block, parts: tuple[_Pieces, ...], scaling: float | None, dropout: float) -> torch.Tensor:
    """Attend within a block: (1, heads, its queries, head dim). `parts` are the row's queries, keys and values."""
    query, key, value = parts
    block_query, block_key, block_value = query.take((block.queries,)), key.take(block.keys), value.take(block.keys)
    # grouped key-value heads are repeated a block at a time: the fast CPU and CUDA kernels take no masked groups
    repeats = block_query.shape[1] // block_key.shape[1]
    if repeats > 1:
        block_key = block_key.repeat_interleave(repeats, dim=1)
        block_value = block_value.repeat_interleave(repeats, dim=1)
    return torch.nn.functional.scaled_dot_product_attention(
        block_query,
        block_key,
        block_value,
        attn_mask=block.mask,
        dropout_p=dropout,
        is_causal=block.mask is None,
        scale=scaling,
    )


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
