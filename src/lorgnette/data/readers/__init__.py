"""One file a source format; each reads a source to samples.

A reader yields a `DataError` in place of a row that is malformed, so that it is counted and shown with the others; it
raises one where the whole source cannot be read.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping

from lorgnette.data.readers.easy_vqa import read_easy_vqa, read_easy_vqa_captions
from lorgnette.data.readers.gqa import read_gqa
from lorgnette.data.readers.llava import read_llava
from lorgnette.data.readers.mmbench import read_mmbench
from lorgnette.data.sample import Sample
from lorgnette.errors import DataError, nearest

Reader = Callable[[str, str | None, str | None], Iterator[Sample | DataError]]
"""(path, split, images folder) -> samples."""

READERS: Mapping[str, Reader] = {
    "llava": read_llava,
    "easy-vqa": read_easy_vqa,
    "easy-vqa-captions": read_easy_vqa_captions,
    "gqa": read_gqa,
    "mmbench": read_mmbench,
}


def read_samples(
    path: str, format: str, split: str | None = None, images: str | None = None, limit: int | None = None
) -> Iterator[Sample | DataError]:
    """Read a source, at most `limit` rows of it.

    Raises:
        DataError: if there is no such format, or the source cannot be read.
    """
    if format not in READERS:
        raise DataError(
            f"{path}: there is no format '{format}'. Allowed: {', '.join(READERS)}.{nearest(format, READERS)}"
        )
    return itertools.islice(READERS[format](path, split, images), limit)
