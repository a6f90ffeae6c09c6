"""Write the one page that says whether the model got better, and shows it.

The page is self-contained: pictures are data: URLs, drawings are inline SVG, there is no script, and its own
security policy forbids it to load anything. Whatever came from a model or a data set is escaped.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from PIL import Image, ImageOps

from lorgnette.comparison.compare import Prediction, Result, TaskComparison
from lorgnette.comparison.plots import bars, loss_curves
from lorgnette.comparison.wording import (
    difference_text,
    interval_text,
    p_text,
    score_text,
)
from lorgnette.run import write_text

THUMBNAIL_PIXELS = 160
# Read from a picture's header before any pixel is decoded; 64 million pixels are 192 MB in memory.
MOST_PIXELS = 64_000_000
# Without this list Pillow would also try formats that start other programs, such as EPS.
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
MOST_CHARACTERS = 400
# Below this a percentile bootstrap is visibly too narrow; the page then says so.
FEW_SAMPLES = 30
# The fields of result.json that the table of the comparison shows already.
MEASURED = ("task", "metric", "n", "score", "interval", "stderr", "kinds")


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A thumbnail as a data: URL, or the reason why there is none."""

    url: str | None = None
    width: int = 0
    height: int = 0
    missing: str = ""


@dataclass(frozen=True, kw_only=True)
class Card:
    """One document of the gallery."""

    before: Prediction
    after: Prediction
    picture: Picture


@dataclass(frozen=True, kw_only=True)
class Group:
    """The documents whose score moved in the same way: how many there are, and the few that are shown."""

    name: str
    total: int
    cards: tuple[Card, ...]


@dataclass(frozen=True, kw_only=True)
class Section:
    """All that the page says about one task."""

    comparison: TaskComparison
    headline: str
    verdict: str
    bars: Markup
    conditions: tuple[tuple[str, str, str], ...]  # name, before, after
    gallery: tuple[Group, ...]


def write_report(
    path: Path,
    *,
    title: str,
    comparisons: Sequence[TaskComparison],
    results: Sequence[tuple[Result, Result]],
    metrics: Sequence[Mapping[str, Any]],
    recipe_text: str,
    provenance: Mapping[str, Any],
    parts: Sequence[Mapping[str, Any]],
    gallery_size: int = 24,
) -> None:
    """Write `report.html`, whole or not at all; the same input gives the same bytes.

    `comparisons` and `results` (before, after) belong together in this order. `metrics` are the rows of
    `metrics.jsonl`; `parts` have `stage`, `part`, `mode`, `parameters`, `trainable` and `learning_rate`.
    `gallery_size` is the most documents shown a task; see `_gallery` for how they are chosen.

    Raises:
        DataError: a row of `metrics` has no stage or no step.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "score": score_text,
        "difference": difference_text,
        "interval": interval_text,
        "p": p_text,
        "shorten": _shorten,
    }
    template = resources.files(__package__).joinpath("report.html.j2").read_text(encoding="utf-8")
    sections = [
        _section(comparison, before, after, gallery_size)
        for comparison, (before, after) in zip(comparisons, results, strict=True)
    ]
    page = environment.from_string(template).render(
        title=title,
        sections=sections,
        few_samples=FEW_SAMPLES,
        curves=Markup(loss_curves(metrics)),  # escaped where it is drawn
        parts=parts,
        provenance=tuple(_flat(provenance)),
        recipe_text=recipe_text,
    )
    write_text(path, page)


def headline(comparison: TaskComparison, split: str) -> str:
    """Say the result in one sentence.

    A split whose name has `train` in it was not held out, and an unknown one is not called so either. Spaces
    inside a number's phrase do not break over two lines.
    """
    documents = "training questions" if "train" in split.lower() else "held-out questions"
    p = p_text(comparison.p_value)
    return (
        f"{comparison.task}: {score_text(comparison.before)} → {score_text(comparison.after)} "
        f"on {comparison.n:,} {documents if split else 'questions'}, "
        f"difference {difference_text(comparison.difference)} "
        f"(95\N{NO-BREAK SPACE}% interval {interval_text(comparison.interval)}), "
        + f"p {p if p.startswith('<') else f'= {p}'}".replace(" ", "\N{NO-BREAK SPACE}")
    )


def verdict(comparison: TaskComparison) -> str:
    """Say what the numbers allow to be said, and no more."""
    counts = f"{comparison.wins:,} answers improved and {comparison.losses:,} got worse."
    if comparison.p_value < 0.05 and comparison.interval.low > 0.0:
        return f"The model got better. {counts}"
    if comparison.p_value < 0.05 and comparison.interval.high < 0.0:
        return f"The model got worse. {counts}"
    return f"This difference could be chance. {counts}"


def _section(comparison: TaskComparison, before: Result, after: Result, gallery_size: int) -> Section:
    """Gather what the page says about one task."""
    data = before.summary.get("data")
    split = data.get("split") if isinstance(data, dict) else None
    first, second = (
        dict(_flat({name: value for name, value in result.summary.items() if name not in MEASURED}))
        for result in (before, after)
    )
    return Section(
        comparison=comparison,
        headline=headline(comparison, split if isinstance(split, str) else ""),
        verdict=verdict(comparison),
        bars=Markup(bars(comparison)),  # escaped where it is drawn
        conditions=tuple((name, first.get(name, "—"), second.get(name, "—")) for name in first | second),
        gallery=_gallery(before, after, gallery_size),
    )


def _gallery(before: Result, after: Result, size: int) -> tuple[Group, ...]:
    """Choose the documents to show: a third became right, a third wrong, a sixth stayed wrong, a sixth right.

    Losses get as much room as wins, however rare they are; the headings have the true counts. Places that a
    group cannot fill go to mistakes first. Within a group the choice is by the hash of the id: the same on
    every machine, and blind to the content, so that nobody can pick the prettiest. An unchanged score counts
    as right from 0.5.
    """
    afterwards = {row.id: row for row in after.predictions}
    pairs = [(row, afterwards[row.id]) for row in before.predictions]
    pairs.sort(key=lambda pair: hashlib.sha256(pair[0].id.encode()).digest())
    binary = all(row.score in (0.0, 1.0) for pair in pairs for row in pair)
    better, worse = ("Became right", "Became wrong") if binary else ("Improved", "Got worse")
    groups: dict[str, list[tuple[Prediction, Prediction]]] = {
        name: [] for name in (better, worse, "Wrong both times", "Right both times")
    }
    for first, second in pairs:
        if first.score != second.score:
            name = better if second.score > first.score else worse
        else:
            name = "Right both times" if first.score >= 0.5 else "Wrong both times"
        groups[name].append((first, second))
    places = _places([len(group) for group in groups.values()], size)
    return tuple(
        Group(
            name=name,
            total=len(group),
            cards=tuple(Card(before=a, after=b, picture=_picture(a.image)) for a, b in group[:count]),
        )
        for (name, group), count in zip(groups.items(), places, strict=True)
    )


def _places(available: Sequence[int], size: int) -> list[int]:
    """Share `size` places 2:2:1:1 among (better, worse, wrong, right), the rest to mistakes first."""
    wanted = [size * weight // 6 for weight in (2, 2, 1, 1)]
    places = [min(have, want) for have, want in zip(available, wanted, strict=True)]
    for index in (1, 2, 0, 3):
        places[index] += min(available[index] - places[index], size - sum(places))
    return places


def _picture(source: str | None) -> Picture:
    """Shrink an image file to a data: URL; a file that is missing, broken or huge becomes a labelled gap."""
    if source is None:
        return Picture(missing="no image")
    path = Path(source)
    try:
        if not path.is_file():  # also keeps pipes and devices from being opened
            return Picture(missing=f"image not found: {path.name}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about broken metadata or size; the size is checked below
            with Image.open(path, formats=IMAGE_FORMATS) as image:
                if image.width * image.height > MOST_PIXELS:
                    return Picture(missing=f"image too large: {path.name}")
                image.draft("RGB", (THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))  # JPEG decodes at a fraction of its size
                upright = ImageOps.exif_transpose(image).convert("RGBA")
    except Exception:  # a hostile file can raise anything in a decoder, and no picture is worth the report
        return Picture(missing=f"image cannot be read: {path.name}")
    upright.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    flat = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright).convert("RGB")
    # Drawings are smaller and sharper as PNG, photographs as JPEG.
    encoded = {"png": _encode(flat, "PNG", optimize=True), "jpeg": _encode(flat, "JPEG", quality=85)}
    kind, content = min(encoded.items(), key=lambda item: len(item[1]))
    url = f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
    return Picture(url=url, width=flat.width, height=flat.height)


def _encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Encode an image in memory."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the leaves of a nested mapping as dotted names and texts."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
            yield f"{prefix}{name}", text


def _shorten(text: str) -> str:
    """Cut a text that would fill the page, and say how much is missing."""
    if len(text) <= MOST_CHARACTERS:
        return text
    cut = len(text) - MOST_CHARACTERS
    return f"{text[:MOST_CHARACTERS]}… ({cut:,} more characters)"
