"""Rows out of JSON: a window on the file gives what `json.loads` gives, and broken files say where they break."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorgnette.data.readers import json_rows as module
from lorgnette.data.readers.json_rows import BrokenLine, json_rows
from lorgnette.errors import DataError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("json")


@pytest.fixture(scope="module", autouse=True)
def _narrow_window() -> Iterator[None]:
    """So that rows, words, numbers and escapes are cut by its end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "WINDOW", 40)
        yield


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(VALUES, max_size=12),
    indent=st.sampled_from([None, 0, 3]),
    ascii_only=st.booleans(),
    tail=st.sampled_from(["", "\n", " \r\n\t"]),
)
def test_a_list_is_what_json_says(
    folder: Path, rows: list[Any], indent: int | None, ascii_only: bool, tail: str
) -> None:
    text = json.dumps(rows, indent=indent, ensure_ascii=ascii_only) + tail
    file = folder / "x.json"
    file.write_bytes(text.encode("utf-8"))
    assert list(json_rows(file)) == json.loads(text)
    if not rows or indent is not None:
        return
    lines = "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n\n" for row in rows)
    file.write_bytes(lines.encode("utf-8"))
    if not isinstance(rows[0], list):  # a file that begins with a bracket is a list
        assert list(json_rows(file)) == json.loads(text)


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(VALUES, min_size=1, max_size=8), data=st.data())
def test_a_list_that_is_cut_is_an_error_after_whole_rows(folder: Path, rows: list[Any], data: st.DataObject) -> None:
    whole = json.dumps(rows, ensure_ascii=False)
    file = folder / "cut.json"
    file.write_text(whole[: data.draw(st.integers(1, len(whole) - 1))], encoding="utf-8")
    found = []
    with pytest.raises(DataError, match="no valid JSON"):
        found.extend(json_rows(file))
    # the last of them may be the beginning of a number
    assert found[:-1] == rows[: max(len(found) - 1, 0)]
    with pytest.raises(json.JSONDecodeError):
        json.loads(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (" \n\t", "is empty"),
        ("[1, 2", "row 2: no valid JSON"),
        ('[{"a": 1}, {"a": tru}, {"a": 2}]', "row 1: no valid JSON (Expecting value)"),
        ("[1 2]", "row 1: no valid JSON ('2' after the row before it)"),
        ("[1,]", "row 1: no valid JSON"),
        ("[1] [2]", "something follows the list"),
        (f"[1, {'9' * 5000}]", "row 1: no valid JSON (Exceeds the limit"),
        ("[1, " + "[" * 100_000, "row 1: no valid JSON"),
        ('{"a": 1}\n{"a": ', "line 2: no valid JSON"),
        ('\n\n{\n "a": 1\n}\n', "line 3: no valid JSON"),
        ("hello", "line 1: no valid JSON"),
    ],
)
def test_broken_files_say_where(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "x.json"
    file.write_text(text)
    with pytest.raises(DataError) as caught:
        list(json_rows(file))
    assert str(file) in str(caught.value)
    assert message in str(caught.value)


def test_one_broken_line_is_one_bad_row(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text('{"a": 1}\n{"a": \n{"a": "line\u2028separator"}\n', encoding="utf-8")
    first, second, third = json_rows(file)
    assert (first, third) == ({"a": 1}, {"a": "line\u2028separator"})
    assert isinstance(second, BrokenLine)
    assert "line 2" in str(second)


def test_rows_without_end_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_ROW", 1000)
    for text, message in (('[1, "' + "x" * 5000 + '"]', "row 1: more than"), ('"' + "x" * 5000, "line 1: more than")):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(DataError, match=message):
            list(json_rows(tmp_path / "x.json"))


def test_broken_archives_and_odd_files(tmp_path: Path) -> None:
    packed = gzip.compress(b"[" + b'{"a": 1}, ' * 500 + b"1]")
    file = tmp_path / "x.json.gz"
    for content in (packed[:-20], packed[:30] + b"\0" * 20 + packed[50:], packed[:10]):
        file.write_bytes(content)
        with pytest.raises(DataError, match=r"x.json.gz"):
            list(json_rows(file))
    file.write_bytes(b"[\xff]")
    with pytest.raises(DataError, match="UTF-8"):
        list(json_rows(file))
    with pytest.raises(DataError, match="is no file"):
        list(json_rows(tmp_path))
    with pytest.raises(DataError, match="is no file"):
        list(json_rows(Path("/dev/zero")))
    with pytest.raises(DataError, match=r"Did you mean 'x.json.gz'"):
        list(json_rows(tmp_path / "x.json.g"))
    with pytest.raises(DataError, match="cannot be read"):
        list(json_rows(tmp_path / "a\0b"))
