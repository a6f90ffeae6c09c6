"""Rows of a source with their origins, and the folder of its images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lorgnette.data.readers.image_lookup import CocoFolder, ImageFolder, image_folder
from lorgnette.data.readers.source import SourceSpec
from lorgnette.data.readers.tables import Columns, is_on_hub, table_rows
from lorgnette.data.sample import Origin
from lorgnette.errors import DataError, RowError


def source_rows(spec: SourceSpec, config: str | None = None) -> Iterator[tuple[Origin, Any] | RowError]:
    """Yield the rows of a file, of the files of a split in a folder, or of a split on the hub.

    Raises:
        DataError: if there is no such source, or it cannot be read.
        MissingExtra: if it needs a library that is not installed.
    """
    if spec.split is not None and not Path(spec.path).is_dir() and not is_on_hub(spec.path):
        raise DataError(f"{spec.path}: a file has no splits. Next: leave `split` out.")
    yield from table_rows(spec.path, spec.split, Columns(), config)


def folder_of_images(spec: SourceSpec, *, outside: bool) -> ImageFolder | CocoFolder:
    """Return where the images of a source are looked up: `images`, or beside the data.

    Raises:
        DataError: if COCO's folder does not exist.
    """
    place = Path(spec.path)
    beside = None if is_on_hub(spec.path) else str(place if place.is_dir() else place.parent)
    return image_folder(spec.images, beside, outside=outside)
