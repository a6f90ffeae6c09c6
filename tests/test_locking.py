"""A folder belongs to one command at a time, and what is refused leaves nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorgnette.errors import InputError
from lorgnette.locking import locked


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
