"""Sources to rendered samples, counted; the order in which they are trained on; micro-batches as rows."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from lorgnette.data.encodings import Encodings
from lorgnette.data.pairs import AnyRenderer
from lorgnette.data.rendered import Expansion, Rendered
from lorgnette.data.rows import build_row
from lorgnette.data.rules import RequireImage, bad_row, require_usable, too_many_bad
from lorgnette.data.sample import Sample
from lorgnette.errors import DataError, LeftOut
from lorgnette.images.opening import read_pixels, require_file


@dataclass
class Findings:
    """What became of the samples of a data set.

    Attributes:
        read: samples read.
        kept: samples that will be used.
        dropped: reason -> how many samples cannot be used.
        examples: reason -> the first sample of each kind.
        left_out: reason -> how many rows options or the set itself leave out; they are not among those read.
        mended: what the reader put right -> in how many kept samples.
        notes: what else a person should know, in sentences.
        shortened: samples shortened to `max_text_tokens`; `shortened_tokens` is by how much in all.
        tokens: tokens of the kept samples, images included; `supervised` of them carry loss.
    """

    read: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    mended: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    shortened: int = 0
    shortened_tokens: int = 0
    tokens: int = 0
    supervised: int = 0

    def drop(self, error: DataError) -> None:
        """Count a sample that cannot be used under its kind, or under its message without the place."""
        reason = bad_row(error).kind
        self.dropped[reason] += 1
        self.examples.setdefault(reason, str(error))

    def __add__(self, other: Findings) -> Findings:
        """Count two sources together."""
        return Findings(
            self.read + other.read,
            self.kept + other.kept,
            self.dropped + other.dropped,
            other.examples | self.examples,
            self.left_out + other.left_out,
            self.mended + other.mended,
            self.notes + other.notes,
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
            "left_out": dict(self.left_out),
            "mended": dict(self.mended),
            "notes": self.notes,
            "shortened": self.shortened,
            "shortened_tokens": self.shortened_tokens,
            "tokens": self.tokens,
            "supervised_share": self.supervised / self.tokens if self.tokens else 0.0,
        }


class RenderedSamples:
    """The samples of one source: what is their own, and the places of their conversations in `Encodings`.

    Half a million samples are a few hundred megabytes; each is put together when it is asked for.
    """

    def __init__(self, encodings: Encodings, expansion: Expansion) -> None:
        self.encodings = encodings
        self.expansion = expansion
        self.ids: list[str] = []
        self.images: list[tuple[str, ...]] = []
        self.places = array("q")
        self._images: dict[tuple[str, ...], tuple[str, ...]] = {}

    def add(self, sample: Sample, place: int) -> None:
        """Add a sample whose conversation is at a place of the encodings."""
        self.ids.append(sample.id)
        self.images.append(self._images.setdefault(sample.images, sample.images))  # equal ones are kept once
        self.places.append(place)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Rendered:
        """Return what `Renderer.render` gives for the sample."""
        return self.expansion.rendered(self.encodings[self.places[index]], self.ids[index], self.images[index])

    def content(self, index: int) -> bytes:
        """Return all that is trained on, apart from pixels, as bytes to be hashed."""
        name = repr((self.ids[index], self.images[index], self.expansion)).encode()
        return name + self.encodings.content(self.places[index])

    def count(self, findings: Findings) -> None:
        """Add up tokens and shortened samples."""
        text, images, supervised, cut = self.encodings.counts(self.expansion.image_token_id)[np.asarray(self.places)].T
        soft = len(self.expansion.soft_prompt) * len(self)
        findings.tokens += int(text.sum() + images.sum() * self.expansion.image_tokens) + soft
        findings.supervised += int(supervised.sum())
        findings.shortened += int((cut > 0).sum())
        findings.shortened_tokens += int(cut.sum())


def render_all(
    samples: Iterable[Sample | DataError],
    renderer: AnyRenderer,
    max_bad_share: float,
    encodings: Encodings | None = None,
    require_image: RequireImage = require_file,
) -> tuple[RenderedSamples, Findings]:
    """Render every sample; count those that cannot be used, and stop if they are too many.

    Which those are is decided in `rules.py`, for `lorgnette data check` as well.

    Args:
        encodings: conversations that were rendered before; it takes up and keeps those that are new.

    Raises:
        DataError: if more than `max_bad_share` of the samples cannot be used, or none can.
    """
    findings = Findings()
    encodings = Encodings() if encodings is None else encodings
    kept = RenderedSamples(encodings, renderer.expansion)
    require_image = cache(require_image)
    for sample in samples:
        if isinstance(sample, LeftOut):
            findings.left_out[sample.kind] += 1
            continue
        findings.read += 1
        try:
            usable = require_usable(sample, require_image)
            place = encodings.place_of(usable, renderer)
        except DataError as error:
            findings.drop(error)
            continue
        kept.add(usable, place)
        findings.kept += 1
        findings.mended.update(usable.mended)
    encodings.keep()  # also where the rows are too bad: they will be mended, and the others rendered by then
    findings.notes += encodings.notes
    if too_many_bad(findings.read, findings.kept, max_bad_share):
        raise DataError(_too_many(findings, max_bad_share))
    kept.count(findings)
    return kept, findings


def _too_many(findings: Findings, max_bad_share: float) -> str:
    if not findings.read:
        left_out = findings.left_out.total()
        why = f"; {left_out:,} rows are left out by options or marks of the set" if left_out else ""
        return f"the data is empty: no sample was read{why}. Next: check path, split and options of the sources."
    bad = findings.read - findings.kept
    lines = [f"  {count} x  {findings.examples[reason]}" for reason, count in findings.dropped.most_common(5)]
    return (
        f"{bad:,} of {findings.read:,} samples cannot be used. Allowed: max_bad_share {max_bad_share:.2%}. "
        "Most frequent:\n" + "\n".join(lines) + "\nNext: lorgnette data check names them all and can leave them "
        "out (--fix); or raise max_bad_share."
    )


def weighted(count: int, weight: float, seed: int) -> list[int]:
    """Repeat the numbers of a source's samples `weight` times; the fraction is a random part, fixed by the seed."""
    whole, part = divmod(weight, 1.0)
    chosen = np.random.default_rng(seed).choice(count, round(part * count), replace=False)
    return [*range(count)] * int(whole) + sorted(chosen.tolist())


class RenderedDataset(Dataset[Rendered]):
    """Rendered samples by number: those of each source that were chosen, source after source.

    Args:
        sources: samples of each source, and the numbers of those that were chosen (some perhaps several times).
    """

    def __init__(self, sources: Sequence[tuple[RenderedSamples, Sequence[int]]]) -> None:
        self.sources: list[RenderedSamples] = [samples for samples, _ in sources]
        self.source_of = np.repeat(np.arange(len(sources)), [len(chosen) for _, chosen in sources])
        self.number_of = np.concatenate([np.asarray(chosen, np.int64) for _, chosen in sources] or [np.zeros(0, int)])

    def __len__(self) -> int:
        return len(self.number_of)

    def __getitem__(self, index: int) -> Rendered:
        if index >= len(self):
            raise IndexError(index)  # ends a loop over the data set
        return self.sources[int(self.source_of[index])][int(self.number_of[index])]

    def images(self) -> list[tuple[str, ...]]:
        """Return the images of every sample, without putting the samples together."""
        places = zip(self.source_of.tolist(), self.number_of.tolist(), strict=True)
        return [self.sources[source].images[number] for source, number in places]

    def content_hash(self) -> str:
        """Hash what is trained on, in its order: ids, labels and names of images."""
        digest = hashlib.sha256()
        for source, number in zip(self.source_of.tolist(), self.number_of.tolist(), strict=True):
            digest.update(self.sources[source].content(number))
        return f"sha256:{digest.hexdigest()}"


class SharedImageSampler(Sampler[int]):
    """Shuffle images, then the samples of each, so that samples about the same images are neighbours.

    The order is a function of seed and epoch alone. Without `share_images` samples are shuffled one by one.

    Args:
        images: those of every sample.
    """

    def __init__(self, images: Sequence[tuple[str, ...]], seed: int, *, share_images: bool) -> None:
        self.seed = seed
        self.epoch = 0
        groups: dict[object, list[int]] = {}
        for index, own in enumerate(images):
            groups.setdefault(own if share_images and own else index, []).append(index)
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
