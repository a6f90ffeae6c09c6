"""Which rows are trained on: the one place that decides, for the check, for training and for a split alike.

`judge` says what becomes of one row, `Judged` in `findings.py` counts what it says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from lorgnette.data.sample import Sample, check_sample
from lorgnette.errors import DataError, LeftOut, RowError

T_co = TypeVar("T_co", covariant=True)

RequireImage = Callable[[str], object]
"""Raises `RowError` for the path of an image that cannot be used. What it knows differs: the check has decoded every
image, training knows what a check has found before, and that a file is there."""


class Usable(NamedTuple, Generic[T_co]):
    """A row that can be used, and what its conversation was encoded to."""

    sample: Sample
    encoded: T_co


class BadRow(NamedTuple):
    """A row that cannot be used: the words under which it is counted, where it is, why it cannot."""

    kind: str
    where: str
    reason: str

    def __str__(self) -> str:
        """Return where it is and why it cannot be used."""
        return ": ".join(filter(None, (self.where, self.reason)))


def judge(
    row: Sample | DataError, require_image: RequireImage, encode: Callable[[Sample], T_co]
) -> Usable[T_co] | BadRow | LeftOut:
    """Decide on one row: its images can be used, its turns are in order, and it can be encoded; or why it is not used.

    Args:
        row: a sample, or what the reader found wrong with the row.
        encode: what makes token ids and labels of a sample, and refuses it where that cannot be; `unencoded` where no
            tokenizer is known.
    """
    if isinstance(row, DataError):
        return _refused(row)
    try:
        for image in row.images:
            _require_image(row, image, require_image)
        check_sample(row)
        return Usable(row, encode(row))
    except DataError as error:
        return _refused(error)


def judge_document(row: Sample | DataError, require_image: RequireImage) -> Usable[None] | BadRow | LeftOut:
    """Decide on a document of a benchmark: its images; what its questions and answers are, it says itself."""
    if isinstance(row, DataError):
        return _refused(row)
    try:
        for image in row.images:
            require_image(image)
        return Usable(row, None)
    except DataError as error:
        return _refused(error)


def unencoded(sample: Sample) -> None:
    """Stand for encoding where no tokenizer is known."""


def too_many_bad(read: int, kept: int, max_bad_share: float) -> bool:
    """Tell whether so many rows of a source cannot be used that nothing should be trained on it."""
    return kept == 0 or read - kept > max_bad_share * read


def _refused(error: DataError) -> BadRow | LeftOut:
    """Return what an error says of its row; one without a kind of its own is counted under its message."""
    if isinstance(error, LeftOut):
        return error
    if isinstance(error, RowError):
        return BadRow(error.kind, error.where, error.reason)
    where, _, reason = str(error).partition(": ")
    return BadRow(reason or where, where, reason)


def _require_image(sample: Sample, image: str, require_image: RequireImage) -> None:
    try:
        require_image(image)
    except RowError as error:
        raise RowError(error.kind, sample.where, f"{image[:200]}: {error.reason}") from error
