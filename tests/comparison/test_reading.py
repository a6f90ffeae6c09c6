"""What a result folder must hold, and how a broken one is named."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from lorgnette.comparison.reading import is_result, read_result
from lorgnette.errors import DataError

Make = Callable[..., Any]  # the fixtures of conftest.py
Damage = Callable[[dict[str, Any]], object]


def test_a_row_is_read_as_it_was_written(make_folder: Make, row: Make) -> None:
    parts = {"bleu": [1.0, 2.0]}
    written = row(1, 0.5, reference=["a", "b"], groups={"category": "x"}, parts=parts, scores={"f": 0.5, "g": 7.25})
    (read,) = read_result(make_folder("a", [written], metric="f")).predictions
    assert read.references == ("a", "b")
    assert (read.groups, read.scores, read.parts) == ({"category": "x"}, {"f": 0.5, "g": 7.25}, {"bleu": (1.0, 2.0)})
    assert (read.kind, read.read, read.score, read.stopped_by) == ("shape", True, 0.5, "end")


def test_scores_may_have_a_scale_of_their_own(make_folder: Make, row: Make) -> None:
    assert read_result(make_folder("a", [row(1, 3.5), row(2, 0.0)])).summary["score"] == 1.75


def test_files_of_another_age_or_tool_need_only_what_is_compared(make_folder: Make, before: list) -> None:
    folder = make_folder("a", [{**line, "more": 1} for line in before])
    summary = json.loads((folder / "result.json").read_text())
    needed = {name: summary[name] for name in ("task", "metric", "prompt", "n", "score")}
    (folder / "result.json").write_text(json.dumps({**needed, "scores": {"exact_match": {"aggregate": "mean"}}}))
    lines = map(json.loads, (folder / "predictions.jsonl").read_text().splitlines())
    lacking = [{name: value for name, value in line.items() if name not in ("raw", "seconds")} for line in lines]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lacking))
    assert len(read_result(folder).predictions) == 20


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda line: line.pop("id"), "'id' must be a string, found nothing"),
        (lambda line: line.update(answer=None), "'answer' must be a string, found None"),
        (lambda line: line.update(kind=3), "'kind' must be a string or null, found 3"),
        (lambda line: line.update(score=True), "'score' must be a finite number, found True"),
        (lambda line: line.update(score=float("nan")), "'score' must be a finite number, found nan"),
        (lambda line: line.update(score=10**400), "'score' must be a finite number, found 1000"),
        (lambda line: line.update(score=1e308), "'score' must be a finite number, found 1e+308"),
        (lambda line: line.update(stopped_by=1), "'stopped_by' must be a string or null"),
        (lambda line: line.update(reference=[1]), "'reference' must be a string or a list of strings"),
        (lambda line: line.pop("reference"), "'reference' must be a string or a list of strings, found nothing"),
        (lambda line: line.update(groups={"a": 1}), "'groups' must be an object of strings"),
        (lambda line: line.update(read=1), "'read' must be true or false"),
        (lambda line: line.update(scores={"a": None}), "'scores' must be an object of finite numbers"),
        (lambda line: line.update(parts={"a": 1}), "'parts' must be an object of lists of finite numbers"),
        (lambda line: line.update(parts={"a": [float("inf")]}), "'parts' must be an object of lists"),
        (lambda line: line.update(id="test-0"), "'test-0' was already used"),
        (lambda line: line.update(answer="\ud800"), "not whole JSON in UTF-8"),
    ],
)
def test_a_malformed_line_is_named(damage: Damage, found: str, make_folder: Make, before: list) -> None:
    rows = [dict(line) for line in before]
    folder = make_folder("a", rows)
    damage(rows[4])
    (folder / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in rows))
    with pytest.raises(DataError) as caught:
        read_result(folder)
    message = str(caught.value)
    assert f"{folder / 'predictions.jsonl'}, line 5" in message
    assert found in message
    assert "Next: lorgnette evaluate" in message


@pytest.mark.parametrize(
    ("file", "content", "found"),
    [
        ("predictions.jsonl", None, "does not exist"),
        ("result.json", None, "does not exist"),
        ("result.json", b"", "is it cut off?"),
        ("result.json", b"[1]", "needs a JSON object, found list"),
        ("result.json", b"[" * 100_000, "is it cut off?"),
        ("result.json", b"{}", "'task' must be a string, found nothing"),
        ("predictions.jsonl", b'{"id": "test-0", "ki', "line 1: not whole JSON"),
        ("predictions.jsonl", b"\xff\xfe\n", "line 1: not whole JSON"),
        ("predictions.jsonl", b"", "says n = 20, but"),
    ],
)
def test_a_broken_file_is_named(file: str, content: bytes | None, found: str, make_folder: Make, before: list) -> None:
    folder = make_folder("a", before)
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    assert is_result(folder)  # so that half of a result is an error, not a folder that is passed over
    with pytest.raises(DataError) as caught:
        read_result(folder)
    assert str(folder / file) in str(caught.value)
    assert found in str(caught.value)


@pytest.mark.parametrize(
    ("summary", "found"),
    [
        ({"n": 21}, "says n = 21, but .* has 20 lines"),
        ({"score": 0.16}, "different runs"),
        ({"n": 0}, "'n' must be a count above 0"),
        ({"n": True}, "'n' must be a count above 0, found True"),
        ({"score": None}, "'score' must be a finite number"),
        ({"scores": {"a": 1}}, "'scores' must be an object of objects"),
        ({"scores": {"a": {"score": 1}}}, "with an aggregate"),
        ({"scores": {"a": {"aggregate": ["mean"]}}}, "with an aggregate"),
        ({"scores": {"a": {"aggregate": "mean", "highest": 0}}}, "`highest` above 0"),
    ],
)
def test_files_that_contradict_each_other_are_refused(
    summary: dict, found: str, make_folder: Make, before: list
) -> None:
    with pytest.raises(DataError, match=found):
        read_result(make_folder("a", before, **summary))
