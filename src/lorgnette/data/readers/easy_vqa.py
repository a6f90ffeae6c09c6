"""easy-VQA: 64 x 64 pictures of one coloured shape, and questions about them (github.com/vzhou842/easy-VQA).

The package `easy-vqa` carries 4,000 training and 1,000 test images. Lorgnette takes the last 400 training images as
`validation`, so that settings are chosen without looking at the test split.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from lorgnette.data.sample import IMAGE_TAG, Origin, Sample, Turn
from lorgnette.errors import DataError, MissingExtra

PACKAGE = "easy-vqa"
SPLITS = ("train", "validation", "test")
VALIDATION_IMAGES = 400
SHAPES = frozenset({"circle", "rectangle", "triangle"})
COLORS = frozenset({"red", "green", "blue", "yellow", "teal", "black", "gray", "brown"})


@dataclass(frozen=True, slots=True)
class Question:
    """One row of easy-VQA; `kind` is "shape", "color" or "yes/no"."""

    id: str
    image: str
    question: str
    answer: str
    kind: str
    origin: Origin


def easy_vqa_questions(path: str = PACKAGE, split: str | None = "train") -> list[Question]:
    """Read the questions of a split, in the file's order.

    Args:
        path: "easy-vqa" for the package, or a folder with `train/` and `test/`, each `questions.json` and `images/`.
        split: "train", "validation" (the last 400 images of the package's training part) or "test".

    Raises:
        DataError: if there is no such folder or split, or a file in it is missing or broken.
        MissingExtra: if the package is not installed.
    """
    if Path(path).is_file():
        raise DataError(f"{path}: is a file. Allowed: {PACKAGE}, or a folder laid out like it.")
    if split not in SPLITS:
        raise DataError(f"{path}: easy-VQA has no split '{split}'. Allowed: {', '.join(SPLITS)}.")
    folder = _root(path) / ("test" if split == "test" else "train")
    file = folder / "questions.json"
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
        if not all(isinstance(q, str) and isinstance(a, str) and type(i) is int for q, a, i in rows):
            raise TypeError("a row is not [text, text, whole number]")
        numbers = [image for _, _, image in rows]
    except FileNotFoundError as error:
        raise DataError(
            f"{file}: there is no such file. Next: point `path` to a folder laid out like easy-VQA."
        ) from error
    except (ValueError, TypeError, OSError, RecursionError) as error:
        raise DataError(
            f"{file}: cannot be read as easy-VQA questions ({error}). Allowed: a JSON list of [question, answer, image "
            "number]. Next: install the package anew."
        ) from error
    first_validation = max(numbers, default=0) + 1 - VALIDATION_IMAGES
    questions = []
    for number, (question, answer, image) in enumerate(rows):
        if split == "test" or (image >= first_validation) == (split == "validation"):
            name = f"{'test' if split == 'test' else 'train'}-{image}-{number}"
            picture = str(folder / "images" / f"{image}.png")
            questions.append(Question(name, picture, question, answer, _kind(answer), Origin(str(file), number)))
    if not questions:
        raise DataError(
            f"{file}: no question is in split '{split}'. The last {VALIDATION_IMAGES} images of the training part are "
            f"`validation`, those before are `train`; this file has {len(set(numbers))} images."
        )
    return questions


def read_easy_vqa(path: str, split: str | None, images: str | None) -> Iterator[Sample | DataError]:
    """Yield one question and its answer a sample."""
    _refuse_images(path, images)
    for row in easy_vqa_questions(path, split):
        turns = (Turn("user", f"{IMAGE_TAG}\n{row.question}"), Turn("assistant", row.answer))
        yield Sample(row.id, (row.image,), turns, row.origin)


def read_easy_vqa_captions(path: str, split: str | None, images: str | None) -> Iterator[Sample | DataError]:
    """Yield one caption an image, put together from what its questions and answers tell.

    "a blue rectangle" where colour and shape are known, "a rectangle" or "a blue shape" where one of them is. Images
    whose questions tell neither have no caption.
    """
    _refuse_images(path, images)
    known: dict[str, dict[str, str]] = {}
    origins: dict[str, Origin] = {}
    for row in easy_vqa_questions(path, split):
        known.setdefault(row.image, {}).update(_facts(row))
        origins.setdefault(row.image, row.origin)
    for image, facts in known.items():
        if facts:
            caption = " ".join(["a", *filter(None, [facts.get("color")]), facts.get("shape", "shape")])
            turns = (Turn("user", f"{IMAGE_TAG}\nDescribe the image."), Turn("assistant", caption))
            yield Sample(f"caption-{Path(image).stem}", (image,), turns, origins[image])


def _facts(row: Question) -> dict[str, str]:
    """Return what a question and its answer tell about the one shape of the picture: its color, its shape."""
    words = set(row.question.rstrip("?").split())
    named = {"color": words & COLORS, "shape": words & SHAPES}
    if row.kind == "yes/no" and (row.answer == "yes") == bool(words & {"no", "not"}):
        return {}  # what is named is absent
    told = {fact: word for fact, found in named.items() for word in found}
    return told if row.kind == "yes/no" else told | {row.kind: row.answer}


def _root(path: str) -> Path:
    if path != PACKAGE:
        return Path(path)
    package = find_spec("easy_vqa")
    if package is None or package.origin is None:
        raise MissingExtra("easy-vqa", "quickstart")
    return Path(package.origin).parent / "data"


def _refuse_images(path: str, images: str | None) -> None:
    if images is not None:
        raise DataError(f"{path}: easy-VQA brings its own images. Next: leave `images` out.")


def _kind(answer: str) -> str:
    if answer in ("yes", "no"):
        return "yes/no"
    return "shape" if answer in SHAPES else "color"
