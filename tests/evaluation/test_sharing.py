"""Answers of several processes brought together; here the processes take turns, see tests/test_processes.py."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from lorgnette.evaluation import sharing
from lorgnette.run import read_json_lines, write_json_lines

BATCHES = [[0, 1], [2], [3, 4], [5, 6], [7]]
IDS = [[f"d{index}" for index in batch] for batch in BATCHES]


def play(monkeypatch: pytest.MonkeyPatch, number: int, count: int) -> None:
    """Be one process of several, none of which waits."""
    state = SimpleNamespace(process_index=number, num_processes=count, wait_for_everyone=lambda: None)
    monkeypatch.setattr(sharing, "processes", lambda: state)
    monkeypatch.setattr(sharing, "is_main", lambda: number == 0)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_the_file_does_not_depend_on_the_number_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    for number in reversed(range(count)):
        play(monkeypatch, number, count)
        for batch in sharing.share(BATCHES):
            sharing.keep(tmp_path, [{"id": f"d{index}", "answer": index} for index in batch])
    assert sharing.gather(tmp_path, IDS) == {f"d{index}" for index in range(8)}
    assert read_json_lines(tmp_path / "predictions.jsonl") == [{"id": f"d{n}", "answer": n} for n in range(8)]
    assert [file.name for file in tmp_path.iterdir()] == ["predictions.jsonl"]


def test_only_whole_batches_of_a_killed_launch_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json_lines(tmp_path / "predictions.jsonl", [{"id": "d0"}, {"id": "d1"}, {"id": "d3"}])
    write_json_lines(tmp_path / "predictions.1.jsonl", [{"id": "d2"}, {"id": "d5"}])
    with (tmp_path / "predictions.1.jsonl").open("a") as stream:
        stream.write('{"id": "d6"')  # killed within this line
    write_json_lines(tmp_path / "predictions.2.jsonl", [{"id": "d7"}])
    play(monkeypatch, 0, 2)
    assert sharing.gather(tmp_path, IDS) == {"d0", "d1", "d2", "d7"}
    assert [row["id"] for row in read_json_lines(tmp_path / "predictions.jsonl")] == ["d0", "d1", "d2", "d7"]
    left = [batch for batch, ids in zip(BATCHES, IDS, strict=True) if ids[0] not in {"d0", "d2", "d7"}]
    assert sharing.share(left) == [[3, 4]]
