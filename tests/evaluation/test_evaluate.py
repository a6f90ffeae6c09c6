"""Benchmarks asked of a small model: generated or by likelihood, resumed, and what the files then hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import small_sets as sets
from lorgnette.errors import DataError, InputError, RunError
from lorgnette.evaluation.asking import Asker
from lorgnette.evaluation.evaluate import Settings, evaluate
from lorgnette.evaluation.schema import check_result
from lorgnette.evaluation.tasks import find_task
from lorgnette.evaluation.tasks.task import Document
from lorgnette.models.loading import Llava
from lorgnette.run import read_json, read_json_lines

THREE = Settings(batch_size=3, max_new_tokens=4)


@pytest.fixture
def ask(llava: Llava, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def asked(task: Any, name: str = "result", settings: Settings = THREE) -> dict[str, Any]:
        return evaluate(
            llava,
            task,
            tmp_path / name,
            settings,
            model={"path": "small", "fingerprint": "x"},
            versions={},
            console=Console(quiet=True),
            label="test",
        )

    return asked


def mmbench(folder: Path, **options: str) -> Any:
    rows = [
        sets.mmbench_row(n, "AB"[n % 2], [f"кошка {n}", f"собака {n}", None, None], sets.struct(n // 2))
        for n in range(1, 8)
    ]
    return find_task("mmbench-ru", {"path": sets.write_parquet(folder / "dev.parquet", rows), **options})


def test_likelihood_takes_the_letter_that_the_model_finds_likeliest(ask, llava: Llava, tmp_path: Path) -> None:
    generated = ask(mmbench(tmp_path), "generated", Settings(max_new_tokens=3, batch_size=3))
    likely = ask(mmbench(tmp_path, protocol="likelihood"), "likely")
    assert generated["decoding"] == {"method": "greedy", "max_new_tokens": 3}
    assert likely["decoding"] == {"method": "likelihood"}
    assert likely["options"]["protocol"] == "likelihood"
    assert likely["unread"] == 0
    asker = Asker(llava, likely["prompt"], None)
    for row in read_json_lines(tmp_path / "likely" / "predictions.jsonl"):
        listed = dict(part.split(" ") for part in row["raw"].split(", "))
        assert set(listed) == {"A", "B"}
        assert row["answer"] == max(listed, key=lambda letter: float(listed[letter]))
    with pytest.raises(DataError, match="has no choices"):
        asker.answers([asker.question(Document("1", (), "Who?", "a", fields={"hint": "", "options": ""}))])


def test_rows_hold_what_made_them(ask, tmp_path: Path) -> None:
    result = ask(mmbench(tmp_path), settings=Settings(max_new_tokens=2, limit=5, prompt="{options}\n{question}?"))
    assert result["data"]["documents"] == result["n"] == 5
    rows = read_json_lines(tmp_path / "result" / "predictions.jsonl")
    assert rows[0]["prompt"] == "A. кошка 1\nB. собака 1\nКто на картинке??"
    assert list(rows[0]) == [
        *("id", "kind", "groups", "image", "question", "prompt", "reference", "answer", "raw", "read", "score"),
        *("scores", "parts", "seconds", "stopped_by"),
    ]
    assert all(row["seconds"] > 0 for row in rows)
    assert read_json(tmp_path / "result" / "result.json") == result
    assert result["score"] == pytest.approx(sum(row["score"] for row in rows) / 5)


def test_answers_are_kept_when_scoring_fails_and_scored_when_it_works(
    ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = mmbench(tmp_path)
    score_all = type(task).score_all
    monkeypatch.setattr(type(task), "score_all", lambda *_: 1 / 0)
    with pytest.raises(DataError, match="score_all"):
        ask(task)
    assert not (tmp_path / "result").exists()  # it failed on empty answers, before any question was asked
    monkeypatch.setattr(type(task), "score_all", lambda s, d, a: score_all(s, d, a) if not any(a) else 1 / 0)
    with pytest.raises(DataError, match="score_all"):
        ask(task)
    kept = read_json_lines(tmp_path / "result" / "predictions.jsonl")
    assert len(kept) == 7
    monkeypatch.setattr(type(task), "score_all", score_all)
    monkeypatch.setattr(Asker, "answers", lambda *_: pytest.fail("answers are not made again"))
    ask(task)
    rows = read_json_lines(tmp_path / "result" / "predictions.jsonl")
    assert [(row["id"], row["answer"]) for row in rows] == [(row["id"], row["answer"]) for row in kept]


def test_a_prompt_that_no_tokenizer_reads_is_refused_before_anything_is_asked(ask, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="half of a surrogate pair"):
        ask(mmbench(tmp_path), settings=Settings(max_new_tokens=1, prompt="\udcff {question}"))


def test_a_result_of_another_tool_is_left_alone(ask, tmp_path: Path) -> None:
    (tmp_path / "result").mkdir()
    (tmp_path / "result" / "result.json").write_text("{}")
    with pytest.raises(InputError, match=r"settings\.json is missing"):
        ask(mmbench(tmp_path))
    assert (tmp_path / "result" / "result.json").read_text() == "{}"


def test_a_result_that_does_not_fit_the_schema_is_not_written(ask, tmp_path: Path) -> None:
    result = ask(mmbench(tmp_path), settings=Settings(max_new_tokens=1))
    rows = read_json_lines(tmp_path / "result" / "predictions.jsonl")
    check_result(result, rows)
    with pytest.raises(RunError, match=r"Result\.score"):
        check_result(result | {"score": float("nan")}, rows)
    with pytest.raises(RunError, match=r"Prediction\.read"):
        check_result(result, [*rows, {**rows[0], "read": "maybe"}])
    with pytest.raises(RunError, match=r"Result\.more"):
        check_result(result | {"more": 1}, rows)
