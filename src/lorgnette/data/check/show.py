"""Find one row of the data by its id or number, and say what becomes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lorgnette.data.image_store import ImageStore
from lorgnette.data.parts import Part
from lorgnette.data.rendered import Encoded
from lorgnette.data.rules import require_usable
from lorgnette.data.sample import Sample
from lorgnette.errors import DataError

MOST_NAMED = 5


@dataclass(frozen=True)
class Shown:
    """One row: its part, the sample, what it is rendered to, and what there is to say about it."""

    part: Part
    sample: Sample
    encoded: Encoded | None
    note: str


def find_row(parts: Sequence[Part], wanted: str, store: ImageStore) -> Shown:
    """Return the first row with an id or, if no id is `wanted`, the first whose number in its file it is.

    Raises:
        DataError: if there is none, or the row cannot be read as a sample.
    """
    by_number: tuple[Part, Sample | DataError] | None = None
    found: list[tuple[Part, Sample]] = []
    for part in parts:
        for number, sample in enumerate(part.read()):
            if isinstance(sample, Sample) and sample.id == wanted:
                found.append((part, sample))
            row = sample.origin.row if isinstance(sample, Sample) else number
            if by_number is None and str(row) == wanted:
                by_number = part, sample
        if len(found) > MOST_NAMED:
            break
    if found:
        others = ", ".join(str(sample.origin) for _, sample in found[1 : MOST_NAMED + 1])
        return _shown(*found[0], store, f"The same id is also at {others}." if others else "")
    if by_number is None:
        raise DataError(
            f"{', '.join(dict.fromkeys(part.path for part in parts))}: no row has the id or the number {wanted!r}."
        )
    part, sample = by_number
    if isinstance(sample, DataError):
        raise sample
    return _shown(part, sample, store, "")


def _shown(part: Part, sample: Sample, store: ImageStore, note: str) -> Shown:
    notes = [note, *(f"Put right: {mended}." for mended in sample.mended)]
    for image in dict.fromkeys(sample.images):
        facts = store.facts(image)
        notes += [f"{image}: {kind}." for kind in facts.mended]
    encoded = None
    try:
        require_usable(sample, store.require_image)
        if part.renderer is not None:
            encoded = part.renderer.encode(sample)
    except DataError as error:
        notes.insert(0, f"This row is not used: {error}")
    if encoded is not None and encoded.shortened:
        notes.append(f"Shortened by {encoded.shortened:,} text tokens.")
    return Shown(part, sample, encoded, " ".join(filter(None, notes)))
