"""Samples of a text-to-text model: a source for the encoder, a target for the decoder, in padded batches.

What goes into the encoder is the conversation up to the last answer, one turn a line; the target is that answer and the
end of sequence. A soft prompt stands before the source with ids of its own, as in rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from lorgnette.data.rendered import IGNORE_INDEX, Encoded, Expansion, Rendered
from lorgnette.data.rendering import Renderer, TooLong
from lorgnette.data.sample import Sample, Turn, check_sample
from lorgnette.errors import DataError, RowError

NO_IMAGE = -1
"""No token has this id: there are no images."""


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
    """Render samples to the ids of source and target, one after the other; only the target carries labels.

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
        self.expansion = Expansion(NO_IMAGE, 1, soft_prompt)

    @property
    def end_of_turn(self) -> str:
        """Return what ends an answer."""
        return str(self.tokenizer.eos_token)

    def render(self, sample: Sample) -> Rendered:
        """Render a conversation; its last answer is the target.

        Raises:
            RowError: as `encode`.
        """
        return self.expansion.rendered(self.encode(sample), sample.id, ())

    def encode(self, sample: Sample) -> Encoded:
        """Render a conversation without the soft prompt; this depends on its turns alone.

        Raises:
            RowError: if the sample is malformed, has images, or is too long and the policy refuses it.
        """
        check_sample(sample)
        if sample.images:
            raise RowError(
                "image for a text model",
                sample.where,
                "has images, but a text-to-text model cannot see. Next: leave the row out, or take a LLaVA.",
            )
        source = self._source(sample.turns[:-1])
        target = self._ids(sample.turns[-1].text.strip())
        over = 0 if self.max_text_tokens is None else max(0, len(source) + len(target) - self.max_text_tokens)
        if over and (self.too_long != "cut_end" or over >= len(target)):
            length = len(source) + len(target)
            reason = f"{length} text tokens. Allowed: max_text_tokens {self.max_text_tokens}."
            raise RowError("too long", sample.where, reason)
        kept = target[: len(target) - over]
        return Encoded((*source, *kept), (*(IGNORE_INDEX,) * len(source), *kept), over)

    def render_prompt(self, sample_id: str, images: tuple[str, ...], turns: Sequence[Turn]) -> Rendered:
        """Render turns that the model shall answer; no label is set.

        Raises:
            DataError: if there are images.
        """
        if images:
            raise DataError(
                f"{sample_id}: has images, but a text-to-text model cannot see. Next: leave the row out, or take a "
                "LLaVA."
            )
        source = self._source(turns)
        return self.expansion.rendered(Encoded(source, (IGNORE_INDEX,) * len(source)), sample_id, ())

    def decides(self) -> list[Any]:
        """Return all that decides what becomes of a conversation, apart from its turns and our code."""
        backend = self.tokenizer.backend_tokenizer.to_str()
        return [backend, self.tokenizer.special_tokens_map, self.max_text_tokens, self.too_long]

    def _source(self, turns: Sequence[Turn]) -> tuple[int, ...]:
        return self._ids("\n".join(turn.text.strip() for turn in turns))

    def _ids(self, text: str) -> tuple[int, ...]:
        ids = tuple(self.tokenizer(text, add_special_tokens=True)["input_ids"])
        end = self.tokenizer.eos_token_id
        return ids if ids[-1:] == (end,) else (*ids, end)


AnyRenderer = Renderer | PairRenderer
"""What turns samples into ids and labels, of either kind of model."""


def _parted(sample: Rendered) -> tuple[torch.Tensor, torch.Tensor]:
    """Part a sample's ids into source and target."""
    ids, labels = torch.tensor(sample.input_ids), torch.tensor(sample.labels)
    return ids[labels == IGNORE_INDEX], labels[labels != IGNORE_INDEX]


@dataclass(frozen=True)
class PairCollator:
    """Pad sources and targets of a micro-batch."""

    pad_token_id: int
    decoder_start_token_id: int

    def __call__(self, samples: Sequence[Rendered]) -> dict[str, Any]:
        """Return {"row", "labels", "shift_labels"} as `RowCollator` does."""
        parted = [_parted(sample) for sample in samples]
        sources, targets = [source for source, _ in parted], [target for _, target in parted]
        padded = torch.nn.utils.rnn.pad_sequence(targets, batch_first=True, padding_value=IGNORE_INDEX)
        if padded.shape[1] == 0:  # a process without a share of the batch
            padded = torch.full((len(samples), 1), IGNORE_INDEX)
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
