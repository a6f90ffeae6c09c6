"""Whatever is in a file, a reader of records gives samples, and errors of our own that name file and row."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from lorgnette.data.readers import read_samples
from lorgnette.data.sample import Sample
from lorgnette.errors import DataError, RowError
from small_sets import (
    CHAT,
    COCO,
    GQA_IMAGES,
    GQA_ORIGINAL,
    GQA_QUESTIONS,
    NWPU,
    RSICD,
    VQA_ROWS,
    encoded,
    mmbench_row,
    official_row,
    struct,
    write_gqa,
    write_parquet,
    write_rsvqa,
    write_tsv,
    write_vqa_v2,
)


def as_json(content: Any) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        (folder / "x.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        return str(folder / "x.json")

    return write


def mmbench_parquet(folder: Path) -> str:
    options = ["да", "нет", "nan", None]
    return write_parquet(folder / "x.parquet", [mmbench_row(n, "A", options, struct(n)) for n in (1, 2, 1000001)])


def mmbench_tsv(folder: Path) -> str:
    return write_tsv(folder / "x.tsv", [official_row(1, encoded(1)), official_row(1000001, "1"), official_row(2, "1")])


def vqa_csv(folder: Path) -> str:
    (folder / "x.csv").write_text(
        "id,question,answer,image,type\n" + "".join(f"{n},Что?,да,{n}.jpg,a\n" for n in range(4))
    )
    return str(folder / "x.csv")


def vqa_lines(folder: Path) -> str:
    (folder / "x.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in VQA_ROWS))
    return str(folder / "x.jsonl")


SOURCES: dict[str, tuple[str, str | None, Callable[[Path], str]]] = {
    "captions: COCO": ("captions", None, as_json(COCO)),
    "captions: Karpathy": ("captions", None, as_json(RSICD)),
    "captions: NWPU": ("captions", None, as_json(NWPU)),
    "captions: CC3M": ("captions", None, as_json(CHAT)),
    "vqa: RSVQA": ("vqa", "val", write_rsvqa),
    "vqa: VQA v2": ("vqa", "val", write_vqa_v2),
    "vqa: JSON": ("vqa", None, as_json(VQA_ROWS)),
    "vqa: lines": ("vqa", None, vqa_lines),
    "vqa: CSV": ("vqa", None, vqa_csv),
    "gqa: Parquet": ("gqa", "testdev", lambda folder: write_gqa(folder, GQA_QUESTIONS, GQA_IMAGES)),
    "gqa: JSON": ("gqa", None, as_json(GQA_ORIGINAL)),
    "mmbench: Parquet": ("mmbench", None, mmbench_parquet),
    "mmbench: TSV": ("mmbench", None, mmbench_tsv),
}
"""Name -> format, split, what writes the source."""
FILES_A_SOURCE = 170
"""170 x 13 sources: 2,210 mutated files."""


def read(path: str, format: str, split: str | None) -> int:
    """Read all of a source; return how many samples it gave. Errors name the file; those of rows the row, too."""
    named = str(Path(path).parent if split is None else path)
    found: list[Sample | DataError] = []
    try:
        found.extend(read_samples(path, format, split))
    except DataError as error:
        raised: DataError | None = error
    else:
        raised = None
    assert raised is None or (type(raised) is DataError and named in str(raised))
    for entry in found:
        if isinstance(entry, Sample):
            assert all(
                isinstance(text, str) for text in (entry.id, *entry.images, *(turn.text for turn in entry.turns))
            )
            assert all(image and turn.text.strip() for image in entry.images for turn in entry.turns)
        else:
            assert isinstance(entry, RowError)
            assert named in entry.where
            assert re.search(r", row \d+", entry.where)
            assert "\n" not in entry.kind
            assert len(entry.kind) < 40
    return sum(isinstance(entry, Sample) for entry in found)


def mutated(whole: bytes, choose: random.Random) -> bytes:
    """Cut, flip, insert, remove or repeat bytes somewhere."""
    start = choose.randrange(len(whole))
    end = min(len(whole), start + choose.choice((1, 2, 8, 40)))
    match choose.randrange(5):
        case 0:
            return whole[:start]
        case 1:
            return whole[:start] + bytes(byte ^ choose.randrange(1, 256) for byte in whole[start:end]) + whole[end:]
        case 2:
            return whole[:start] + choose.choice(TOKENS) + whole[start:]
        case 3:
            return whole[:start] + whole[end:]
        case _:
            return whole[:end] + whole[start:]


TOKENS = (
    b'"',
    b"\\",
    b"[",
    b"}",
    b"null",
    b"\t",
    b"\n",
    b"\r",
    b",",
    b"\0",
    b"\xff",
    b"\\ud800",
    b"../",
    b"1e999",
    b"NaN",
)


@pytest.mark.parametrize("name", SOURCES)
def test_mutated_files(tmp_path: Path, name: str) -> None:
    format, split, write = SOURCES[name]
    path = write(tmp_path)
    assert read(path, format, split) > 0
    files = sorted(file for file in tmp_path.rglob("*") if file.is_file())
    choose = random.Random(name)
    kept = []
    for _ in range(FILES_A_SOURCE):
        file = choose.choice(files)
        whole = file.read_bytes()
        file.write_bytes(mutated(whole, choose))
        kept.append(read(path, format, split))
        file.write_bytes(whole)
    assert 0 in kept  # the mutations do break something,
    assert max(kept) > 0  # and not everything


VALUES = some.recursive(
    some.none()
    | some.booleans()
    | some.integers()
    | some.floats()
    | some.text(max_size=8)
    | some.just("a\ud800 <image>"),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
SHAPES = {"COCO": COCO, "Karpathy": RSICD, "NWPU": NWPU, "CC3M": CHAT, "JSON": VQA_ROWS, "GQA": GQA_ORIGINAL}


def with_one_value_changed(content: Any, data: some.DataObject) -> Any:
    """Walk down to somewhere in a JSON and put any value there."""
    if isinstance(content, dict | list) and content and data.draw(some.integers(0, 4)):
        place = data.draw(some.sampled_from(list(content) if isinstance(content, dict) else range(len(content))))
        copied = dict(content) if isinstance(content, dict) else list(content)
        copied[place] = with_one_value_changed(content[place], data)
        return copied
    return data.draw(VALUES)


@pytest.mark.parametrize("name", SHAPES)
@settings(
    max_examples=60,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=some.data())
def test_any_value_anywhere(tmp_path: Path, name: str, data: some.DataObject) -> None:
    file = tmp_path / "x.json"
    file.write_text(json.dumps(with_one_value_changed(SHAPES[name], data)), encoding="utf-8")
    read(str(file), {"JSON": "vqa", "GQA": "gqa"}.get(name, "captions"), None)


@settings(
    max_examples=60,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(cells=some.fixed_dictionaries({}, optional=dict.fromkeys(official_row(1, ""), some.text(max_size=30))))
def test_any_text_in_a_row_of_mmbench(tmp_path: Path, cells: dict[str, str]) -> None:
    rows = [
        official_row(1, encoded(1)),
        official_row(2, "1") | {name: text.replace("\r", "") for name, text in cells.items()},
    ]
    assert read(write_tsv(tmp_path / "x.tsv", rows), "mmbench", None) >= 1
