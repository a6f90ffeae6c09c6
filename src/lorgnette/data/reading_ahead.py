"""Samples a little later than they are read, so that worker processes decode their images meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from lorgnette.data.sample import Sample
from lorgnette.errors import DataError
from lorgnette.images.store import ImageStore

AHEAD = 256
"""Rows read before they are judged."""


def read_ahead(samples: Iterable[Sample | DataError], store: ImageStore) -> Iterator[Sample | DataError]:
    """Yield samples a little later than they are read, so that their images are decoded meanwhile."""
    rows = iter(samples)
    waiting: list[Sample | DataError] = []
    while batch := list(islice(rows, AHEAD)):
        store.look_ahead(image for sample in batch if isinstance(sample, Sample) for image in sample.images)
        yield from waiting
        waiting = batch
    yield from waiting
