"""Samples of a text-to-text model: a source for the encoder, a target for the decoder, in padded batches.

What goes into the encoder is the conversation up to the last answer, one turn a line; the target is that answer and the
end of sequence. A soft prompt stands before the source with ids of its own, as in rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from lorgnette.data.rendering import IGNORE_INDEX, Rendered, TooLong
from lorgnette.data.sample import Sample, Turn, check_sample
from lorgnette.errors import DataError, RowError


@dataclass(frozen=True, slots=True)
class Pairs:
    """The tensors of one batch. B samples, S longest source, T longest target, L supervised tokens.

    Attributes:
        ids: ids of the samples.
        input_ids: (B, S), padded at the end.
        attention_mask: (B, S), from lengths: a padding id may be a word too.
        decoder_input_ids: (B, T), the targets moved one place on, behind the decoder's start.
        supervised: (B, T) bool, where the decoder predicts a token of the target.
        labels: (L) these tokens.
    """

    ids: tuple[str, ...]
    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    decoder_input_ids: torch.Tensor
    supervised: torch.Tensor
    labels: torch.Tensor

    # transformers and accelerate move batches with `.to(device, non_blocking=...)`
    def to(self, device: torch.device | str, **_: Any) -> Pairs:
        """Move all tensors to a device."""
        moved: dict[str, Any] = {
            field.name: value.to(device)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), torch.Tensor)
        }
        return replace(self, **moved)


class PairRenderer:
    """Render samples to source and target ids: `Rendered.input_ids` is the source, `Rendered.labels` the target.

    Args:
        tokenizer: of the model; it ends texts with its end of sequence.
        max_text_tokens: most tokens of source and target together; None for no limit.
        too_long: `cut_end` cuts the target (which then has no end of sequence); the others refuse the sample.
        soft_prompt: ids that stand for a soft prompt in front of the source.
    """

    def __init__(
        self,
        tokenizer: Any,
        max_text_tokens: int | None = None,
        too_long: TooLong = "drop_turns",
        soft_prompt: tuple[int, ...] = (),
    ) -> None:
        self.tokenizer = tokenizer
        self.max_text_tokens = max_text_tokens
        self.too_long = too_long
        self.soft_prompt = soft_prompt

    def render(self, sample: Sample) -> Rendered:
        """Render a conversation; its last answer is the target.

        Raises:
            RowError: if the sample is malformed, has images, or is too long and the policy refuses it.
        """
        check_sample(sample)
        where = f"{sample.origin} (id {sample.id})"
        if sample.images:
            raise RowError("image for a text model", where, "has images, but a text-to-text model cannot see.")
        source = self._source(sample.turns[:-1])
        target = self._ids(sample.turns[-1].text.strip())
        over = 0 if self.max_text_tokens is None else max(0, len(source) + len(target) - self.max_text_tokens)
        if over and (self.too_long != "cut_end" or over >= len(target)):
            length = len(source) + len(target)
            raise RowError("too long", where, f"{length} text tokens. Allowed: max_text_tokens {self.max_text_tokens}.")
        return Rendered(sample.id, (), (*self.soft_prompt, *source), target[: len(target) - over], over)

    def render_prompt(self, sample_id: str, images: tuple[str, ...], turns: Sequence[Turn]) -> Rendered:
        """Render turns that the model shall answer; no label is set.

        Raises:
            DataError: if there are images.
        """
        if images:
            raise DataError(f"{sample_id}: has images, but a text-to-text model cannot see.")
        return Rendered(sample_id, (), (*self.soft_prompt, *self._source(turns)), ())

    def _source(self, turns: Sequence[Turn]) -> tuple[int, ...]:
        return self._ids("\n".join(turn.text.strip() for turn in turns))

    def _ids(self, text: str) -> tuple[int, ...]:
        ids = tuple(self.tokenizer(text, add_special_tokens=True)["input_ids"])
        end = self.tokenizer.eos_token_id
        return ids if ids[-1:] == (end,) else (*ids, end)


@dataclass(frozen=True)
class PairCollator:
    """Pad sources and targets of a micro-batch."""

    pad_token_id: int
    decoder_start_token_id: int

    def __call__(self, samples: Sequence[Rendered]) -> dict[str, Any]:
        """Return {"row", "labels", "shift_labels"} as `RowCollator` does."""
        sources = [torch.tensor(sample.input_ids) for sample in samples]
        targets = [torch.tensor(sample.labels, dtype=torch.long) for sample in samples]
        padded = torch.nn.utils.rnn.pad_sequence(targets, batch_first=True, padding_value=IGNORE_INDEX)
        start = torch.full((len(samples), 1), self.decoder_start_token_id)
        before = torch.cat([start, padded[:, :-1]], dim=1)
        supervised = padded != IGNORE_INDEX
        pairs = Pairs(
            ids=tuple(sample.id for sample in samples),
            input_ids=torch.nn.utils.rnn.pad_sequence(sources, batch_first=True, padding_value=self.pad_token_id),
            attention_mask=torch.nn.utils.rnn.pad_sequence(
                [torch.ones_like(source) for source in sources], batch_first=True
            ),
            decoder_input_ids=before.masked_fill(before == IGNORE_INDEX, self.pad_token_id),
            supervised=supervised,
            labels=padded[supervised],
        )
        return {"row": pairs, "labels": pairs.labels, "shift_labels": pairs.labels}
