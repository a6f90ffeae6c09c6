"""Images with captions: COCO, Karpathy's layout (RSICD, UCM, Sydney), NWPU-Captions, LLaVA-CC3M-Pretrain-595K.

All four are JSON files and are told apart by what is in them; tables, a JSON list among them, are in `caption_tables`:

| set | content of the file | images are looked up in |
|---|---|---|
| COCO | `{"images": [...], "annotations": [...]}` | the file's folder |
| Karpathy | `{"images": [{"filename", "split", "sentences": [{"raw"}]}]}` | the file's folder, in `filepath` |
| NWPU | `{class: [{"filename", "split", "raw", "raw_1" ... "raw_4"}]}` | the file's folder, under the class |
| CC3M | `chat.json`: `[{"image", "conversations": [human, gpt]}]` | `images_dl` beside the file |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import field_validator

from lorgnette.data.readers.caption_tables import (
    CaptionedImage,
    captions_of_table,
    captions_source,
    is_table,
    rows_of_split,
)
from lorgnette.data.readers.cells import checked_text, is_blank, optional_text, required_text
from lorgnette.data.readers.image_lookup import CocoFolder, ImageFolder, image_folder
from lorgnette.data.readers.json_rows import json_rows
from lorgnette.data.readers.source import ReaderOptions, SourceSpec, folder_of_images, read_options
from lorgnette.data.readers.tables import Row, holds_list, object_rows, read_json, records_of
from lorgnette.data.sample import IMAGE_TAG, Origin, Sample, Turn
from lorgnette.errors import DataError, RowError

CC3M = "chat.json of LLaVA-CC3M"
PROMPT = "Describe the image."
"""What a sample asks where the set has no question of its own."""


@dataclass(frozen=True, slots=True)
class _Draft:
    """What a layout finds of an image, unchecked."""

    row: int
    id: Any
    image: tuple[Any, ...]
    captions: list[Any]
    prompt: str = ""
    split: str = ""
    category: str = ""


class CaptionOptions(ReaderOptions):
    """What is asked about an image."""

    prompt: str | None = None
    """The question of every sample; null: the set's own, or "Describe the image." where it has none."""

    @field_validator("prompt")
    @classmethod
    def _has_no_tag(cls, prompt: str | None) -> str | None:
        if prompt is not None and (IMAGE_TAG in prompt or not prompt.strip()):
            raise ValueError(f"must be a text without {IMAGE_TAG}, which is set before it")
        return prompt


def captioned_images(
    path: str, split: str | None, images: str | None, *, outside: bool = False, config: str | None = None
) -> Iterator[CaptionedImage | RowError]:
    """Yield the images of a split with their captions, in the file's order.

    A caption that cannot be used is an error of its own; the image keeps the others. An image with none is an error.

    Args:
        path: the JSON file, a folder with one, a table, a folder of tables, or the name of a data set on the hub.
        split: "train", "val", "test", "restval" as the rows say, or which file of a folder, which part of a hub's set;
            null: all rows.
        images: the folder of the images, `coco` or `coco:FOLDER`; null: see above.
        outside: image paths may lead out of that folder.
        config: the configuration of a data set on the hub that has several.

    Raises:
        DataError: if the file cannot be read, is of no layout, or has no such split.
        MissingExtra: if it needs a library that is not installed.
    """
    path = captions_source(path, split)
    if _is_table(path):
        folder = folder_of_images(SourceSpec(path, images=images), outside=outside)
        table_split = None if Path(path).is_file() else split
        yield from rows_of_split(captions_of_table(path, table_split, folder, config), split, path)
        return
    file = Path(path)
    layout, drafts = _layout(file)
    folder = image_folder(images, str(file.parent / "images_dl" if layout == CC3M else file.parent), outside=outside)
    for draft in rows_of_split(drafts, split, path):
        if isinstance(draft, RowError):
            yield draft
        else:
            yield from _checked(draft, Origin(path, draft.row), folder)


def read_captions(spec: SourceSpec) -> Iterator[Sample | DataError]:
    """Yield one caption a sample, those of an image one after another.

    Samples about one image share its prefix in a row, so five captions of an image cost little more than one.

    Raises:
        DataError: as `captioned_images`, or if an option is wrong.
    """
    options = read_options(CaptionOptions, spec)
    outside, config = options.outside_images, options.config
    if config is not None and not _is_table(spec.path):
        raise DataError(f"{spec.path}: options: captions are read from a file. Next: leave `config` out.")
    for row in captioned_images(spec.path, spec.split, spec.images, outside=outside, config=config):
        if isinstance(row, RowError):
            yield row
            continue
        own = row.prompt or f"{IMAGE_TAG}\n{PROMPT}"
        question = Turn("user", own if options.prompt is None else f"{IMAGE_TAG}\n{options.prompt}")
        for number, caption in enumerate(row.references):
            name = row.id if len(row.references) == 1 else f"{row.id}-{number}"
            yield Sample(name, (row.image,), (question, Turn("assistant", caption)), row.origin, row.mended)


def captions_variants(spec: SourceSpec) -> Iterator[str]:
    """Yield for every image which layout the file has: what a check of the data counts and prints.

    Raises:
        DataError: as `captioned_images`.
    """
    path = captions_source(spec.path, spec.split)
    if _is_table(path):
        yield from ("a table" for _ in captioned_images(path, spec.split, spec.images))
        return
    layout, drafts = _layout(Path(path))
    yield from (layout for _ in drafts)


def _is_table(path: str) -> bool:
    """Tell whether captions come as rows of a table; a JSON list is one unless its rows are conversations."""
    if is_table(path):
        return True
    if not holds_list(Path(path)):
        return False
    first = next(json_rows(Path(path)), None)
    return isinstance(first, dict) and "conversations" not in first


def _checked(draft: _Draft, origin: Origin, folder: ImageFolder | CocoFolder) -> Iterator[CaptionedImage | RowError]:
    where = f"{origin} (id {draft.id!s:.100})"
    references = []
    errors: list[RowError] = []
    for number, caption in enumerate(draft.captions):
        try:
            references.append(required_text({"caption": caption}, "caption", f"{where}, caption {number}"))
        except RowError as error:
            errors.append(error)
    yield from errors
    try:
        if is_blank(draft.image[-1]):
            raise RowError("no image", where, "the row names no image.")
        names = [checked_text(part, "image", where) for part in draft.image if not is_blank(part)]
        image, found = folder.find("/".join(names), where)
        name = checked_text(draft.id, "id", where)
        if references:
            mended = tuple(filter(None, [found]))
            told = (draft.prompt, draft.split, draft.category)
            yield CaptionedImage(name, image, tuple(references), *told, origin, mended)
        elif not errors:
            yield RowError("no caption", where, "the image has no caption.")
    except RowError as error:
        yield error


def _layout(file: Path) -> tuple[str, Iterator[_Draft | RowError]]:
    """Return the name of a file's layout, and its images by it."""
    if holds_list(file):
        return CC3M, _chat(file)
    content = read_json(file, _without_tokens)
    if isinstance(content, dict) and isinstance(content.get("images"), list):
        if isinstance(content.get("annotations"), list):
            return "COCO captions", _coco(content, file)
        return "Karpathy's captions", _karpathy(content, file)
    if isinstance(content, dict) and content and all(isinstance(rows, list) for rows in content.values()):
        return "NWPU-Captions", _nwpu(content, file)
    keys = f" with {', '.join(map(str, content))[:200] or 'nothing in it'}" if isinstance(content, dict) else ""
    raise DataError(
        f"{file}: no captions that we know: a {type(content).__name__}{keys}. Allowed: COCO (images and annotations), "
        "Karpathy's layout (images with sentences), NWPU-Captions (a list of images a class), chat.json of LLaVA-CC3M."
    )


def _coco(content: Mapping[str, Any], file: Path) -> Iterator[_Draft | RowError]:
    ids = (row.get("id") for row in content["images"] if isinstance(row, dict))
    captions: dict[Any, list[Any]] = {number: [] for number in ids if isinstance(number, int | str)}
    for entry in object_rows(content["annotations"], f"{file}, annotations"):
        if isinstance(entry, RowError):
            yield entry
            continue
        origin, row = entry
        image = row.get("image_id")
        if not isinstance(image, int | str) or image not in captions:
            yield RowError("caption of no image", str(origin), f"no image has the `image_id` {image!r:.80}.")
        else:
            captions[image].append(row.get("caption"))

    def draft(origin: Origin, row: Row) -> _Draft:
        number = row.get("id")
        if not isinstance(number, int | str):
            raise RowError("no id", str(origin), f"`id` is {number!r:.80}. Allowed: a number or a text.")
        if number not in captions:
            raise RowError("id twice", str(origin), f"another image has the `id` {number!r:.80}, too.")
        return _Draft(origin.row, number, (row.get("file_name"),), captions.pop(number))

    yield from records_of(object_rows(content["images"], f"{file}, images"), draft)


def _karpathy(content: Mapping[str, Any], file: Path) -> Iterator[_Draft | RowError]:
    def draft(origin: Origin, row: Row) -> _Draft:
        sentences = row.get("sentences")
        if not isinstance(sentences, list):
            raise RowError("no caption", str(origin), f"`sentences` is {sentences!r:.80}. Allowed: a list.")
        captions = [sentence.get("raw") if isinstance(sentence, dict) else None for sentence in sentences]
        image = (row.get("filepath"), row.get("filename"))
        split = optional_text(row, "split", str(origin))
        return _Draft(origin.row, row.get("imgid", row.get("filename")), image, captions, split=split)

    return records_of(object_rows(content["images"], str(file)), draft)


def _nwpu(content: Mapping[str, list[Any]], file: Path) -> Iterator[_Draft | RowError]:
    first = 0
    for category, rows in content.items():
        of_class = object_rows(rows, str(file), first)
        yield from records_of(of_class, partial(_of_class, category))
        first += len(rows)


def _of_class(category: str, origin: Origin, row: Row) -> _Draft:
    captions = [row[name] for name in ("raw", "raw_1", "raw_2", "raw_3", "raw_4") if name in row]
    image = (category, row.get("filename"))
    split = optional_text(row, "split", str(origin))
    name = row.get("imgid", row.get("filename"))
    return _Draft(origin.row, name, image, captions, split=split, category=category)


def _chat(file: Path) -> Iterator[_Draft | RowError]:
    def draft(origin: Origin, row: Row) -> _Draft:
        prompt, caption = _exchange(row, str(origin))
        return _Draft(origin.row, row.get("id", origin.row), (row.get("image"),), [caption], prompt)

    return records_of(object_rows(json_rows(file), str(file)), draft)


def _exchange(row: Row, where: str) -> tuple[str, Any]:
    """Return the question with its image tag and the caption of a row of chat.json."""
    turns = row.get("conversations")
    roles = [turn.get("from") for turn in turns if isinstance(turn, dict)] if isinstance(turns, list) else []
    if not isinstance(turns, list) or roles != ["human", "gpt"] or len(turns) != 2:
        raise RowError(
            "no exchange", where, "`conversations` is no list of one human and one gpt turn. Next: use format llava."
        )
    before, tag, after = str(turns[0].get("value")).partition(IMAGE_TAG)
    if not tag:
        raise RowError("no image tag", where, f"the human turn has no {IMAGE_TAG}. Next: use format llava.")
    texts = [checked_text(text, "question", where) for text in (before, after)]
    return tag.join(texts), turns[1].get("value")


def _without_tokens(values: dict[str, Any]) -> dict[str, Any]:
    """Forget the words of Karpathy's sentences: they are most of the file, and `raw` says the same."""
    values.pop("tokens", None)
    return values
