"""No data file makes a reader fail with anything but its own errors, and every error names its file and row."""

from __future__ import annotations

import contextlib
import csv
import gzip
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorgnette.data.readers import VARIANTS, json_rows, read_samples
from lorgnette.data.readers.source import SourceSpec
from lorgnette.data.sample import Sample, check_sample
from lorgnette.errors import DataError, RowError

FORMATS = ("llava", "instruct", "rs-instructions")
NAMES = [
    "id", "image", "images", "conversations", "conversation", "messages", "from", "value", "role", "content", "type",
    "text", "image_url", "url", "path", "bytes", "instruction", "input", "output", "full_output", "history", "system",
]  # fmt: skip
WORDS = [
    "human", "gpt", "user", "assistant", "system", "tool", "<image>", "<image>\nWhat?", "a.jpg", "a.jpg, b.jpg", "",
    "../x.jpg", "/etc/passwd", "a\0b", "\ud800", "data:image/png;base64,aGk=", "data:", "http://x/y.jpg", "text",
    "image", "image_url", "\u2028", "x" * 300, "/9j/" + "A" * 300,
]  # fmt: skip
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS) | st.text(max_size=8)
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=15,
)
PARTS = st.lists(st.dictionaries(st.sampled_from(NAMES[10:16]), LEAVES, max_size=3), max_size=3)
TURNS = st.lists(
    st.fixed_dictionaries({"from": st.sampled_from(WORDS[:7]), "value": st.sampled_from(WORDS) | PARTS})
    | st.fixed_dictionaries({"role": st.sampled_from(WORDS[:7]), "content": st.sampled_from(WORDS) | PARTS}),
    max_size=5,
)
ROWS = st.dictionaries(st.sampled_from(NAMES), LEAVES | TURNS | ANYTHING, max_size=5) | ANYTHING


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for all examples, with an image cache of its own and rows that cross the window of the reader."""
    made = tmp_path_factory.mktemp("hostile")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(made / "cache"))
        patch.setattr(json_rows, "WINDOW", 256)
        yield made


def rows_of(file: Path, format: str) -> Iterator[Sample | DataError | str]:
    """Read a file to its end; a failure of the whole file is its message, anything else goes on and fails the test."""
    try:
        yield from read_samples(str(file), format)
    except DataError as error:
        yield str(error)


def read(file: Path, format: str) -> Counter[str]:
    """Count what comes out of a file; check that errors name file and row, and samples hold nothing odd."""
    found: Counter[str] = Counter()
    for row in rows_of(file, format):
        if isinstance(row, Sample):
            found["sample"] += 1
            assert row.origin.file == str(file)
            assert all("\0" not in image for image in row.images)
            json.dumps([row.id, row.images, [turn.text for turn in row.turns]], ensure_ascii=False).encode("utf-8")
            with contextlib.suppress(RowError):
                check_sample(row)
        elif isinstance(row, RowError):
            found["row error"] += 1
            assert row.where.startswith(f"{file}, row ")
            assert row.kind
        else:
            found["file error"] += 1
            assert isinstance(row, str)
            assert str(file) in row
    return found


@settings(max_examples=250, deadline=None)
@given(rows=st.lists(ROWS, max_size=4), format=st.sampled_from(FORMATS))
def test_any_json_is_read_or_explained(folder: Path, rows: list[Any], format: str) -> None:
    file = folder / "any.json"
    file.write_text(json.dumps(rows))
    found = read(file, format)
    assert found["sample"] + found["row error"] == len(rows)
    assert len(list(VARIANTS[format](SourceSpec(str(file))))) <= len(rows)


@settings(max_examples=150, deadline=None)
@given(content=st.binary(max_size=300), suffix=st.sampled_from([".json", ".jsonl.gz", ".csv", ".tsv", ".parquet"]))
def test_any_bytes_are_read_or_explained(folder: Path, content: bytes, suffix: str) -> None:
    file = folder / f"bytes{suffix}"
    file.write_bytes(content)
    read(file, "instruct")


CONVERSATIONS = [
    {
        "id": f"row-{number}",
        "image": ["a.jpg", "b.jpg"][number % 2],
        "conversations": [
            {"from": "human", "value": f"<image>\nЧто на фото {number}?"},
            {"from": "gpt", "value": "Кот, «рыжий»."},
        ],
    }
    for number in range(4)
] + [
    {
        "messages": [
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}]},
            {"role": "assistant", "content": "A cat."},
        ]
    }
]
INSTRUCTIONS = [{"instruction": f"Say {n}.", "input": 'a "b"\n', "output": "да", "full_output": ""} for n in range(4)]


def table_of(rows: list[dict[str, str]], folder: Path, suffix: str) -> bytes:
    file = folder / f"table{suffix}"
    if suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    else:
        with file.open("w", newline="", encoding="utf-8") as text:
            table = csv.DictWriter(text, list(rows[0]), delimiter="\t" if suffix == ".tsv" else ",")
            table.writeheader()
            table.writerows(rows)
    return file.read_bytes()


def lines(rows: list[Any]) -> bytes:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


SEEDS: dict[str, tuple[str, Callable[[Path], bytes]]] = {
    "x.json": ("llava", lambda _: json.dumps(CONVERSATIONS, ensure_ascii=False, indent=1).encode()),
    "x.jsonl": ("llava", lambda _: lines(CONVERSATIONS)),
    "x.jsonl.gz": ("rs-instructions", lambda _: gzip.compress(lines(CONVERSATIONS), mtime=0)),
    "i.jsonl": ("instruct", lambda _: lines(INSTRUCTIONS)),
    "i.csv": ("instruct", lambda folder: table_of(INSTRUCTIONS, folder, ".csv")),
    "i.tsv": ("instruct", lambda folder: table_of(INSTRUCTIONS, folder, ".tsv")),
    "i.parquet": ("instruct", lambda folder: table_of(INSTRUCTIONS, folder, ".parquet")),
}
INSERTED = [
    b'"',
    b"[",
    b"{",
    b"]}",
    b"\\ud800",
    b"\\",
    b"\0",
    b"\n",
    b"\xff",
    b"null",
    b"1e999",
    b"<image>",
    b"../",
    b",",
]
MUTATIONS = 350


def mutated(content: bytes, pick: random.Random) -> bytes:
    """Change a file in one to four places: flip, cut, repeat, take out, put in."""
    changed = bytearray(content)
    for _ in range(pick.randint(1, 4)):
        place = pick.randrange(len(changed) + 1)
        length = pick.randint(1, 20)
        match pick.randrange(5):
            case 0 if place < len(changed):
                changed[place] ^= 1 << pick.randrange(8)
            case 1:
                del changed[place:]
            case 2:
                changed[place:place] = changed[place : place + length]
            case 3:
                del changed[place : place + length]
            case _:
                changed[place:place] = pick.choice(INSERTED)
    return bytes(changed)


@pytest.mark.parametrize("name", SEEDS)
def test_mutated_files_are_read_or_explained(folder: Path, name: str) -> None:
    """7 x 350 = 2,450 files."""
    format, made = SEEDS[name]
    content = made(folder)
    file = folder / f"mutated-{name}"
    file.write_bytes(content)
    whole = read(file, format)
    assert whole["sample"] == sum(whole.values()) >= 4
    pick = random.Random(name)
    found: Counter[str] = Counter()
    for _ in range(MUTATIONS):
        file.write_bytes(mutated(content, pick))
        found += read(file, format)
    assert found["file error"] > 20
    assert found["sample"] > 20
    if "gz" not in name and "parquet" not in name:
        assert found["row error"] > 20
