"""The page of a check: what was found, how long the rows are, and what a few of them look like to the model.

One file, as `pages.py` has it; drawings are inline SVG.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lorgnette.data.check.checked import Checked
from lorgnette.data.check.segments import Segment, segments
from lorgnette.data.rendered import Encoded
from lorgnette.data.sample import IMAGE_TAG, Sample
from lorgnette.data.used_source import UsedSource
from lorgnette.images.thumbnails import Thumbnail, thumbnail
from lorgnette.pages import cut, printable_lines, render_page
from lorgnette.run import write_text

THUMBNAIL_PIXELS = 160
MOST_CHARACTERS = 1_500
MOST_BARS = 40
MOST_VARIANTS = 8


@dataclass(frozen=True, slots=True)
class Bar:
    """Rows whose length is at least `low` and below `high`; the last bar of a drawing may be open."""

    low: int
    high: int
    count: int
    is_open: bool = False


@dataclass(frozen=True, slots=True)
class Card:
    """One sample of the gallery."""

    sample: Sample
    pictures: tuple[Thumbnail, ...]
    segments: tuple[Segment, ...]


def write_page(path: Path, title: str, checked: Sequence[Checked], images: int, decoded: int) -> None:
    """Write the page of a check, whole or not at all.

    Args:
        images: distinct images that were looked at; `decoded` of them were not remembered from an earlier check.
    """
    sections = [
        {
            "checked": found,
            "lengths": percentiles(found.lengths),
            "bars": bars(found.lengths),
            "limit": found.source.renderer and found.source.renderer.max_text_tokens,
            "image_tokens": found.source.renderer and found.source.renderer.expansion.image_tokens,
            "variants": found.variants.most_common(MOST_VARIANTS),
            "cards": [card(found.source, sample, encoded) for sample, encoded in found.gallery],
        }
        for found in checked
    ]
    _write(path, title=title, sections=sections, images=images, decoded=decoded, single=None)


def write_sample_page(
    path: Path, title: str, source: UsedSource, sample: Sample, encoded: Encoded | None, note: str
) -> None:
    """Write the page of one sample; `note` says what is wrong with it, if anything is."""
    shown = {"card": card(source, sample, encoded), "note": note}
    _write(path, title=title, sections=[], images=len(sample.images), decoded=0, single=shown)


def card(source: UsedSource, sample: Sample, encoded: Encoded | None) -> Card:
    """Gather what is shown of a sample."""
    pictures = tuple(thumbnail(image, THUMBNAIL_PIXELS) for image in sample.images)
    return Card(sample, pictures, tuple(shown_segments(source, sample, encoded)))


def shown_segments(source: UsedSource, sample: Sample, encoded: Encoded | None) -> list[Segment]:
    """Return a sample as it is trained; where no tokenizer is known, its turns as they stand."""
    if encoded is not None and source.renderer is not None:
        return list(segments(encoded, source.renderer.tokenizer, source.renderer.expansion.image_token_id))
    found: list[Segment] = []
    for turn in sample.turns:
        found.append(Segment("read", f"{turn.role}: ", 0))
        for number, text in enumerate(turn.text.split(IMAGE_TAG)):
            found += [Segment("image", "", 0)] * (number > 0)
            found.append(Segment("supervised" if turn.role == "assistant" else "read", printable_lines(text), 0))
        found.append(Segment("read", "\n", 0))
    return [segment for segment in found if segment.text or segment.role == "image"]


def percentiles(lengths: Sequence[int]) -> dict[str, int]:
    """Return the median, the 95th percentile and the longest; empty for no rows."""
    if not len(lengths):
        return {}
    middle, long, longest = np.percentile(np.asarray(lengths), [50, 95, 100], method="higher").tolist()
    return {"median": int(middle), "95 % are at most": int(long), "longest": int(longest)}


def bars(lengths: Sequence[int]) -> list[Bar]:
    """Count lengths in at most 40 equal steps; what is far longer than nearly all others shares one open bar."""
    if not len(lengths):
        return []
    values = np.asarray(lengths, dtype=np.int64)
    reach = int(np.percentile(values, 99.5, method="higher"))
    step = max(1, -(-(reach + 1) // MOST_BARS))
    edges = np.arange(0, reach + 1 + step, step)
    counts, _ = np.histogram(values[values < edges[-1]], edges)
    found = [Bar(int(low), int(low) + step, int(count)) for low, count in zip(edges, counts, strict=False)]
    beyond = int((values >= edges[-1]).sum())
    return found + ([Bar(int(edges[-1]), int(values.max()) + 1, beyond, is_open=True)] if beyond else [])


def _write(path: Path, **values: Any) -> None:
    filters = {"shorten": lambda text: cut(text, MOST_CHARACTERS), "printable": printable_lines}
    write_text(path, render_page(__package__, "report.html.j2", filters, **values))
