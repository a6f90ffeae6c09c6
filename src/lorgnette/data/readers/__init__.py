"""One file a source format; each reads a source to samples.

A reader yields a `DataError` in place of a row that is malformed, so that it is counted and shown with the others; it
raises one where the whole source cannot be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from lorgnette.by_name import find_by_name
from lorgnette.data.readers.captions import captions_variants, read_captions
from lorgnette.data.readers.easy_vqa import read_easy_vqa, read_easy_vqa_captions
from lorgnette.data.readers.gqa import read_gqa
from lorgnette.data.readers.image_lookup import require_folder
from lorgnette.data.readers.instruct import instruct_variants, read_instruct
from lorgnette.data.readers.llava import llava_variants, read_llava
from lorgnette.data.readers.mmbench import read_mmbench
from lorgnette.data.readers.remote_sensing import read_rs_instructions, rs_instructions_variants
from lorgnette.data.readers.source import Reader, SourceSpec, without_options
from lorgnette.data.readers.vqa import read_vqa, vqa_variants
from lorgnette.data.sample import Sample
from lorgnette.errors import DataError, LeftOut, LorgnetteError

# those that ask for more of a row stand first: a row of MMBench is also a question with an image and an answer
READERS: Mapping[str, Reader] = {
    "llava": read_llava,
    "instruct": read_instruct,
    "rs-instructions": read_rs_instructions,
    "mmbench": read_mmbench,
    "gqa": read_gqa,
    "vqa": read_vqa,
    "captions": read_captions,
    "easy-vqa": without_options(read_easy_vqa),
    "easy-vqa-captions": without_options(read_easy_vqa_captions),
}

VARIANTS: Mapping[str, Callable[[SourceSpec], Iterator[str]]] = {
    "llava": llava_variants,
    "instruct": instruct_variants,
    "rs-instructions": rs_instructions_variants,
    "captions": captions_variants,
    "vqa": vqa_variants,
}
"""Formats that are written in several ways -> which of them each row is, in words to count and to print."""


def read_samples(
    path: str,
    format: str,
    split: str | None = None,
    images: str | None = None,
    limit: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> Iterator[Sample | DataError]:
    """Read a source, at most `limit` rows of it; rows that an option leaves out are not counted for the limit.

    Raises:
        DataError: if there is no such format or images folder, or the source cannot be read.
    """
    reader = find_reader(format, path)
    if format in READERS:  # one of the user's may mean anything by it
        require_folder(images)
    return _at_most(limit, reader(SourceSpec(path, split, images, options or {})))


def find_reader(format: str, path: str) -> Reader:
    """Return the reader of a format, or one of the user's by "package.module:Name".

    Raises:
        DataError: if there is none of that name, or it cannot be imported.
    """
    read = find_by_name("format", format, READERS, f"{path}: ")
    if format in READERS:
        return read
    if not callable(read):
        raise DataError(f"format '{format}': is no function. Allowed: one that takes a SourceSpec; see docs/data.md.")
    return lambda spec: _checked(format, read, spec)


def _checked(
    format: str, read: Callable[[SourceSpec], Iterable[Any]], spec: SourceSpec
) -> Iterator[Sample | DataError]:
    """Yield what a reader of the user yields, if it is what a reader may yield."""
    number = 0
    try:
        for number, found in enumerate(read(spec)):
            if not isinstance(found, DataError) and not _is_sample(found):
                allowed = "Allowed: a Sample of texts, or a RowError; see docs/data.md."
                raise DataError(f"{spec.path}, row {number}: the format '{format}' gave {found!r:.200}. {allowed}")
            yield found
    except LorgnetteError:
        raise
    except (Exception, SystemExit) as error:  # a reader is the user's own code
        raise DataError(f"{spec.path}, row {number}: the format '{format}' raised {error!r:.300}.") from error


def _is_sample(found: Any) -> bool:
    return isinstance(found, Sample) and all(
        isinstance(text, str) for text in (found.id, *found.images, *(turn.text for turn in found.turns))
    )


def _at_most(limit: int | None, rows: Iterator[Sample | DataError]) -> Iterator[Sample | DataError]:
    read = 0
    for row in rows:
        yield row
        read += not isinstance(row, LeftOut)
        if read == limit:
            return
