"""Files that are whole or absent, and what is read back of them when they are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorgnette.errors import DataError, InputError
from lorgnette.run import append_json_line, locked, read_json, read_json_lines, read_json_object, whole_folder


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


@pytest.mark.parametrize("there", ["", "results", "results/mine", "results/mine/kept.txt"])
@pytest.mark.parametrize("error", [InputError, KeyboardInterrupt])
def test_what_is_refused_leaves_only_what_was_there(tmp_path: Path, there: str, error: type[BaseException]) -> None:
    folder = tmp_path / "results" / "mine"
    if there.endswith(".txt"):
        folder.mkdir(parents=True)
        (folder / "kept.txt").touch()
    else:
        (tmp_path / there).mkdir(parents=True, exist_ok=True)
    before = sorted(tmp_path.rglob("*"))

    def refuse() -> None:
        with locked(folder):
            assert (folder / ".lock").exists()
            raise error

    for _ in range(2):  # the second call gets the lock as well
        with pytest.raises(error):
            refuse()
        assert sorted(tmp_path.rglob("*")) == before


def test_what_was_done_before_it_failed_stays(tmp_path: Path) -> None:
    def fail() -> None:
        with locked(tmp_path / "a" / "run"):
            (tmp_path / "a" / "run" / "recipe.yaml").touch()
            raise InputError

    with pytest.raises(InputError):
        fail()
    assert [path.name for path in (tmp_path / "a" / "run").iterdir()] == ["recipe.yaml"]


def test_a_second_command_is_kept_out_and_disturbs_nothing(tmp_path: Path) -> None:
    with locked(tmp_path / "run"):
        with pytest.raises(InputError, match="another lorgnette works in this folder"), locked(tmp_path / "run"):
            pytest.fail("two commands in one folder")
        assert (tmp_path / "run" / ".lock").exists()
    with locked(tmp_path / "run"):
        pass


def test_a_run_folder_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file" / "run", tmp_path / "new" / ("x" * 300) / "run"):
        with pytest.raises(InputError, match="cannot be used as a run folder"), locked(folder):
            pytest.fail("nothing can be written there")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
