"""Batched greedy generation in which every image is encoded once and its prefix is computed once.

All prompts of a batch stand in one row without padding; prompts about the same images share their prefix. The row's
keys and values are kept, and each further step appends one token a question, which attends to its group's prefix, its
own question and its own answer. No part of the cache is ever copied for a question. Prompts may join those that are
being answered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from transformers import DynamicCache

from lorgnette.data.rendered import Rendered
from lorgnette.data.rows import Layout, Pixels, build_row
from lorgnette.inference.decoding import Decoding, Generation, Growing, next_tokens
from lorgnette.inference.growth import Growth
from lorgnette.models.forward import row_embeddings
from lorgnette.models.llava import Llava

MOST_UNSEEN = 0.5
"""A cache of which a larger share belongs to prompts that are gone is cut when others join."""


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


class RowDecoder:
    """Prompts that are answered together, one token each a step; others may join between two steps.

    Attributes:
        logits: (N, V) float, for the next token of each prompt still asked, in the order of `asked`.
    """

    def __init__(self, llava: Llava) -> None:
        self.llava = llava
        self._joined = 0
        self._clear()

    def _clear(self) -> None:
        device = self.llava.core.device
        self.logits = torch.empty(0, 0, device=device)
        self._cache = DynamicCache()
        self._growth = Growth(device)
        self._numbers: list[int] = []  # of prompts, by their numbers in `_growth`
        self._positions = torch.empty(0, dtype=torch.long, device=device)

    @property
    def asked(self) -> list[int]:
        """Return the prompts still asked, by their numbers."""
        return [self._numbers[question] for question in self._growth.questions.tolist()]

    @torch.inference_mode()
    def join(self, prompts: Sequence[Rendered], pixels: Pixels) -> range:
        """Ask further prompts; those about the same images share their prefix.

        Args:
            prompts: rendered without labels, up to where the answer begins.
            pixels: reads an image to uint8 (C, H, W).

        Returns:
            their numbers; they go on from those of the prompts that joined before.
        """
        llava, device = self.llava, self.logits.device
        self._forget()
        row = build_row(prompts, pixels, llava.core.config.image_token_id).to(device)
        asked = torch.cat([self._growth.questions, torch.arange(len(prompts), device=device) + len(self._numbers)])
        layout = self._growth.join(row)
        numbers = range(self._joined, self._joined + len(prompts))
        self._joined += len(prompts)
        self._numbers += numbers
        lengths = torch.tensor([len(prompt.input_ids) for prompt in prompts], device=device)
        self._positions = torch.cat([self._positions, lengths])
        embeddings = row_embeddings(llava.core, row, llava.scale, llava.soft_prompt)
        logits = _forward(llava, self._cache, embeddings, row.position_ids, layout, row.last_places)
        place = torch.empty_like(self._positions)
        place[asked] = torch.arange(len(asked), device=device)
        logits = torch.cat([self.logits, logits]) if len(self.logits) else logits
        self.logits = logits[place[self._growth.questions]]
        return numbers

    @torch.inference_mode()
    def step(self, tokens: Sequence[int | None]) -> None:
        """Append a token to each answer, in the order of `asked`; a prompt that is given None is asked no more."""
        keep = [place for place, token in enumerate(tokens) if token is not None]
        if not keep:
            self._clear()
            return
        if len(keep) < len(tokens):
            self._growth.keep(torch.tensor(keep, device=self.logits.device))
        said = torch.tensor([token for token in tokens if token is not None], device=self.logits.device)
        questions = self._growth.questions
        positions = self._positions[questions]
        self._positions[questions] += 1
        layout = self._growth.step(int(positions.max()) + 1)
        embeddings = self.llava.core.get_input_embeddings()(said)[None]
        self.logits = _forward(self.llava, self._cache, embeddings, positions[None], layout, 0)

    def _forget(self) -> None:
        """Drop what is cached of prompts that are gone, once it is most of the cache."""
        if not self.asked or self._growth.unseen < MOST_UNSEEN:
            return
        asked, questions = self.asked, self._growth.questions
        kept = self._growth.forget()
        for layer in self._cache.layers:
            layer.keys, layer.values = layer.keys[:, :, kept], layer.values[:, :, kept]
        self._positions = self._positions[questions]
        self._numbers = asked
        # `forget` stacks anew, which may change the order
        self.logits = self.logits[self._growth.questions]


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
    answers = [Growing(Decoding(max_new_tokens), stop) for _ in prompts]
    decoder = RowDecoder(llava)
    decoder.join(prompts, pixels)
    while asked := decoder.asked:
        decoder.step(next_tokens([answers[number] for number in asked], decoder.logits))
    return [answer.generation for answer in answers]


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
