"""LLaVA files with one row of every kind of finding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import wild_images as wild
from lorgnette.data.readers.source import SourceSpec
from lorgnette.data.rendering import Renderer
from lorgnette.data.used_source import Purpose, UsedSource, used_source

IMAGE_TOKENS = 7


def row(id: str, image: str | list[str] | None, *texts: str, tag: bool = True) -> dict[str, Any]:
    """A LLaVA row; the tag stands in front of the first question."""
    first = "<image>\n" if image and tag else ""
    said = [
        {"from": "gpt" if number % 2 else "human", "value": text if number else first + text}
        for number, text in enumerate(texts)
    ]
    return {"id": id, "conversations": said} | ({"image": image} if image else {})


def write_rows(file: Path, rows: list[Any]) -> Path:
    file.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return file


def as_source(
    file: Path, purpose: Purpose = "train", renderer: Renderer | None = None, format: str = "llava"
) -> UsedSource:
    name = {"train": "data", "validation": "held out", "test": "benchmark"}[purpose]
    return used_source(name, purpose, SourceSpec(str(file)), format, None, renderer)


LONG = "the cat on the table and the blue triangle " * 4


def make_wild_rows(folder: Path) -> list[Any]:
    """Rows with one finding each, and their images in `pictures` below the folder."""
    pictures = folder / "pictures"
    pictures.mkdir(parents=True)
    for number in range(6):
        wild.scene(number, side=40).save(pictures / f"{number}.png")
    (pictures / "copy.png").write_bytes((pictures / "0.png").read_bytes())
    for kind, write in (wild.BROKEN | wild.ODD).items():
        write(pictures / f"{kind}.bin")
    ask = ("what color is the shape?", "blue")
    return [
        *(row(f"good-{number}", f"pictures/{number}.png", *ask) for number in range(4)),
        row("text only", None, "What is this?", "A cat."),
        *(row(kind, f"pictures/{kind}.bin", *ask) for kind in wild.BROKEN),
        *(row(kind, f"pictures/{kind}.bin", "what is the shape?", "circle") for kind in wild.ODD),
        row("image missing", "pictures/none.png", *ask),
        row("no tag", "pictures/4.png", "Where is this?", "On the table.", tag=False),
        row("two images", ["pictures/4.png", "pictures/5.png"], "<image>Where?", "there", tag=False),
        {"id": "roles", "conversations": [{"from": "gpt", "value": "yes"}, {"from": "gpt", "value": "no"}]},
        {"id": "role", "conversations": [{"from": "nobody", "value": "yes"}, {"from": "gpt", "value": "no"}]},
        row("empty", "pictures/4.png", "Where is the cat?", "  "),
        row("copy", "pictures/copy.png", *ask),
        row("copied image", "pictures/copy.png", "is there a circle?", "no"),
        row("too long", "pictures/5.png", "What is this?", LONG * 3),
        row("shortened", "pictures/5.png", "What is this?", "A cat.", "Where?", LONG * 3),
        "no object",
    ]
