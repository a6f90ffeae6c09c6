"""The page of a check: what was found, how long the rows are, and what a few of them look like to the model.

Self-contained: pictures are data: URLs, drawings are inline SVG, there is no script, and the page's own security policy
forbids it to load anything. Whatever came from the data is escaped.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from PIL import Image

from lorgnette.data.check.findings import Checked
from lorgnette.data.check.segments import Segment, printable, segments
from lorgnette.data.images import open_image
from lorgnette.data.parts import Part
from lorgnette.data.rendered import Encoded
from lorgnette.data.sample import IMAGE_TAG, Sample
from lorgnette.errors import DataError
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
class Picture:
    """A small copy of an image as a data: URL, or the reason why there is none."""

    url: str = ""
    width: int = 0
    height: int = 0
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Card:
    """One sample of the gallery."""

    sample: Sample
    pictures: tuple[Picture, ...]
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
            "limit": found.part.renderer and found.part.renderer.max_text_tokens,
            "image_tokens": found.part.renderer and found.part.renderer.expansion.image_tokens,
            "variants": found.variants.most_common(MOST_VARIANTS),
            "cards": [card(found.part, sample, encoded) for sample, encoded in found.gallery],
        }
        for found in checked
    ]
    _write(path, title=title, sections=sections, images=images, decoded=decoded, single=None)


def write_sample_page(path: Path, title: str, part: Part, sample: Sample, encoded: Encoded | None, note: str) -> None:
    """Write the page of one sample; `note` says what is wrong with it, if anything is."""
    shown = {"card": card(part, sample, encoded), "note": note}
    _write(path, title=title, sections=[], images=len(sample.images), decoded=0, single=shown)


def card(part: Part, sample: Sample, encoded: Encoded | None) -> Card:
    """Gather what is shown of a sample."""
    return Card(sample, tuple(picture(image) for image in sample.images), tuple(shown_segments(part, sample, encoded)))


def shown_segments(part: Part, sample: Sample, encoded: Encoded | None) -> list[Segment]:
    """Return a sample as it is trained; where no tokenizer is known, its turns as they stand."""
    if encoded is not None and part.renderer is not None:
        return list(segments(encoded, part.renderer.tokenizer, part.renderer.expansion.image_token_id))
    found: list[Segment] = []
    for turn in sample.turns:
        found.append(Segment("read", f"{turn.role}: ", 0))
        for number, text in enumerate(turn.text.split(IMAGE_TAG)):
            found += [Segment("image", "", 0)] * (number > 0)
            found.append(Segment("supervised" if turn.role == "assistant" else "read", printable(text), 0))
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


def picture(path: str) -> Picture:
    """Shrink an image to a data: URL."""
    try:
        small = open_image(path)
    except DataError as error:
        return Picture(missing=f"{Path(path).name}: {error}"[:200])
    small.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    # drawings are smaller and sharper as PNG, photographs as JPEG
    encoded = {"png": _encoded(small, "PNG"), "jpeg": _encoded(small, "JPEG")}
    kind, content = min(encoded.items(), key=lambda item: len(item[1]))
    return Picture(f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}", small.width, small.height)


def _encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def _write(path: Path, **values: Any) -> None:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"shorten": _shorten, "printable": printable}
    template = resources.files(__package__).joinpath("report.html.j2").read_text(encoding="utf-8")
    write_text(path, environment.from_string(template).render(**values))


def _shorten(text: str) -> str:
    """Cut a text that would fill the page, and say how much is missing."""
    cut = len(text) - MOST_CHARACTERS
    return text if cut <= 0 else f"{text[:MOST_CHARACTERS]}… ({cut:,} more characters)"
