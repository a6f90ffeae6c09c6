"""What a reader is given, what it gives, how its options are checked, and where its rows and images are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from lorgnette.data.readers.image_lookup import CocoFolder, ImageFolder, image_folder
from lorgnette.data.readers.tables import Columns, Rows, is_on_hub, table_rows
from lorgnette.data.sample import Sample
from lorgnette.errors import DataError, nearest


@dataclass(frozen=True)
class SourceSpec:
    """What is to be read.

    Attributes:
        path: a file, a folder, or a hub name.
        split: part of the set, None where it has no parts.
        images: folder of the images, `coco` or `coco:FOLDER`; None for beside the data.
        options: of the reader, by name; each reader checks them with `read_options`.
    """

    path: str
    split: str | None = None
    images: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


Reader = Callable[[SourceSpec], Iterator[Sample | DataError]]
"""Yields a sample a row, and in place of a row that cannot be used the error that says why.

A `RowError` is a bad row, a `LeftOut` one that an option leaves out. What makes the whole source unreadable is raised.
"""

Options = TypeVar("Options", bound="ReaderOptions")


class ReaderOptions(BaseModel):
    """Options that all readers of files with images share."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)

    outside_images: bool = False
    """Image paths may lead out of the images folder, by `../`, from the root, or through a link."""
    config: str | None = None
    """The configuration of a data set on the hub that has several."""


def read_options(model: type[Options], spec: SourceSpec) -> Options:
    """Check a source's options against those of its reader.

    Raises:
        DataError: listing all that is wrong, with the nearest name for one that does not exist.
    """
    try:
        return model.model_validate(dict(spec.options))
    except ValidationError as error:
        found = []
        for each in error.errors(include_url=False):
            name = ".".join(str(step) for step in each["loc"])
            if each["type"] == "extra_forbidden":
                near = nearest(name, model.model_fields) or f" Allowed: {', '.join(model.model_fields)}."
                found.append(f"there is no option '{name}'.{near}")
            else:
                found.append(f"{name}: {each['msg']}, got {each['input']!r:.80}.")
        raise DataError(f"{spec.path}: options: {' '.join(found)}") from error


def without_options(read: Callable[[str, str | None, str | None], Iterator[Sample | DataError]]) -> Reader:
    """Make a reader of a function of (path, split, images folder); it has no options."""

    def reader(spec: SourceSpec) -> Iterator[Sample | DataError]:
        if spec.options:
            raise DataError(
                f"{spec.path}: this format has no options. Got: {', '.join(map(str, spec.options))}. "
                "Next: leave `options` out."
            )
        return read(spec.path, spec.split, spec.images)

    return reader


def source_rows(spec: SourceSpec, config: str | None) -> Rows:
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
