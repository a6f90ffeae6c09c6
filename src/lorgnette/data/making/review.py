"""Write the page on which a person looks through what a model made.

Self-contained like the report: pictures are data: URLs, there is no script, and its own security policy forbids it to
load anything. Whatever came from a model is escaped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorgnette.data.making.prompt import Pair
from lorgnette.images.thumbnails import Thumbnail, thumbnail
from lorgnette.pages import render_page
from lorgnette.run import write_text

MOST_CARDS = 300
MOST_FAILURES = 100
"""A page with more pictures is slow to open; how many there are is always said."""

THUMBNAIL_PIXELS = 256


@dataclass(frozen=True, slots=True)
class Card:
    """A picture with its pairs, or with the reason why there are none; without a path it cannot be shown."""

    name: str
    path: Path | None
    pairs: tuple[Pair, ...]
    failure: str


def write_review(path: Path, made: Mapping[str, Any], cards: Sequence[Card]) -> None:
    """Write the page: pictures chosen by a hash of their name, so that nobody picks the prettiest, then failures."""
    good = sorted((card for card in cards if not card.failure), key=_by_chance)
    failed = [card for card in cards if card.failure]
    page = render_page(
        __package__,
        "review.html.j2",
        {"thumbnail": lambda card: thumbnail(card.path, THUMBNAIL_PIXELS) if card.path else Thumbnail()},
        made=made,
        good=sorted(good[:MOST_CARDS], key=lambda card: card.name),
        good_total=len(good),
        failed=failed[:MOST_FAILURES],
        failed_total=len(failed),
    )
    write_text(path, page)


def _by_chance(card: Card) -> bytes:
    return hashlib.sha256(card.name.encode()).digest()
