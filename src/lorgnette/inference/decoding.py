"""How tokens are chosen, and when an answer is complete. Knows nothing about models, prompts or text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from transformers import TemperatureLogitsWarper, TopPLogitsWarper

LEAST_TEMPERATURE = 1e-5
"""Below it the most likely token is all that is left to draw, and logits that are divided by it overflow."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """How one prompt is answered; greedily unless it has a temperature.

    Attributes:
        max_new_tokens: most tokens of the answer, the one that ends it included.
        temperature: what logits are divided by before a token is drawn, at least `LEAST_TEMPERATURE`; 0 takes the most
            likely one.
        top_p: only the most likely tokens that have this probability together are drawn (Holtzman et al. 2020, arXiv
            1904.09751).
        seed: the same one draws the same answer; None draws anew.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Generation:
    """An answer: its token ids without the one that ended it, and what ended it."""

    ids: tuple[int, ...]
    stopped_by: Literal["end", "length"]


class Growing:
    """One answer while its tokens come.

    Args:
        stop: token ids that end it.

    Attributes:
        ids: its tokens so far, without the one that ended it.
        stopped_by: what ended it; None while it goes on.
    """

    def __init__(self, decoding: Decoding, stop: frozenset[int]) -> None:
        self.decoding = decoding
        self.stop = stop
        self.ids: list[int] = []
        self.stopped_by: Literal["end", "length"] | None = None
        self._random = _random(decoding.seed) if decoding.temperature else None

    def take(self, token: int) -> int | None:
        """Take the next token, and return it; None if the answer is complete and no further one is wanted."""
        if token in self.stop:
            self.stopped_by = "end"
            return None
        self.ids.append(token)
        if len(self.ids) == self.decoding.max_new_tokens:
            self.stopped_by = "length"
            return None
        return token

    def draw(self, logits: torch.Tensor) -> int:
        """Draw a token from its logits (V)."""
        scores = TemperatureLogitsWarper(self.decoding.temperature)(None, logits.cpu()[None])
        if self.decoding.top_p < 1:
            scores = TopPLogitsWarper(self.decoding.top_p)(None, scores)
        return int(torch.multinomial(scores.softmax(-1), 1, generator=self._random))

    @property
    def generation(self) -> Generation:
        """Return the complete answer."""
        assert self.stopped_by is not None
        return Generation(tuple(self.ids), self.stopped_by)


def next_tokens(answers: Sequence[Growing], logits: torch.Tensor) -> list[int | None]:
    """Let each answer take its next token from its logits (N, V) float; None for those that are complete."""
    tokens = logits.argmax(-1).tolist()
    for place, answer in enumerate(answers):
        if answer.decoding.temperature:
            tokens[place] = answer.draw(logits[place])
    return [answer.take(token) for answer, token in zip(answers, tokens, strict=True)]


def _random(seed: int | None) -> torch.Generator:
    random = torch.Generator()
    if seed is None:
        random.seed()
        return random
    return random.manual_seed(seed)
