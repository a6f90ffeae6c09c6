"""Batched greedy generation in which every image is encoded once and its prefix is computed once.

All prompts of a batch stand in one row without padding; prompts about the same images share their prefix. The row's
keys and values are kept, and each further step appends one token a question, which attends to its group's prefix, its
own question and its own answer. No part of the cache is ever copied for a question.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from transformers import DynamicCache

from lorgnette.data.rendered import Rendered
from lorgnette.data.rows import Layout, Pixels, build_row
from lorgnette.inference.growth import Growth
from lorgnette.models.forward import row_embeddings
from lorgnette.models.llava import Llava


@dataclass(frozen=True, slots=True)
class Generation:
    """An answer: its token ids without the one that ended it, and what ended it."""

    ids: tuple[int, ...]
    stopped_by: Literal["end", "length"]


def batches(prompts: Sequence[Rendered], batch_size: int) -> Iterator[list[int]]:
    """Group prompts into batches of about `batch_size`, never parting those about the same images.

    Only images with more prompts than `batch_size` are parted. The order is that of the images' first prompts.

    Yields:
        indices into `prompts`.
    """
    by_images: dict[object, list[int]] = {}
    for index, prompt in enumerate(prompts):
        by_images.setdefault(prompt.images or index, []).append(index)
    batch: list[int] = []
    for members in by_images.values():
        if batch and len(batch) + len(members) > batch_size:
            yield batch
            batch = []
        batch.extend(members)
        while len(batch) >= batch_size:
            yield batch[:batch_size]
            batch = batch[batch_size:]
    if batch:
        yield batch


@torch.inference_mode()
def generate(
    llava: Llava, prompts: Sequence[Rendered], pixels: Pixels, max_new_tokens: int, stop: frozenset[int]
) -> list[Generation]:
    """Answer a batch of prompts greedily.

    Args:
        prompts: rendered without labels, up to where the answer begins.
        pixels: reads an image to uint8 (C, H, W).
        max_new_tokens: most tokens of an answer, the one that ends it included.
        stop: token ids that end an answer.

    Returns:
        one answer a prompt, in the order given.
    """
    llava.model.eval()
    device = next(llava.core.parameters()).device
    row = build_row(prompts, pixels, llava.core.config.image_token_id).to(device)
    cache = DynamicCache()
    growth = Growth(row)
    last = row.last_places[growth.questions]
    embeddings = row_embeddings(llava.core, row, llava.scale, llava.soft_prompt)
    logits = _forward(llava, cache, embeddings, row.position_ids, row.layout, last)
    lengths = torch.tensor([len(prompt.input_ids) for prompt in prompts], device=device)
    answers: list[list[int]] = [[] for _ in prompts]
    ended: set[int] = set()
    for step in range(max_new_tokens):
        tokens = logits.argmax(-1)
        keep = []
        for place, (question, token) in enumerate(zip(growth.questions.tolist(), tokens.tolist(), strict=True)):
            if token in stop:
                ended.add(question)
            else:
                answers[question].append(token)
                keep.append(place)
        if not keep or step == max_new_tokens - 1:
            break
        if len(keep) < len(tokens):
            kept = torch.tensor(keep, device=device)
            growth.keep(kept)
            tokens = tokens[kept]
        positions = lengths[growth.questions] + step
        layout = growth.step(int(positions.max()) + 1)
        embeddings = llava.core.get_input_embeddings()(tokens)[None]
        logits = _forward(llava, cache, embeddings, positions[None], layout, 0)
    return [
        Generation(tuple(answer), "end" if question in ended else "length") for question, answer in enumerate(answers)
    ]


def _forward(
    llava: Llava,
    cache: DynamicCache,
    embeddings: torch.Tensor,
    positions: torch.Tensor,
    layout: Layout,
    keep: torch.Tensor | int,
) -> torch.Tensor:
    """Run the language model, growing the cache, and return logits at the kept places, all if 0: (questions, V)."""
    output = llava.model(
        inputs_embeds=embeddings,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=keep,
        row_layout=layout,
    )
    return output.logits[0].float()  # type: ignore[no-any-return]
