"""Rows of tables: every format gives the same rows; files are found by split; the hub is streamed."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pytest

from lorgnette.data.readers import tables
from lorgnette.data.readers.tables import Columns, file_rows, find_tables, hub_rows, is_on_hub, table_rows
from lorgnette.data.sample import Origin
from lorgnette.errors import DataError, MissingExtra, RowError
from small_sets import image_rows, picture, write_parquet

COLUMNS = Columns(("id", "text"), ("more",))
ROWS = [
    {"id": "1", "text": 'a,\t"b"', "more": "x", "unread": "-"},
    {"id": "2", "text": "в\nг", "more": "", "unread": "-"},
]


def write(file: Path) -> Path:
    if file.suffix == ".parquet":
        write_parquet(file, ROWS)
    elif file.suffix in (".tsv", ".csv"):
        mark = "\t" if file.suffix == ".tsv" else ","
        lines = [
            mark.join(ROWS[0]),
            *(mark.join('"' + cell.replace('"', '""') + '"' for cell in row.values()) for row in ROWS),
        ]
        file.write_text("\r\n".join(lines) + "\r\n", encoding="utf-8-sig", newline="")
    else:
        text = json.dumps(ROWS) if file.suffix == ".json" else "\n\n".join(json.dumps(row) for row in ROWS)
        file.write_text(text)
    return file


@pytest.mark.parametrize("suffix", [".parquet", ".tsv", ".csv", ".json", ".jsonl"])
def test_every_format_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    file = write(tmp_path / f"x{suffix}")
    found = list(table_rows(str(file), None, COLUMNS))
    assert [entry[0] for entry in found if isinstance(entry, tuple)] == [Origin(str(file), 0), Origin(str(file), 1)]
    rows = [entry[1] for entry in found if isinstance(entry, tuple)]
    expected = [{name: row[name] for name in ("id", "text", "more")} for row in ROWS]
    assert [{name: row[name] for name in ("id", "text", "more")} for row in rows] == expected
    if suffix not in {".json", ".jsonl"}:
        assert rows == expected  # what is not asked for is not read


def test_batches_and_row_groups_do_not_show(tmp_path: Path) -> None:
    rows = [{"id": str(number), "text": "x" * number} for number in range(2 * tables.BATCH + 3)]
    file = write_parquet(tmp_path / "x.parquet", rows, row_group_size=tables.BATCH // 2 + 1)
    found = [entry for entry in file_rows(Path(file), COLUMNS) if isinstance(entry, tuple)]
    assert [(origin.row, row) for origin, row in found] == list(enumerate(rows))


def test_a_parquet_of_images_is_never_in_memory(tmp_path: Path) -> None:
    """40 MB of pictures in row groups of 1 MB: what Arrow holds at once is a batch of them."""
    rows = [{"id": str(n), "image": {"bytes": random.Random(n).randbytes(100_000), "path": None}} for n in range(400)]
    file = write_parquet(tmp_path / "x.parquet", rows, row_group_size=10)
    before = pyarrow.total_allocated_bytes()
    held = [pyarrow.total_allocated_bytes() - before for _ in file_rows(Path(file), Columns(("image",)))]
    assert len(held) == 400
    assert 1_000_000 < max(held) < 15_000_000


@pytest.mark.parametrize(
    ("content", "suffix", "says"),
    [
        (b"", ".tsv", "empty"),
        (b"", ".parquet", "empty"),
        (b"PAR1 and then nothing PAR1", ".parquet", "row 0: cannot be read as Parquet"),
        (b"id\tother\n1\t2\n", ".tsv", "no column text"),
        (b'id\ttext\n1\tx\n2\t"cut', ".tsv", "row 1: cannot be read from here on"),
        (b"id,text\n1,\xff\n", ".csv", "cannot be read from here on"),
        (b'[{"id": 1}, {', ".json", "no valid JSON"),
        (b"[" * 100_000, ".json", "no valid JSON"),
        (b"hello\n", ".jsonl", "line 1: no valid JSON"),
        (b'{"id": 1}\n\xff', ".jsonl", "UTF-8"),
        (b"id\ttext\n", ".txt", "line 1: no valid JSON"),
    ],
)
def test_files_that_cannot_be_read_are_errors(tmp_path: Path, content: bytes, suffix: str, says: str) -> None:
    file = tmp_path / f"x{suffix}"
    file.write_bytes(content)
    with pytest.raises(DataError, match=says) as error:
        list(table_rows(str(file), None, COLUMNS))
    assert str(file) in str(error.value)


def test_a_truncated_parquet_is_an_error(tmp_path: Path) -> None:
    file = write(tmp_path / "x.parquet")
    whole = file.read_bytes()
    for length in (3, 10, len(whole) // 2, len(whole) - 9, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(DataError, match="truncated"):
            list(file_rows(file, COLUMNS))


def test_bad_rows_leave_the_others(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("id,text\n1,a\n2\n\n3,b,c\n4,d\n")
    found = list(file_rows(tmp_path / "x.csv", COLUMNS))
    assert [entry.where if isinstance(entry, RowError) else entry[1]["id"] for entry in found] == [
        "1",
        f"{tmp_path / 'x.csv'}, row 1",
        f"{tmp_path / 'x.csv'}, row 2",
        "4",
    ]
    (tmp_path / "x.jsonl").write_text('{"id": 1}\n{"id"\n7\n{"id": 2}\n')
    found = list(file_rows(tmp_path / "x.jsonl", COLUMNS))
    assert [entry.kind if isinstance(entry, RowError) else entry[1]["id"] for entry in found] == [
        1,
        "no JSON",
        "row is no object",
        2,
    ]


def names(folder: Path, *args: Any) -> list[str]:
    return [str(file.relative_to(folder)) for file in find_tables(folder, *args)]


def test_files_are_found_by_split(tmp_path: Path) -> None:
    for name in (
        "images/dev-00000-of-00002.parquet",
        "images/dev-00001-of-00002.parquet",
        "images/testdev-00000-of-00001.parquet",
        "data/mmbench_ru_dev.parquet",
        "data/README.md",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert names(tmp_path, "dev", "images") == [
        "images/dev-00000-of-00002.parquet",
        "images/dev-00001-of-00002.parquet",
    ]
    assert names(tmp_path, "testdev", "images") == ["images/testdev-00000-of-00001.parquet"]
    assert names(tmp_path, "dev") == ["data/mmbench_ru_dev.parquet"]
    assert names(tmp_path, None) == ["data/mmbench_ru_dev.parquet"]
    with pytest.raises(DataError, match=r"2 data files\. The files are: dev\.parquet, testdev\.parquet"):
        find_tables(tmp_path, None, "images")
    with pytest.raises(DataError, match="no data file with 'test' in its name"):
        find_tables(tmp_path, "test", "images")
    with pytest.raises(DataError, match="Did you mean 'images'"):
        find_tables(tmp_path, "dev", "image")


def test_names_of_the_hub() -> None:
    assert is_on_hub("deepvk/GQA-ru")
    assert not any(map(is_on_hub, ("x", "a/b/c", "data/x.tsv", "/data/x", "../x")))


CARD = """---
configs:
- config_name: pictures
  data_files: [{split: dev, path: pictures/dev-*}]
"""
FEATURES = """dataset_info:
  config_name: pictures
  features:
  - {name: id, dtype: string}
  - {name: image, dtype: image}
  - {name: unread, dtype: int64}
"""


@pytest.mark.parametrize("card", [CARD, CARD + FEATURES], ids=["plain", "with features"])
def test_the_hub_is_streamed_without_decoding(tmp_path: Path, card: str) -> None:
    """`datasets` reads a local folder as it reads the hub; a picture that is none shows that nothing is decoded."""
    rows = [*image_rows("n1", "n2"), {"id": "n3", "image": {"bytes": b"no picture", "path": "c"}}]
    write_parquet(tmp_path / "pictures" / "dev-00000-of-00001.parquet", [row | {"unread": 1} for row in rows])
    (tmp_path / "README.md").write_text(f"{card}---\n")
    name = str(tmp_path)
    found = list(hub_rows(name, "dev", Columns(("id", "image")), "pictures"))
    assert [origin for origin, _ in found] == [Origin(f"{name}/pictures/dev", number) for number in range(3)]
    assert [row for _, row in found] == rows
    assert found[0][1]["image"]["bytes"] == picture(0)
    with pytest.raises(DataError, match="ValueError: Bad split"):
        list(hub_rows(name, "train", COLUMNS, "pictures"))
    with pytest.raises(DataError, match="ValueError: BuilderConfig 'x' not found"):
        list(hub_rows(name, "dev", COLUMNS, "x"))
    with pytest.raises(DataError, match="there is no column text"):
        list(hub_rows(name, "dev", COLUMNS, "pictures"))


def test_a_set_of_json_is_streamed_from_the_hub(tmp_path: Path) -> None:
    """deepvk/LLaVA-Instruct-ru is one: nothing says beforehand what its columns hold."""
    rows = [{"id": str(number), "conversations": [{"from": "human", "value": "Что это?"}]} for number in range(3)]
    (tmp_path / "train.json").write_text(json.dumps(rows, ensure_ascii=False))
    found = list(hub_rows(str(tmp_path), "train", Columns(("id", "conversations")), None))
    assert [row for _, row in found] == rows


def test_a_library_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "x.parquet")
    for name, path in (("pyarrow", str(tmp_path / "x.parquet")), ("datasets", "deepvk/GQA-ru")):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(MissingExtra, match=rf"^{name} is not installed.*pip install 'lorgnette\[datasets\]'"):
            list(table_rows(path, "train", COLUMNS))


def test_the_hub_is_asked_for_by_split() -> None:
    with pytest.raises(DataError, match="read by split"):
        list(table_rows("deepvk/GQA-ru", None, COLUMNS))
