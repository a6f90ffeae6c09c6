"""Formats are recognised from the data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorgnette.data.readers.source import SourceSpec
from lorgnette.data.used_source import detect_format
from lorgnette.errors import DataError
from small_sets import (
    CHAT,
    COCO,
    GQA_IMAGES,
    GQA_ORIGINAL,
    GQA_QUESTIONS,
    NWPU,
    RSICD,
    encoded,
    official_row,
    write_gqa,
    write_parquet,
    write_tsv,
)


def written(content: Any) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        file = folder / "x.json"
        file.write_text(json.dumps(content), encoding="utf-8")
        return str(file)

    return write


MMBENCH = [official_row(number, encoded(number)) for number in range(3)]
VQA = [
    {"question": "What is it?", "image": "a.jpg", "answer": "a cat"},
    {"question": "Why?", "image": "b", "answer": "?"},
]
INSTRUCT = [{"instruction": "Say yes.", "input": "", "output": "yes"}]
SETS: dict[str, tuple[str, Callable[[Path], str]]] = {
    "conversations": ("llava", written(CHAT)),
    "instructions": ("instruct", written(INSTRUCT)),
    "COCO": ("captions", written(COCO)),
    "Karpathy": ("captions", written(RSICD)),
    "NWPU": ("captions", written(NWPU)),
    "questions": ("vqa", written(VQA)),
    "questions as Parquet": ("vqa", lambda folder: write_parquet(folder / "x.parquet", VQA)),
    "GQA": ("gqa", written(GQA_ORIGINAL)),
    "GQA as Parquet": ("gqa", lambda folder: write_gqa(folder, GQA_QUESTIONS, GQA_IMAGES)),
    "MMBench": ("mmbench", lambda folder: write_tsv(folder / "x.tsv", MMBENCH)),
    "MMBench as Parquet": ("mmbench", lambda folder: write_parquet(folder / "x.parquet", MMBENCH)),
    "easy-VQA": ("easy-vqa", lambda _: "easy-vqa"),
}


@pytest.mark.parametrize("name", SETS)
def test_a_format_is_recognised(tmp_path: Path, name: str) -> None:
    format, write = SETS[name]
    path = write(tmp_path)
    split = {"GQA as Parquet": "testdev", "easy-VQA": "train"}.get(name)
    assert detect_format(SourceSpec(path, split)) == format


def test_what_no_format_reads_says_why(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.json: .*No format reads its first rows\. Allowed: --format llava"):
        detect_format(SourceSpec(written([{"a": 1}])(tmp_path)))
    with pytest.raises(DataError, match=r"no such file.*Allowed: --format"):
        detect_format(SourceSpec(str(tmp_path / "none.json")))
