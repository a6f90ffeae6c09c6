"""Sources to rendered samples, counted; the order in which they are trained on; micro-batches as rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from lorgnette.data.images import read_pixels, require_file
from lorgnette.data.rendering import Rendered, Renderer
from lorgnette.data.rows import build_row
from lorgnette.data.rules import RequireImage, kind_of, require_trainable, too_many_bad
from lorgnette.data.sample import Sample
from lorgnette.errors import DataError


@dataclass
class Findings:
    """What became of the samples of a data set.

    Attributes:
        read: samples read.
        kept: samples that will be used.
        dropped: reason -> how many samples cannot be used.
        examples: reason -> the first sample of each kind.
        shortened: samples shortened to `max_text_tokens`; `shortened_tokens` is by how much in all.
        tokens: tokens of the kept samples, images included; `supervised` of them carry loss.
    """

    read: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    shortened: int = 0
    shortened_tokens: int = 0
    tokens: int = 0
    supervised: int = 0

    def drop(self, error: DataError) -> None:
        """Count a sample that cannot be used under its kind, or under its message without the place."""
        reason = kind_of(error)
        self.dropped[reason] += 1
        self.examples.setdefault(reason, str(error))

    def __add__(self, other: Findings) -> Findings:
        """Count two sources together."""
        return Findings(
            self.read + other.read,
            self.kept + other.kept,
            self.dropped + other.dropped,
            other.examples | self.examples,
            self.shortened + other.shortened,
            self.shortened_tokens + other.shortened_tokens,
            self.tokens + other.tokens,
            self.supervised + other.supervised,
        )

    def summary(self) -> dict[str, Any]:
        """Return plain values for the run folder."""
        return {
            "read": self.read,
            "kept": self.kept,
            "dropped": dict(self.dropped),
            "shortened": self.shortened,
            "shortened_tokens": self.shortened_tokens,
            "tokens": self.tokens,
            "supervised_share": self.supervised / self.tokens if self.tokens else 0.0,
        }


def render_all(
    samples: Iterable[Sample | DataError],
    renderer: Renderer,
    max_bad_share: float,
    require_image: RequireImage = require_file,
) -> tuple[list[Rendered], Findings]:
    """Render every sample; count those that cannot be used, and stop if they are too many.

    Which those are is decided in `rules.py`, for `lorgnette data check` as well.

    Raises:
        DataError: if more than `max_bad_share` of the samples cannot be used, or none can.
    """
    findings = Findings()
    kept: list[Rendered] = []
    require_image = cache(require_image)
    for sample in samples:
        findings.read += 1
        try:
            rendered = require_trainable(sample, renderer, require_image)
        except DataError as error:
            findings.drop(error)
            continue
        kept.append(rendered)
        findings.kept += 1
        findings.shortened += rendered.shortened > 0
        findings.shortened_tokens += rendered.shortened
        findings.tokens += len(rendered.input_ids)
        findings.supervised += rendered.supervised
    if too_many_bad(findings.read, findings.kept, max_bad_share):
        raise DataError(_too_many(findings, findings.read - findings.kept, max_bad_share))
    return kept, findings


def _too_many(findings: Findings, bad: int, max_bad_share: float) -> str:
    if not findings.read:
        return "the data is empty: no sample was read. Next: check path, split and limit of the sources."
    lines = [f"  {count} x  {findings.examples[reason]}" for reason, count in findings.dropped.most_common(5)]
    return (
        f"{bad:,} of {findings.read:,} samples cannot be used. Allowed: max_bad_share {max_bad_share:.2%}. "
        "Most frequent:\n" + "\n".join(lines) + "\nNext: lorgnette data check names them all and can leave them "
        "out (--fix); or raise max_bad_share."
    )


def weighted(samples: Sequence[Rendered], weight: float, seed: int) -> list[Rendered]:
    """Repeat a source `weight` times an epoch; the fraction is a random part of it, fixed by the seed."""
    whole, part = divmod(weight, 1.0)
    count = round(part * len(samples))
    chosen = sorted(np.random.default_rng(seed).choice(len(samples), count, replace=False).tolist())
    return [*samples] * int(whole) + [samples[index] for index in chosen]


class RenderedDataset(Dataset[Rendered]):
    """Rendered samples by number."""

    def __init__(self, samples: Sequence[Rendered]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Rendered:
        return self.samples[index]


class SharedImageSampler(Sampler[int]):
    """Shuffle images, then the samples of each, so that samples about the same images are neighbours.

    The order is a function of seed and epoch alone. Without `share_images` samples are shuffled one by one.
    """

    def __init__(self, samples: Sequence[Rendered], seed: int, *, share_images: bool) -> None:
        self.seed = seed
        self.epoch = 0
        groups: dict[object, list[int]] = {}
        for index, sample in enumerate(samples):
            groups.setdefault(sample.images if share_images and sample.images else index, []).append(index)
        self.groups = list(groups.values())

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is given next; called by the trainer."""
        self.epoch = epoch

    def __len__(self) -> int:
        return sum(len(group) for group in self.groups)

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng([self.seed, self.epoch])
        for number in random.permutation(len(self.groups)):
            yield from random.permutation(self.groups[number]).tolist()


@dataclass(frozen=True)
class RowCollator:
    """Make one row of a micro-batch; images are decoded here, in the data loader's workers."""

    image_processor: Any
    image_token_id: int
    share_images: bool = True

    def pixels(self, path: str) -> np.ndarray:
        """Decode one image to uint8 (C, H, W)."""
        return read_pixels(self.image_processor, path)

    def __call__(self, samples: Sequence[Rendered]) -> dict[str, Any]:
        """Return {"row", "labels", "shift_labels"}; transformers counts tokens by the last two."""
        row = build_row(samples, self.pixels, self.image_token_id, share_images=self.share_images)
        labels: torch.Tensor = row.labels
        return {"row": row, "labels": labels, "shift_labels": labels}
