"""Images with captions: COCO, Karpathy's layout (RSICD, UCM, Sydney), NWPU-Captions, LLaVA-CC3M-Pretrain-595K.

All four are JSON files and are told apart by what is in them:

| set | content of the file | images are looked up in |
|---|---|---|
| COCO | `{"images": [...], "annotations": [...]}` | the file's folder |
| Karpathy | `{"images": [{"filename", "split", "sentences": [{"raw"}]}]}` | the file's folder, in `filepath` |
| NWPU | `{class: [{"filename", "split", "raw", "raw_1" ... "raw_4"}]}` | the file's folder, under the class |
| CC3M | `chat.json`: `[{"image", "conversations": [human, gpt]}]` | `images_dl` beside the file |
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorgnette.data.readers.cells import checked_text, image_path, is_blank, optional_text, required_text
from lorgnette.data.readers.tables import Row, object_rows, read_json
from lorgnette.data.sample import IMAGE_TAG, Origin, Sample, Turn
from lorgnette.errors import DataError, RowError, nearest

PROMPT = "Describe the image."
"""What a sample asks where the set has no question of its own."""


@dataclass(frozen=True, slots=True)
class CaptionedImage:
    """One image and all that is said about it.

    Attributes:
        references: the captions in the file's order; a caption that the set repeats (RSICD does, to have five) is
            repeated here.
        prompt: the question of the set with its image tag (CC3M has one), else "".
        split: "train", "val", "test"... where the file has splits, else "".
        category: the scene class where the set has one (NWPU), else "".
    """

    id: str
    image: str
    references: tuple[str, ...]
    prompt: str
    split: str
    category: str
    origin: Origin


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


def captioned_images(path: str, split: str | None, images: str | None) -> Iterator[CaptionedImage | RowError]:
    """Yield the images of a split with their captions, in the file's order.

    A caption that cannot be used is an error of its own; the image keeps the others. An image with none is an error.

    Args:
        path: the JSON file.
        split: "train", "val", "test", "restval" as the rows say; null: all rows.
        images: the folder of the images; null: see above.

    Raises:
        DataError: if the file cannot be read, is of no layout, or has no such split.
    """
    file = Path(path)
    content = read_json(file, _without_tokens)
    layout = _layout(content, file)
    beside = file.parent / "images_dl" if layout is _chat else file.parent
    folder = Path(images) if images is not None else beside
    splits: dict[str, int] = {}
    for draft in layout(content, file):
        if isinstance(draft, RowError):
            yield draft
            continue
        splits[draft.split] = splits.get(draft.split, 0) + 1
        if split is None or draft.split == split:
            yield from _checked(draft, Origin(path, draft.row), folder)
    if split is not None and split not in splits:
        found = ", ".join(sorted(filter(None, splits)))
        raise DataError(
            f"{path}: there is no split '{split}'. The file has: {found or 'no splits; leave `split` out'}."
            f"{nearest(split, splits)}"
        )


def read_captions(path: str, split: str | None, images: str | None) -> Iterator[Sample | DataError]:
    """Yield one caption a sample, those of an image one after another.

    Every sample asks the set's own question, `PROMPT` where it has none. Samples about one image share its prefix in a
    row, so five captions of an image cost little more than one.
    """
    for row in captioned_images(path, split, images):
        if isinstance(row, RowError):
            yield row
            continue
        question = Turn("user", row.prompt or f"{IMAGE_TAG}\n{PROMPT}")
        for number, caption in enumerate(row.references):
            name = row.id if len(row.references) == 1 else f"{row.id}-{number}"
            yield Sample(name, (row.image,), (question, Turn("assistant", caption)), row.origin)


def _checked(draft: _Draft, origin: Origin, folder: Path) -> Iterator[CaptionedImage | RowError]:
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
        names = [checked_text(part, "image", where) for part in draft.image if not is_blank(part)]
        if is_blank(draft.image[-1]):
            raise RowError("no image", where, "the row names no image.")
        image = image_path(folder, "/".join(names), where)
        name = checked_text(draft.id, "id", where)
        if references:
            yield CaptionedImage(name, image, tuple(references), draft.prompt, draft.split, draft.category, origin)
        elif not errors:
            yield RowError("no caption", where, "the image has no caption.")
    except RowError as error:
        yield error


def _layout(content: Any, file: Path) -> Callable[[Any, Path], Iterator[_Draft | RowError]]:
    if isinstance(content, list) and content:
        return _chat
    if isinstance(content, dict) and isinstance(content.get("images"), list):
        return _coco if isinstance(content.get("annotations"), list) else _karpathy
    if isinstance(content, dict) and content and all(isinstance(rows, list) for rows in content.values()):
        return _nwpu
    keys = f" with {', '.join(map(str, content))[:200] or 'nothing in it'}" if isinstance(content, dict) else ""
    raise DataError(
        f"{file}: no captions that we know: a {type(content).__name__}{keys}. Allowed: COCO (images and annotations), "
        "Karpathy's layout (images with sentences), NWPU-Captions (a list of images a class), chat.json of LLaVA-CC3M."
    )


def _coco(content: Mapping[str, Any], file: Path) -> Iterator[_Draft | RowError]:
    captions: dict[Any, list[Any]] = {}
    for entry in object_rows(content["images"], f"{file}, images"):
        if not isinstance(entry, RowError) and isinstance(entry[1].get("id"), int | str):
            captions.setdefault(entry[1]["id"], [])
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
    for entry in object_rows(content["images"], f"{file}, images"):
        if isinstance(entry, RowError):
            yield entry
            continue
        origin, row = entry
        if not isinstance(row.get("id"), int | str):
            yield RowError("no id", str(origin), f"`id` is {row.get('id')!r:.80}. Allowed: a number or a text.")
        else:
            yield _Draft(origin.row, row["id"], (row.get("file_name"),), captions[row["id"]])


def _karpathy(content: Mapping[str, Any], file: Path) -> Iterator[_Draft | RowError]:
    for entry in object_rows(content["images"], str(file)):
        try:
            if isinstance(entry, RowError):
                raise entry
            origin, row = entry
            sentences = row.get("sentences")
            if not isinstance(sentences, list):
                raise RowError("no caption", str(origin), f"`sentences` is {sentences!r:.80}. Allowed: a list.")
            captions = [sentence.get("raw") if isinstance(sentence, dict) else None for sentence in sentences]
            names = (row.get("filepath"), row.get("filename"))
            split = optional_text(row, "split", str(origin))
            yield _Draft(origin.row, row.get("imgid", row.get("filename")), names, captions, split=split)
        except RowError as error:
            yield error


def _nwpu(content: Mapping[str, list[Any]], file: Path) -> Iterator[_Draft | RowError]:
    number = 0
    for category, rows in content.items():
        for entry in object_rows(rows, str(file), number):
            try:
                if isinstance(entry, RowError):
                    raise entry
                origin, row = entry
                captions = [row[name] for name in ("raw", "raw_1", "raw_2", "raw_3", "raw_4") if name in row]
                split = optional_text(row, "split", str(origin))
                name = row.get("imgid", row.get("filename"))
                image = (category, row.get("filename"))
                yield _Draft(origin.row, name, image, captions, split=split, category=category)
            except RowError as error:
                yield error
        number += len(rows)


def _chat(content: list[Any], file: Path) -> Iterator[_Draft | RowError]:
    for entry in object_rows(content, str(file)):
        try:
            if isinstance(entry, RowError):
                raise entry
            origin, row = entry
            prompt, caption = _exchange(row, str(origin))
            yield _Draft(origin.row, row.get("id", origin.row), (row.get("image"),), [caption], prompt)
        except RowError as error:
            yield error


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
