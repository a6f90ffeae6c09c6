"""A source with the use that is made of it: what is checked, split, and shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from lorgnette.data.encodings import cache_file
from lorgnette.data.pairs import AnyRenderer
from lorgnette.data.readers import READERS, VARIANTS, read_samples
from lorgnette.data.readers.source import SourceSpec
from lorgnette.data.sample import Sample
from lorgnette.errors import DataError, LeftOut, MissingExtra

Purpose = Literal["train", "validation", "test"]

TRIED_ROWS = 20
"""Rows by which a format is recognised."""


@dataclass(frozen=True)
class UsedSource:
    """One source as it is used: to train on, to validate on, or asked as a benchmark.

    Attributes:
        name: what it is called on the screen, such as "finetune train".
        path, format: where it comes from and which reader reads it.
        read: opens the source anew.
        images: the images folder, where one was given.
        variants: says for each row which of the format's ways of writing it is; None where there is only one.
        renderer: None where no tokenizer is known; rows are then not rendered.
        encodings: the cache of conversations that were rendered before; None for none.
    """

    name: str
    purpose: Purpose
    path: str
    format: str
    read: Callable[[], Iterator[Sample | DataError]]
    images: str | None = None
    variants: Callable[[], Iterator[str]] | None = None
    renderer: AnyRenderer | None = None
    encodings: Path | None = None


def used_source(
    name: str, purpose: Purpose, spec: SourceSpec, format: str, limit: int | None, renderer: AnyRenderer | None
) -> UsedSource:
    """Return a source with its use; the cache of its renderings is that of training."""
    variants = VARIANTS.get(format)
    return UsedSource(
        name,
        purpose,
        spec.path,
        format,
        lambda: read_samples(spec.path, format, spec.split, spec.images, limit, spec.options),
        spec.images,
        None if variants is None else lambda: variants(spec),
        renderer,
        None if renderer is None else cache_file(renderer, spec.path, format, spec.split),
    )


def detect_format(spec: SourceSpec) -> str:
    """Return the format under which the most of a source's first rows can be read, the first of equals.

    Raises:
        DataError: if no reader makes sense of it; what the first reader said where it cannot be read at all.
    """
    best, most, first_error = "", 0, None
    for format in READERS:
        try:
            found = list(
                islice(read_samples(spec.path, format, spec.split, spec.images, None, spec.options), TRIED_ROWS)
            )
        except (DataError, MissingExtra) as error:
            first_error = first_error or error
            continue
        good = sum(isinstance(row, Sample | LeftOut) for row in found)
        if good > most:
            best, most = format, good
        if good == len(found) > 0:
            break
    if not best:
        known = f"No format reads its first rows. Allowed: --format {' | '.join(READERS)}."
        raise DataError(f"{first_error} {known}" if first_error else f"{spec.path}: {known}")
    return best
