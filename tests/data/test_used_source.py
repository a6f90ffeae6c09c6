"""Formats are recognised from the data."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorgnette.data.readers import READERS
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


SPOKEN = [{"from": "person", "value": "<image>\nWho?"}, {"from": "gpt", "value": "A cat."}]
NEARLY = {
    "a role": ([{"id": "7", "image": "7.png", "conversations": SPOKEN}], "llava, rs-instructions", "Got: 'person'"),
    "a key": ([{"id": "7", "dialog": SPOKEN}], "llava, rs-instructions", "The row has: id, dialog. Next: name the key"),
    "columns": ([{"prompt": "Who?", "response": "A cat."}], "instruct", "It has: prompt, response. Next: name its"),
    "an answer": ([{"question": "Who?", "answers": "cat", "image": "7.png"}], "vqa", "`answers` is 'cat'. Allowed: a"),
    "GQA's key": ({"1": {"question": "Who?", "answer": "cat", "image_id": "7"}}, "gqa", "`imageId` is missing"),
    "COCO's half": ({"info": {}, "annotations": []}, "captions", "a dict with info, annotations. Allowed: COCO (im"),
}


@pytest.mark.parametrize("name", NEARLY)
def test_of_a_slightly_wrong_file_every_reader_says_what_is_wrong(tmp_path: Path, name: str) -> None:
    rows, formats, reason = NEARLY[name]
    with pytest.raises(DataError) as caught:
        detect_format(SourceSpec(written(rows)(tmp_path)))
    first, *lines = str(caught.value).splitlines()
    assert first.startswith(f"{tmp_path / 'x.json'}: No format reads its first rows. Allowed: --format llava | ")
    (line,) = (line for line in lines if line.startswith(f"  {formats}: "))
    assert reason in line
    assert str(tmp_path) not in line
    assert all(any(f in line.partition(": ")[0] for line in lines) for f in READERS)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "x.json: the file is empty"),
        ('[{"id": "7", "conv', "x.json, row 0: no valid JSON"),
        ("[]", "x.json: there are no rows"),
    ],
)
def test_what_is_wrong_with_the_file_itself_is_said_once(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(DataError, match=re.escape(reason)) as caught:
        detect_format(SourceSpec(str(tmp_path / "x.json")))
    (line,) = str(caught.value).splitlines()
    assert line.count("Allowed: ") + line.count("Next: ") == 1


def test_what_no_format_reads_says_why(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.json: .*No format reads its first rows\. Allowed: --format llava"):
        detect_format(SourceSpec(written([{"a": 1}])(tmp_path)))
    with pytest.raises(DataError, match=r"none\.json: there is no such file\..* Next: check the path\.$"):
        detect_format(SourceSpec(str(tmp_path / "none.json")))
