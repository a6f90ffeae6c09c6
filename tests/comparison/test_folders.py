"""What a path stands for: a result, a folder of results, a run; and what it is called."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorgnette.comparison.folders import names, read_sides
from lorgnette.errors import DataError, InputError

Make = Callable[..., Any]  # the fixtures of conftest.py


@pytest.fixture
def run(make_folder: Make, before: list, after: list, tmp_path: Path) -> Path:
    for task in ("one", "two"):
        make_folder(f"runs/mine/evaluation/before/{task}", before, task=task)
        make_folder(f"runs/mine/evaluation/after/{task}", after, task=task)
    return tmp_path / "runs" / "mine"


def test_one_run_folder_stands_for_before_and_after(run: Path) -> None:
    first, second = read_sides([run])
    assert (first.name, list(first.results), first.run) == ("before", ["one", "two"], None)
    assert (second.name, list(second.results), second.run) == ("after", ["one", "two"], run)


def test_among_others_a_run_folder_stands_for_its_results_after(run: Path, make_folder: Make, before: list) -> None:
    make_folder("results/base/one", before, task="one")
    root = run.parents[1]
    first, second, third = read_sides([root / "results/base", run, run / "evaluation/before/one"])
    assert [side.name for side in (first, second, third)] == [
        "results/base",
        "runs/mine",
        "runs/mine/evaluation/before/one",
    ]
    assert (list(first.results), first.run) == (["one"], None)
    assert second.results["one"].folder == run / "evaluation" / "after" / "one"
    assert (second.run, third.run) == (run, None)


def test_a_result_folder_stands_for_itself(run: Path) -> None:
    before, after = read_sides([run / "evaluation/before/one", run / "evaluation/after/one"])
    assert (before.name, after.name) == ("before", "after")
    assert (list(after.results), after.run) == (["one"], run)


@pytest.mark.parametrize(
    ("paths", "called"),
    [
        (["results/base/gqa", "results/tuned/gqa"], ["base", "tuned"]),
        (["a", "b", "c"], ["a", "b", "c"]),
        (["x/a/one", "x/b/two"], ["a/one", "b/two"]),
        (["runs/a", "runs/a/evaluation/before"], ["a", "evaluation/before"]),
        (["runs/a/", "runs/../runs/b"], ["a", "b"]),
    ],
)
def test_names_are_what_tells_paths_apart(paths: list[str], called: list[str]) -> None:
    assert names([Path(path) for path in paths]) == called


def test_what_holds_no_result_is_refused(run: Path, tmp_path: Path, make_folder: Make, before: list) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "young" / "evaluation" / "before").mkdir(parents=True)
    for path, said in (("nothing", "there is no such folder"), ("empty", "holds no result")):
        with pytest.raises(DataError, match=f"{path}: {said}. Allowed: a result folder"):
            read_sides([tmp_path / path, run])
    with pytest.raises(DataError, match=r"young: the run has no evaluation/after. Next: lorgnette run"):
        read_sides([run, tmp_path / "young"])
    make_folder("young/evaluation/before/two", before)
    with pytest.raises(DataError, match=r"has no evaluation/after"):
        read_sides([tmp_path / "young"])
    with pytest.raises(InputError, match="one folder alone can only be a run folder"):
        read_sides([run / "evaluation/before/one"])
    with pytest.raises(InputError, match="is given twice"):
        read_sides([run, tmp_path / "runs" / ".." / "runs" / "mine"])


def test_two_results_of_one_task_in_a_folder_are_refused(make_folder: Make, before: list, tmp_path: Path) -> None:
    make_folder("a/one", before)
    make_folder("a/two", before)
    make_folder("b/one", before)
    with pytest.raises(DataError, match=r"holds two results of task easy-vqa.*a --name of its own"):
        read_sides([tmp_path / "a", tmp_path / "b"])
