"""Choose the answers that the page shows, and shrink their pictures into it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from lorgnette.comparison.reading import Result
from lorgnette.evaluation.schema import Answer
from lorgnette.images.thumbnails import Thumbnail, thumbnail

THUMBNAIL_PIXELS = 240
MOST_PIXELS = 64_000_000
"""192 MB in memory: larger ones are not worth it for a page."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """One document of the gallery."""

    before: Answer
    after: Answer
    picture: Thumbnail


@dataclass(frozen=True, kw_only=True)
class Group:
    """The documents whose score moved in the same way: how many there are, and the few that are shown."""

    name: str
    total: int
    cards: tuple[Card, ...]


def gallery(before: Result, after: Result, size: int) -> tuple[Group, ...]:
    """Choose the documents to show: a third became right, a third wrong, a sixth stayed wrong, a sixth right.

    Losses get as much room as wins, however rare they are; the headings have the true counts. Places that a
    group cannot fill go to mistakes first. Within a group the choice is by the hash of the id: the same on
    every machine, and blind to the content, so that nobody can pick the prettiest. An unchanged score counts
    as right from 0.5. Both results have the same documents in the same order.
    """
    pairs = list(zip(before.predictions, after.predictions, strict=True))
    pairs.sort(key=lambda pair: hashlib.sha256(pair[0].id.encode()).digest())
    binary = all(row.score in (0.0, 1.0) for pair in pairs for row in pair)
    better, worse = ("Became right", "Became wrong") if binary else ("Improved", "Got worse")
    low, high = ("Wrong both times", "Right both times") if binary else ("Equally low", "Equally high")
    groups: dict[str, list[tuple[Answer, Answer]]] = {name: [] for name in (better, worse, low, high)}
    for first, second in pairs:
        if first.score != second.score:
            name = better if second.score > first.score else worse
        else:
            name = high if first.score >= 0.5 else low
        groups[name].append((first, second))
    places = _places([len(group) for group in groups.values()], size)
    return tuple(
        Group(
            name=name,
            total=len(group),
            cards=tuple(Card(before=a, after=b, picture=picture(a.image)) for a, b in group[:count]),
        )
        for (name, group), count in zip(groups.items(), places, strict=True)
    )


def picture(source: str | None) -> Thumbnail:
    """Shrink the image of a document."""
    return Thumbnail(missing="no image") if source is None else thumbnail(source, THUMBNAIL_PIXELS, MOST_PIXELS)


def _places(available: Sequence[int], size: int) -> list[int]:
    """Share `size` places 2:2:1:1 among (better, worse, wrong, right), the rest to mistakes first."""
    wanted = [size * weight // 6 for weight in (2, 2, 1, 1)]
    places = [min(have, want) for have, want in zip(available, wanted, strict=True)]
    for index in (1, 2, 0, 3):
        places[index] += min(available[index] - places[index], size - sum(places))
    return places
