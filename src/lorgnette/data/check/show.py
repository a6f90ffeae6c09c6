"""One row of the data, found by its id or number: what becomes of it, on the terminal and on a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from lorgnette.data.check.files import file_name
from lorgnette.data.check.report import shown_segments, write_sample_page
from lorgnette.data.check.terminal import sample_text
from lorgnette.data.rendered import Encoded
from lorgnette.data.rules import BadRow, Usable, judge, unencoded
from lorgnette.data.sample import Sample
from lorgnette.data.used_source import UsedSource
from lorgnette.errors import DataError
from lorgnette.images.store import ImageStore
from lorgnette.pages import printable_lines

MOST_NAMED = 5


@dataclass(frozen=True)
class Shown:
    """One row: its source, the sample, what it is rendered to, and what there is to say about it."""

    source: UsedSource
    sample: Sample
    encoded: Encoded | None
    note: str


def show_row(sources: Sequence[UsedSource], wanted: str, page: Path, store: ImageStore, console: Console) -> Path:
    """Print one row as it is trained, and write a page with its images beside the check's; return the page.

    Raises:
        DataError: if there is no such row, or it cannot be read as a sample.
    """
    shown = find_row(sources, wanted, store)
    source, sample = shown.source, shown.sample
    pieces = shown_segments(source, sample, shown.encoded)
    console.print(f"{source.name}: {printable_lines(sample.where)}", markup=False, style="bold", soft_wrap=True)
    tokens = source.renderer.expansion.image_tokens if source.renderer else 0
    console.print(sample_text(pieces, tokens, coloured=console.color_system is not None), soft_wrap=True)
    if shown.encoded is not None:
        supervised = sum(piece.tokens for piece in pieces if piece.role == "supervised")
        text = sum(piece.tokens for piece in pieces if piece.role != "image")
        console.print(f"{text:,} text tokens, {supervised:,} of them supervised; {len(sample.images)} images")
    for image in sample.images:
        console.print(printable_lines(image), markup=False, style="dim", soft_wrap=True)
    if shown.note:
        console.print(printable_lines(shown.note), markup=False, soft_wrap=True)
    file = page.with_name(f"{page.stem}-{file_name(wanted)[:80]}.html")
    write_sample_page(file, sample.where, source, sample, shown.encoded, shown.note)
    return file


def find_row(sources: Sequence[UsedSource], wanted: str, store: ImageStore) -> Shown:
    """Return the first row with an id or, if no id is `wanted`, the first whose number in its file it is.

    Raises:
        DataError: if there is none, or the row cannot be read as a sample.
    """
    by_number: tuple[UsedSource, Sample | DataError] | None = None
    found: list[tuple[UsedSource, Sample]] = []
    for source in sources:
        for number, sample in enumerate(source.read()):
            if isinstance(sample, Sample) and sample.id == wanted:
                found.append((source, sample))
            row = sample.origin.row if isinstance(sample, Sample) else number
            if by_number is None and str(row) == wanted:
                by_number = source, sample
        if len(found) > MOST_NAMED:
            break
    if found:
        others = ", ".join(str(sample.origin) for _, sample in found[1 : MOST_NAMED + 1])
        return _shown(*found[0], store, f"The same id is also at {others}." if others else "")
    if by_number is None:
        raise DataError(
            f"{', '.join(dict.fromkeys(each.path for each in sources))}: no row has the id or the number {wanted!r}. "
            "Next: look for the id in the data; numbers count from 0."
        )
    source, sample = by_number
    if isinstance(sample, DataError):
        raise sample
    return _shown(source, sample, store, "")


def _shown(source: UsedSource, sample: Sample, store: ImageStore, note: str) -> Shown:
    notes = [note, *(f"Put right: {mended}." for mended in sample.mended)]
    for image in dict.fromkeys(sample.images):
        facts = store.facts(image)
        notes += [f"{image}: {kind}." for kind in facts.mended]
    encode = unencoded if source.renderer is None else source.renderer.encode
    verdict = judge(sample, store.require_image, encode)
    encoded = verdict.encoded if isinstance(verdict, Usable) else None
    if isinstance(verdict, BadRow):
        notes.insert(0, f"This row is not used: {verdict}")
    if encoded is not None and encoded.shortened:
        notes.append(f"Shortened by {encoded.shortened:,} text tokens.")
    return Shown(source, sample, encoded, " ".join(filter(None, notes)))
