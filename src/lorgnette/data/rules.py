"""Which rows are trained on: the one place that decides, for the check and for training alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from lorgnette.data.sample import Sample, check_sample
from lorgnette.errors import DataError, RowError

RequireImage = Callable[[str], object]
"""Raises `RowError` for the path of an image that cannot be used. What it knows differs: the check has decoded every
image, training knows what a check has found before, and that a file is there."""


def require_usable(sample: Sample | DataError, require_image: RequireImage) -> Sample:
    """Return a sample whose images can be used and whose turns are in order; `Renderer` then judges its tokens.

    Raises:
        DataError: what the reader found wrong with the row; a `RowError` where an image or a turn is the reason.
    """
    if isinstance(sample, DataError):
        raise sample
    for image in sample.images:
        try:
            require_image(image)
        except RowError as error:
            raise RowError(error.kind, sample.where, f"{image[:200]}: {error.reason}") from error
    check_sample(sample)
    return sample


def too_many_bad(read: int, kept: int, max_bad_share: float) -> bool:
    """Tell whether so many rows of a source cannot be used that nothing should be trained on it."""
    return kept == 0 or read - kept > max_bad_share * read


class BadRow(NamedTuple):
    """A row that cannot be used: the words under which it is counted, where it is, why it cannot."""

    kind: str
    where: str
    reason: str


def bad_row(error: DataError) -> BadRow:
    """Return what an error says of its row; one without a kind of its own is counted under its message."""
    if isinstance(error, RowError):
        return BadRow(error.kind, error.where, error.reason)
    where, _, reason = str(error).partition(": ")
    return BadRow(reason or where, where, reason)
