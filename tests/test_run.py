"""Files that are whole or absent, and what is read back of them when they are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorgnette.errors import DataError
from lorgnette.run import append_json_line, read_json, read_json_lines, read_json_object, whole_folder


def test_a_line_goes_on_after_one_that_a_full_disk_cut(tmp_path: Path) -> None:
    file = tmp_path / "provenance.jsonl"
    for number in range(2):
        append_json_line(file, {"start": number})
    with file.open("a") as stream:
        stream.write('{"start": 2, "comm')
    append_json_line(file, {"start": 3})
    assert read_json_lines(file) == [{"start": 0}, {"start": 1}, {"start": 3}]
    file.write_text('{"start": 0}')  # whole, but saved by an editor that leaves the end of the last line out
    append_json_line(file, {"start": 1})
    assert read_json_lines(file) == [{"start": 0}, {"start": 1}]
    file.write_text('{"start"')  # the very first line was cut
    append_json_line(file, {"start": 4})
    assert read_json_lines(file) == [{"start": 4}]


def test_a_name_that_is_no_unicode_is_written_nevertheless(tmp_path: Path) -> None:
    append_json_line(tmp_path / "a.jsonl", {"command": ["run", "\udcff.yaml", "мир"]})
    assert read_json_lines(tmp_path / "a.jsonl") == [{"command": ["run", "?.yaml", "мир"]}]


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 200_000, b"\x00\xff", b"9" * 5_000, "{}".encode("utf-16")])
def test_what_is_no_json_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "stage.json"
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"stage\.json: cannot be read as JSON"):
        read_json(file)
    file.write_bytes(content + b"\n")
    with pytest.raises(DataError, match=r"stage\.json, line 1: no JSON object"):
        read_json_lines(file)


def test_another_json_value_is_no_record(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(DataError, match=r"a\.json: is no JSON object"):
        read_json_object(tmp_path / "a.json")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(DataError, match=r"folder\.jsonl: cannot be read"):
        read_json_lines(tmp_path / "folder.jsonl")


def test_a_folder_that_could_not_be_finished_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").touch()

    def fill() -> None:
        with whole_folder(tmp_path / "model") as unfinished:
            (unfinished / "weights").write_bytes(b"half")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        fill()
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "old"]
