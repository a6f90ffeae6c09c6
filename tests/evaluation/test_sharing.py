"""Answers of several processes brought together; here the processes take turns, see tests/test_processes.py."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from lorgnette.errors import DataError
from lorgnette.evaluation import evaluate, sharing
from lorgnette.evaluation.tasks.task import Document
from lorgnette.models.loading import Llava
from lorgnette.run import read_json_lines, write_json_lines

BATCHES = [["d0", "d1"], ["d2"], ["d3", "d4"], ["d5", "d6"], ["d7"]]


def play(monkeypatch: pytest.MonkeyPatch, number: int, count: int) -> None:
    """Be one process of several, none of which waits."""
    state = SimpleNamespace(process_index=number, num_processes=count, wait_for_everyone=lambda: None)
    monkeypatch.setattr(sharing, "processes", lambda: state)
    monkeypatch.setattr(sharing, "is_main", lambda: number == 0)


def answer(name: str) -> dict[str, object]:
    """A line of an unfinished predictions.jsonl."""
    return {"id": name, "prompt": "?", "answer": name, "raw": name, "seconds": 0.5, "stopped_by": "end"}


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_the_file_does_not_depend_on_the_number_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    for number in reversed(range(processes)):
        play(monkeypatch, number, processes)
        for batch in sharing.share(BATCHES):
            sharing.keep(tmp_path, [answer(name) for name in batch])
    assert sharing.gather(tmp_path, BATCHES) == {f"d{index}" for index in range(8)}
    assert read_json_lines(tmp_path / "predictions.jsonl") == [answer(f"d{n}") for n in range(8)]
    assert [file.name for file in tmp_path.iterdir()] == ["predictions.jsonl"]


def test_only_whole_batches_of_a_killed_launch_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json_lines(tmp_path / "predictions.jsonl", [answer("d0"), answer("d1"), answer("d3")])
    write_json_lines(tmp_path / "predictions.1.jsonl", [answer("d2"), answer("d5")])
    with (tmp_path / "predictions.1.jsonl").open("a") as stream:
        stream.write('{"id": "d6"')  # killed within this line
    write_json_lines(tmp_path / "predictions.2.jsonl", [answer("d7")])
    play(monkeypatch, 0, 2)
    assert sharing.gather(tmp_path, BATCHES) == {"d0", "d1", "d2", "d7"}
    assert [row["id"] for row in read_json_lines(tmp_path / "predictions.jsonl")] == ["d0", "d1", "d2", "d7"]
    left = [batch for batch in BATCHES if batch[0] not in {"d0", "d2", "d7"}]
    assert sharing.share(left) == [["d3", "d4"]]


@pytest.mark.parametrize("broken", [{"id": None}, {"id": ["d1"]}, {"answer": 3}, {"prompt": None}])
def test_a_line_that_is_no_answer_is_named_before_anything_is_asked(tmp_path: Path, broken: dict[str, object]) -> None:
    file = tmp_path / "predictions.jsonl"
    write_json_lines(file, [answer("d0"), answer("d1") | broken])
    before = file.read_bytes()
    with pytest.raises(DataError, match=r"predictions\.jsonl, line 2: is no answer"):
        sharing.gather(tmp_path, BATCHES)
    assert file.read_bytes() == before


def test_the_seconds_of_a_question_are_its_share_of_its_batch(
    llava: Llava, pictures: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Seven:
        name, metric, split, prompt, max_new_tokens = "seven", "m", "test", "{question}", 2

        def documents(self, split: str) -> list[Document]:
            return [Document(str(n), (pictures[n // 4],), "what?", "x", "k") for n in range(7)]

        def score(self, document: Document, answer: str) -> float:
            return 0.0

    ticks = count(step=6.0)
    monkeypatch.setattr(evaluate, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    settings = evaluate.Settings(batch_size=4)
    about = {"model": {"path": "small"}, "versions": {}, "console": Console(quiet=True), "label": "test"}
    evaluate.evaluate(llava, Seven(), tmp_path / "out", settings, **about)
    rows = read_json_lines(tmp_path / "out" / "predictions.jsonl")
    assert [row["seconds"] for row in rows] == [1.5] * 4 + [2.0] * 3  # each batch took 6 seconds
