"""A source with the use that is made of it: what is checked, split, and shown."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from lorgnette.data.encodings import cache_file
from lorgnette.data.pairs import AnyRenderer
from lorgnette.data.readers import READERS, VARIANTS, read_samples
from lorgnette.data.readers.image_lookup import require_folder
from lorgnette.data.readers.json_rows import open_text
from lorgnette.data.readers.source import SourceSpec
from lorgnette.data.readers.tables import is_on_hub
from lorgnette.data.sample import Sample
from lorgnette.errors import DataError, LeftOut, MissingExtra, without_advice
from lorgnette.recipe.yaml_text import parse_yaml

PLAIN = re.compile(r"[\w./][\w./@+-]*")
"""A text that may be read as it is between brackets."""
Purpose = Literal["train", "validation", "test"]

TRIED_ROWS = 20
"""Rows by which a format is recognised."""
LONGEST_REASON = 300
"""Characters of what a reader says that still fit a line or two."""


@dataclass(frozen=True)
class UsedSource:
    """One source as it is used: to train on, to validate on, or asked as a benchmark.

    Attributes:
        name: what it is called on the screen, such as "finetune train".
        path, format: where it comes from and which reader reads it.
        read: opens the source anew.
        images: the images folder, where one was given.
        spec: all that was given of it; None for a benchmark.
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
    spec: SourceSpec | None = None
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
        spec,
        None if variants is None else lambda: variants(spec),
        renderer,
        None if renderer is None else cache_file(renderer, spec.path, format, spec.split),
    )


def words_of(source: UsedSource) -> list[str]:
    """Return a source as `data check` and `data split` are given it, with its options."""
    if source.spec is None:
        return [source.path]
    given = {"--format": source.format, "--split": source.spec.split, "--images": source.images}
    words = [source.path, *(word for name, value in given.items() if value is not None for word in (name, value))]
    for name, value in source.spec.options.items():
        words += ["--option", f"{name}={_yaml(value)}"]
    return words


def recipe_entry(source: UsedSource) -> str:
    """Return a source as a recipe's `data` has it."""
    split, options = (None, {}) if source.spec is None else (source.spec.split, dict(source.spec.options))
    given = {"path": source.path, "format": source.format, "split": split, "images": source.images, "options": options}
    return "{" + ", ".join(f"{name}: {_yaml(value)}" for name, value in given.items() if value) + "}"


def _yaml(value: object) -> str:
    """Return a value as YAML reads it back, between brackets too; a text without quotes where it needs none."""
    plain = isinstance(value, str) and PLAIN.fullmatch(value) and parse_yaml(value).data == value
    return str(value) if plain else json.dumps(value, ensure_ascii=False)


def detect_format(spec: SourceSpec) -> str:
    """Return the format under which the most of a source's first rows can be read, the first of equals.

    Raises:
        DataError: if the images folder is not there, or no reader makes sense of it: what each of them said, or most
            of them where it is the same.
    """
    require_folder(spec.images)
    best, most = "", 0
    reasons: dict[str, str] = {}
    for format in READERS:
        try:
            found = list(
                islice(read_samples(spec.path, format, spec.split, spec.images, None, spec.options), TRIED_ROWS)
            )
        except (DataError, MissingExtra) as error:
            reasons[format] = str(error)
            continue
        good = sum(isinstance(row, Sample | LeftOut) for row in found)
        if good > most:
            best, most = format, good
        if good == len(found) > 0:
            break
        reasons[format] = next(
            (str(row) for row in found if isinstance(row, DataError)), f"{spec.path}: there are no rows."
        )
    if not best:
        if not Path(spec.path).exists() and not is_on_hub(spec.path):
            open_text(Path(spec.path)).close()  # says that it is not there, and no more
        raise DataError(_unreadable(spec.path, reasons))
    return best


def _unreadable(path: str, reasons: Mapping[str, str]) -> str:
    """Put together why no format reads a source, by what each reader says of its first bad row or of all of it."""
    known = f"No format reads its first rows. Allowed: --format {' | '.join(READERS)}."
    saying: dict[str, list[str]] = {}
    for format, reason in reasons.items():
        what = " ".join(re.sub(rf"^{re.escape(path)}[:,] ", "", reason).split())
        same = next((other for other in saying if without_advice(other) == without_advice(what)), what)
        saying.setdefault(same, []).append(format)
    usual = max(saying, key=lambda what: len(saying[what]))
    if len(saying[usual]) > len(reasons) / 2:  # it is the file, not how its rows are written
        reason = reasons[saying[usual][0]]
        return reason if reason != without_advice(reason) else f"{reason} {known}"
    lines = [f"  {', '.join(formats)}: {what:.{LONGEST_REASON}}" for what, formats in saying.items()]
    return "\n".join([f"{path}: {known} What each of them says:", *lines])
