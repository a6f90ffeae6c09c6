"""Read every source once, open every image, render every row, and count what is found.

Which rows are dropped is decided by `judge`, by which training goes as well. What is kept although it is worth a look
(duplicates, leaks) is found here.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from itertools import islice
from operator import itemgetter
from pathlib import Path

from lorgnette.data.check.checked import Checked
from lorgnette.data.check.segments import unfinished_answers
from lorgnette.data.check.twins import HeldOut, HeldOutPurpose, Seen, Twin
from lorgnette.data.encodings import Encodings
from lorgnette.data.reading_ahead import read_ahead
from lorgnette.data.rendered import Encoded
from lorgnette.data.rules import BadRow, Usable, judge, judge_document, unencoded
from lorgnette.data.sample import Sample
from lorgnette.data.used_source import UsedSource
from lorgnette.data.writing import ImageNames, llava_row, row_json
from lorgnette.errors import DataError, LeftOut
from lorgnette.images.store import ImageStore

VARIANT_ROWS = 10_000
"""Rows whose way of writing is counted: a second reading, which large files are spared."""

GALLERY = 12
"""Samples of a source that the report shows."""

WHEN_OPENED = {
    "image animated": "the first of its pictures is used",
    "image CMYK": "converted to RGB",
    "image 16-bit": "scaled to 8 bits a channel",
    "image EXIF-rotated": "turned upright",
    "image transparent": "white where it is transparent",
}
"""What is put right whenever an image is opened."""

Watch = Callable[[Iterator[Sample | DataError], UsedSource], Iterator[Sample | DataError]]
"""Passes samples on and shows progress."""


def check_sources(
    sources: Sequence[UsedSource],
    store: ImageStore,
    max_bad_share: float,
    *,
    names_of: Callable[[UsedSource], ImageNames] | None = None,
    watch: Watch = lambda samples, _: samples,
) -> list[Checked]:
    """Check sources that are used together; what is held out is read first, whatever the order.

    Args:
        names_of: keep the rows of each source for a fixed file, its images called so.

    Returns:
        One `Checked` a source, in the order of the sources.
    """
    held_out: dict[HeldOutPurpose, HeldOut] = {"validation": HeldOut(), "test": HeldOut()}
    seen: dict[str, Seen] = {}
    found: dict[int, Checked] = {}
    for number in sorted(range(len(sources)), key=lambda number: sources[number].purpose == "train"):
        source = sources[number]
        checked = found[number] = Checked(source, max_bad_share)
        check = _SourceCheck(checked, store, seen.setdefault(source.name, Seen()), held_out)
        try:
            if names_of is not None and source.purpose != "test":
                checked.names = names_of(source)
            if source.variants is not None:
                checked.variants.update(islice(source.variants(), VARIANT_ROWS))
            for sample in read_ahead(watch(source.read(), source), store):
                check.look(sample)
        except DataError as error:
            checked.failure = str(error)
        check.close()
    return [found[number] for number in range(len(sources))]


class _SourceCheck:
    """The pass over one source."""

    def __init__(
        self,
        checked: Checked,
        store: ImageStore,
        seen: Seen,
        held_out: Mapping[HeldOutPurpose, HeldOut],
    ) -> None:
        self.checked = checked
        self.source = checked.source
        self.store = store
        self.seen = seen
        self.held_out = held_out
        self.judged = checked.judged
        self.encodings = Encodings(self.source.encodings)
        renderer = self.source.renderer
        self.encode = unencoded if renderer is None else partial(self.encodings.place_of, renderer=renderer)
        self.places = array("q")
        self._gallery: list[tuple[int, int, Sample, Encoded | None]] = []

    def look(self, row: Sample | DataError) -> None:
        """Count one row."""
        if isinstance(row, Sample):
            self.checked.images.update(row.images)
        verdict: Usable[int | None] | BadRow | LeftOut
        if self.source.purpose == "test":
            verdict = judge_document(row, self.store.require_image)
            self.judged.count(verdict, bad="stop")
        else:
            verdict = judge(row, self.store.require_image, self.encode)
            self.judged.count(verdict)
        if isinstance(verdict, BadRow):
            self._reject(row, verdict.kind, str(verdict))
        elif isinstance(verdict, Usable):
            self._look_closer(verdict.sample, verdict.encoded)

    def close(self) -> None:
        """Hand over the samples to show, in their order in the source, and keep what was rendered for training."""
        self.checked.gallery = [(sample, encoded) for _, _, sample, encoded in sorted(self._gallery, key=itemgetter(1))]
        if self.source.renderer is not None:
            lengths = self.judged.count_tokens(self.encodings, self.places, self.source.renderer.expansion)
            self.checked.lengths.extend(lengths.tolist())
        self.encodings.keep()
        self.judged.notes += self.encodings.notes

    def _look_closer(self, sample: Sample, place: int | None) -> None:
        """Look at a row that can be used for what is worth knowing; `place` is where it is in the encodings."""
        encoded = None
        if place is not None:
            self.places.append(place)
            encoded = self.encodings[place]
        else:
            self.checked.lengths.append(sum(len(turn.text) for turn in sample.turns))
        self._count_mended(sample, encoded)
        twins = self._count_twins(sample)
        if twins:
            self._reject(sample, twins[0].kind, f"{sample.where}: {twins[0].reason}")
        elif self.checked.names is not None:
            self.checked.rows.append(row_json(llava_row(sample, self.checked.names)))
        self._choose(sample, encoded)

    def _count_mended(self, sample: Sample, encoded: Encoded | None) -> None:
        """Count what opening the images and rendering put right; what the reader did, `judged` has counted."""
        place = sample.where
        facts = {image: self.store.facts(image) for image in dict.fromkeys(sample.images)}
        for kind in dict.fromkeys(kind for found in facts.values() for kind in found.mended):
            images = ", ".join(image for image, found in facts.items() if kind in found.mended)
            self.judged.add(kind, "mend", place, f"{images}: {WHEN_OPENED[kind]}")
        if encoded is None or self.source.renderer is None:
            return
        if encoded.shortened:
            why = f"shortened by {encoded.shortened:,} text tokens ({self.source.renderer.too_long})"
            self.judged.add("too long, shortened", "mend", place, why)
        unfinished = unfinished_answers(encoded, self.source.renderer.tokenizer, self.source.renderer.end_of_turn)
        if unfinished:
            why = f"{unfinished} answers without their end of turn: nothing teaches the model to stop there"
            self.judged.add("no end of turn in the labels", "keep", place, why)

    def _count_twins(self, sample: Sample) -> list[Twin]:
        """Count a row that stands elsewhere as well; return why a fixed file leaves it out."""
        place = sample.where
        images = [self.store.facts(image).sha256 or image for image in sample.images]
        if self.source.purpose != "train":
            self.held_out[self.source.purpose].add(sample, images, f"{self.source.name}: {place}")
            return []
        twins = [twin for purpose, known in self.held_out.items() for twin in known.leaks(sample, images, purpose)]
        twins.extend(self.seen.add(sample, images, place))
        for twin in twins:
            self.judged.add(twin.kind, "keep", place, twin.reason, fix_drops=twin.whole)
        return [twin for twin in twins if twin.whole]

    def _reject(self, sample: Sample | DataError, kind: str, reason: str) -> None:
        if self.checked.names is not None:
            names = replace(self.checked.names, named={})  # what is rejected is not copied
            row = llava_row(sample, names) if isinstance(sample, Sample) else None
            self.checked.rejected.append({"source": self.source.path, "kind": kind, "reason": reason, "row": row})

    def _choose(self, sample: Sample, encoded: Encoded | None) -> None:
        """Keep the samples with the smallest hashes: a fair choice in one pass, the same every time."""
        digest = blake2b(f"{Path(sample.origin.file).name} {sample.origin.row}".encode(errors="replace"), digest_size=8)
        entry = (-int.from_bytes(digest.digest(), "big"), self.judged.read, sample, encoded)
        if len(self._gallery) < GALLERY:
            heapq.heappush(self._gallery, entry)
        else:
            heapq.heappushpop(self._gallery, entry)
