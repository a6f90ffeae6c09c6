"""Write the page on which a person looks through what a model made.

Self-contained like the report: pictures are data: URLs, there is no script, and its own security policy forbids it to
load anything. Whatever came from a model is escaped.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from lorgnette.data.images import open_image
from lorgnette.data.making_prompts import Pair
from lorgnette.errors import DataError
from lorgnette.run import write_text

MOST_CARDS = 300
MOST_FAILURES = 100
"""A page with more pictures is slow to open; how many there are is always said."""

THUMBNAIL_PIXELS = 256


@dataclass(frozen=True, slots=True)
class Card:
    """A picture with its pairs, or with the reason why there are none."""

    name: str
    path: Path | None
    pairs: tuple[Pair, ...]
    failure: str

    def url(self) -> str:
        """Return the picture as a small data: URL, or nothing where it cannot be shown."""
        if self.path is None:
            return ""
        try:
            picture = open_image(self.path)
        except DataError:
            return ""
        picture.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=80)
        return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def write_review(path: Path, made: Mapping[str, Any], cards: Sequence[Card]) -> None:
    """Write the page: pictures chosen by a hash of their name, so that nobody picks the prettiest, then failures."""
    good = sorted((card for card in cards if not card.failure), key=_by_chance)
    failed = [card for card in cards if card.failure]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = resources.files(__package__).joinpath("review.html.j2").read_text(encoding="utf-8")
    page = environment.from_string(template).render(
        made=made,
        good=sorted(good[:MOST_CARDS], key=lambda card: card.name),
        good_total=len(good),
        failed=failed[:MOST_FAILURES],
        failed_total=len(failed),
    )
    write_text(path, page)


def _by_chance(card: Card) -> bytes:
    return hashlib.sha256(card.name.encode()).digest()
