"""Small data sets in the layouts of the real ones, written by the tests themselves."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
from PIL import Image
from pyarrow import parquet


def picture(shade: int, kind: str = "PNG") -> bytes:
    """A picture of 2 x 2 pixels; another one for every shade."""
    file = io.BytesIO()
    Image.new("RGB", (2, 2), (shade, 0, 0)).save(file, kind)
    return file.getvalue()


def write_parquet(file: Path, rows: Sequence[Mapping[str, Any]], row_group_size: int = 3) -> str:
    """Columns are those of the first row."""
    file.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.Table.from_pylist([dict(row) for row in rows])
    parquet.write_table(table, file, row_group_size=row_group_size)
    return str(file)


def image_rows(*names: str) -> list[dict[str, Any]]:
    """Rows of a GQA config of images: a struct of bytes and path."""
    return [{"id": name, "image": {"bytes": picture(n), "path": f"{name}.png"}} for n, name in enumerate(names)]


def gqa_row(number: str, image_id: str, question: str, answer: str, **more: Any) -> dict[str, Any]:
    """A row of `<split>_balanced_instructions` with all its columns."""
    return {
        "id": number,
        "imageId": image_id,
        "question": question,
        "answer": answer,
        "fullAnswer": f"Это {answer}.",
        "isBalanced": True,
        "groups": {"global": None, "local": "06-person_in"},
        "entailed": "",
        "equivalent": number,
        "types": {"structural": "query", "semantic": "rel", "detailed": "relS"},
        "annotations": {"question": [{"objectId": "0", "value": "681267"}], "answer": [], "fullAnswer": []},
        "semantic": [{"operation": "select", "argument": "person (0)", "dependencies": []}],
        "semanticStr": "select: person (0)",
    } | more


def write_gqa(folder: Path, questions: Sequence[Mapping[str, Any]], images: Sequence[Mapping[str, Any]]) -> str:
    """Two shards of instructions, one of images, laid out as on the hub."""
    half = (len(questions) + 1) // 2
    for number, part in enumerate((questions[:half], questions[half:])):
        write_parquet(folder / "testdev_balanced_instructions" / f"testdev-0000{number}-of-00002.parquet", part)
    write_parquet(folder / "testdev_balanced_images" / "testdev-00000-of-00001.parquet", images)
    return str(folder)
