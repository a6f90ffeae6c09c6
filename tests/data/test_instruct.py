"""Instructions: columns, joining and target policies, kinds of files."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from lorgnette.data.readers import VARIANTS, read_samples
from lorgnette.data.readers.source import SourceSpec
from lorgnette.data.sample import Sample
from lorgnette.errors import DataError, LeftOut, RowError

ROWS = [
    {"instruction": "Переведи.", "input": "cat", "output": "кот", "full_output": "Это кот."},
    {"instruction": "Назови цвет.", "input": "", "output": "красный", "full_output": ""},
]


def write(file: Path, rows: list[Any]) -> str:
    file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return str(file)


def said(path: str, **options: Any) -> list[Any]:
    found = read_samples(path, "instruct", options=options)
    return [tuple(t.text for t in each.turns) if isinstance(each, Sample) else type(each) for each in found]


def test_joining_and_target_are_chosen_by_name(tmp_path: Path) -> None:
    file = write(tmp_path / "x.jsonl", ROWS)
    assert said(file) == [("Переведи.\ncat", "кот"), ("Назови цвет.", "красный")]
    assert said(file, question="instruction")[0] == ("Переведи.", "кот")
    # how saiga reads this set
    saiga = {"joiner": "\nДано: ", "target": "full_output", "empty_target": "leave_out"}
    assert said(file, **saiga) == [("Переведи.\nДано: cat", "Это кот."), LeftOut]
    assert said(file, joiner=" ", target="longer") == [("Переведи. cat", "Это кот."), ("Назови цвет.", "красный")]
    assert said(file, target="full_output")[1] is RowError


@pytest.mark.parametrize("suffix", [".json", ".tsv", ".csv", ".parquet"])
def test_every_kind_of_file_gives_the_same(tmp_path: Path, suffix: str) -> None:
    rows = [*ROWS, {"instruction": 'Две\nстроки, "кавычки"\t', "input": "", "output": "да", "full_output": ""}]
    file = tmp_path / f"x{suffix}"
    if suffix == ".json":
        file.write_text(json.dumps(rows))
    elif suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    else:
        with file.open("w", newline="", encoding="utf-8") as text:
            table = csv.DictWriter(text, list(rows[0]), delimiter="\t" if suffix == ".tsv" else ",")
            table.writeheader()
            table.writerows(rows)
    expected = list(read_samples(write(tmp_path / "expected.jsonl", rows), "instruct"))
    found = list(read_samples(str(file), "instruct"))
    assert [(s.id, s.turns, s.origin.row) for s in found] == [(s.id, s.turns, s.origin.row) for s in expected]


def test_history_system_images_and_own_names_of_columns(tmp_path: Path) -> None:
    row = {
        "id": 3,
        "prompt": "Where?",
        "response": "Here.",
        "system": "Be brief.",
        "history": [["What?", "A cat."]],
        "images": ["a.jpg"],
    }
    file = write(tmp_path / "x.jsonl", [row])
    columns = {"instruction": "prompt", "output": "response"}
    [found] = read_samples(file, "instruct", options={"columns": columns})
    assert isinstance(found, Sample)
    assert [(t.role, t.text) for t in found.turns] == [
        ("system", "Be brief."),
        ("user", "<image>\nWhat?"),
        ("assistant", "A cat."),
        ("user", "Where?"),
        ("assistant", "Here."),
    ]
    assert (found.id, found.images, found.mended) == ("3", (str(tmp_path / "a.jpg"),), ("image tag inserted",))
    [variant] = VARIANTS["instruct"](SourceSpec(file, options={"columns": columns}))
    assert variant == "prompt + response + system + history + id; instruction+input -> output"


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ([1], "row is no object"),
        ({}, "no instruction"),
        ({"instruction": "x"}, "empty target"),
        ({"instruction": "x", "output": 3}, "output is no text"),
        ({"instruction": "x", "output": "\ud800"}, "broken text"),
        ({"instruction": "x", "output": "y", "history": ["z"]}, "history"),
        ({"instruction": "x", "output": "y", "history": [["z", 1]]}, "history"),
        ({"instruction": "x", "output": "y", "image": "../a.jpg"}, "image path leaves its folder"),
    ],
)
def test_bad_rows_have_a_kind_and_a_place(tmp_path: Path, row: Any, kind: str) -> None:
    file = tmp_path / "x.json"
    file.write_text(json.dumps([ROWS[0], row]))
    found = list(read_samples(str(file), "instruct"))[1]
    assert isinstance(found, RowError)
    assert found.kind == kind
    assert str(found).startswith(f"{file}, row 1")


def test_tables_that_break(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text('instruction,output\na,b\nc\n"d,e')
    rows = read_samples(str(file), "instruct")
    assert isinstance(next(rows), Sample)
    second = next(rows)
    assert isinstance(second, RowError)
    assert "row 1: 1 cells, but the header names 2 columns" in str(second)
    with pytest.raises(DataError, match="row 2: cannot be read from here on"):
        next(rows)
    file.write_text("")
    with pytest.raises(DataError, match="is empty"):
        list(read_samples(str(file), "instruct"))
    with pytest.raises(DataError, match="target: Input should be 'output', 'full_output' or 'longer'"):
        list(read_samples(str(file), "instruct", options={"target": "both"}))
