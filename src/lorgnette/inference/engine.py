"""Batched greedy generation in which every image is encoded once and its prefix is computed once.

All prompts of a batch stand in one row without padding; prompts about the same images share their prefix. The row's
keys and values are kept, and each further step appends one token a question, which attends to its group's prefix, its
own question and its own answer. No part of the cache is ever copied for a question.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import DynamicCache

from lorgnette.data.rendering import Rendered
from lorgnette.data.rows import Block, Layout, Pixels, Row, build_row
from lorgnette.models.forward import row_embeddings
from lorgnette.models.llava import Llava

PREFIX = -1
"""Owner of a cached key that every question of its group sees."""


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
    questions, starts = _places(row)
    embeddings = row_embeddings(llava.core, row, llava.scale, llava.soft_prompt)
    logits = _forward(llava, cache, embeddings, row.position_ids, row.layout, starts)
    owner, group = _owners(row, questions)
    position = torch.tensor([len(prompts[q].input_ids) for q in questions], device=device)
    answers: dict[int, list[int]] = {q: [] for q in questions}
    ended: set[int] = set()
    alive = torch.tensor(questions, device=device)
    group_of = {q: number for number, g in enumerate(row.groups) for q, _, _ in g.branches}
    for step in range(max_new_tokens):
        tokens = logits.argmax(-1)
        keep = []
        for place, (question, token) in enumerate(zip(alive.tolist(), tokens.tolist(), strict=True)):
            if token in stop:
                ended.add(question)
            else:
                answers[question].append(token)
                keep.append(place)
        if not keep or step == max_new_tokens - 1:
            break
        kept = torch.tensor(keep, device=device)
        alive, position = alive[kept], position[kept]
        groups_alive = torch.tensor([group_of[q] for q in alive.tolist()], device=device)
        owner = torch.cat([owner, alive])
        group = torch.cat([group, groups_alive])
        layout = _decode_layout(alive, groups_alive, owner, group, int(position.max()) + 1)
        embeddings = llava.core.get_input_embeddings()(tokens[kept])[None]
        logits = _forward(llava, cache, embeddings, position[None], layout, slice(None))
        position = position + 1
    return [Generation(tuple(answers[q]), "end" if q in ended else "length") for q in range(len(prompts))]


def _forward(
    llava: Llava, cache: DynamicCache, embeddings: torch.Tensor, positions: torch.Tensor, layout: Layout, keep: Any
) -> torch.Tensor:
    """Run the language model, growing the cache, and return logits at the kept places: (questions, V)."""
    output = llava.model(
        inputs_embeds=embeddings,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=keep if isinstance(keep, torch.Tensor) else 0,
        row_layout=layout,
    )
    return output.logits[0].float()  # type: ignore[no-any-return]


def _places(row: Row) -> tuple[list[int], torch.Tensor]:
    """Return the questions in the order of the row, and the place of each one's last token."""
    branches = [branch for group in row.groups for branch in group.branches]
    lasts = torch.tensor([stop - 1 for _, _, stop in branches], device=row.input_ids.device)
    return [question for question, _, _ in branches], lasts


def _owners(row: Row, questions: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Tell for every cached key which question it belongs to (PREFIX: to all of its group), and its group's number."""
    owner = torch.full((row.input_ids.shape[1],), PREFIX)
    group = torch.empty_like(owner)
    for number, placed in enumerate(row.groups):
        group[placed.start : placed.stop] = number
        for question, start, stop in placed.branches:
            owner[start:stop] = question
    return owner.to(row.input_ids.device), group.to(row.input_ids.device)


def _decode_layout(
    alive: torch.Tensor, groups_alive: torch.Tensor, owner: torch.Tensor, group: torch.Tensor, longest: int
) -> Layout:
    """Lay out one new token a question, which attends to its group's prefix and to its own keys.

    Questions of a group stand next to each other, because the row was built by groups and answers only drop out.
    """
    blocks = []
    numbers, counts = torch.unique_consecutive(groups_alive, return_counts=True)
    first = 0
    for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
        keys = (group == number).nonzero().flatten()
        owners = owner[keys]
        mask = (owners == PREFIX) | (owners == alive[first : first + count, None])
        blocks.append(Block(slice(first, first + count), keys, mask))
        first += count
    return Layout(tuple(blocks), longest)
