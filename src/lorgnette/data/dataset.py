"""Sources to rendered samples, counted; the order in which they are trained on; micro-batches as rows."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from lorgnette.data.encodings import Encodings
from lorgnette.data.findings import Judged
from lorgnette.data.pairs import AnyRenderer
from lorgnette.data.rendered import Expansion, Rendered
from lorgnette.data.rows import build_row
from lorgnette.data.rules import RequireImage, Usable, judge, too_many_bad
from lorgnette.data.sample import Sample
from lorgnette.errors import DataError
from lorgnette.images.opening import read_pixels, require_file


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


def render_all(
    samples: Iterable[Sample | DataError],
    renderer: AnyRenderer,
    max_bad_share: float,
    encodings: Encodings | None = None,
    require_image: RequireImage = require_file,
) -> tuple[RenderedSamples, Judged]:
    """Render every sample; count those that cannot be used, and stop if they are too many.

    Which those are is decided by `judge`, for `lorgnette data check` as well.

    Args:
        encodings: conversations that were rendered before; it takes up and keeps those that are new.

    Raises:
        DataError: if more than `max_bad_share` of the samples cannot be used, or none can.
    """
    judged = Judged()
    encodings = Encodings() if encodings is None else encodings
    kept = RenderedSamples(encodings, renderer.expansion)
    require_image, place_of = cache(require_image), partial(encodings.place_of, renderer=renderer)
    for row in samples:
        verdict = judge(row, require_image, place_of)
        judged.count(verdict)
        if isinstance(verdict, Usable):
            kept.add(verdict.sample, verdict.encoded)
    encodings.keep()  # also where the rows are too bad: they will be mended, and the others rendered by then
    judged.notes += encodings.notes
    if too_many_bad(judged.read, judged.kept, max_bad_share):
        raise DataError(_too_many(judged, max_bad_share))
    judged.count_tokens(encodings, kept.places, renderer.expansion)
    return kept, judged


def _too_many(judged: Judged, max_bad_share: float) -> str:
    if not judged.read:
        left_out = judged.counts("leave out").total()
        why = f"; {left_out:,} rows are left out by options or marks of the set" if left_out else ""
        return f"the data is empty: no sample was read{why}. Next: check path, split and options of the sources."
    bad = judged.read - judged.kept
    most_frequent = judged.counts("drop").most_common(5)
    lines = [f"  {count} x  {judged.findings[kind, 'drop'].examples[0]}" for kind, count in most_frequent]
    return (
        f"{bad:,} of {judged.read:,} samples cannot be used. Allowed: max_bad_share {max_bad_share:.2%}. "
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
