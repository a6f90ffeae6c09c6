"""What is compared, what is refused, and what is written."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lorgnette.comparison.compare import compare, print_table, read_result, write_comparison
from lorgnette.comparison.statistics import Interval
from lorgnette.comparison.wording import difference_text, interval_text, p_text
from lorgnette.errors import DataError
from lorgnette.run import write_text

Make = Callable[..., Any]  # the fixtures of conftest.py


@pytest.fixture
def before(row: Make) -> list[dict[str, Any]]:
    return [row(number, float(number < 3)) for number in range(20)]


@pytest.fixture
def after(row: Make) -> list[dict[str, Any]]:
    return [row(number, float(number > 0)) for number in range(20)]


def test_results_are_paired_by_id_whatever_the_order_of_lines(make_result: Make, before: list, after: list) -> None:
    straight = compare(make_result("a", before), make_result("b", after))
    shuffled = compare(make_result("c", before[::-1]), make_result("d", after[7:] + after[:7]))
    assert straight == shuffled
    assert (straight.n, straight.wins, straight.losses) == (20, 17, 1)
    assert straight.before == pytest.approx(0.15)
    assert straight.after == pytest.approx(0.95)
    assert straight.difference == pytest.approx(0.8)
    assert straight.interval.low < 0.8 < straight.interval.high
    assert straight.p_value == pytest.approx(2 * (1 + 18) / 2**18)


def test_the_order_of_lines_changes_no_draw(row: Make, make_result: Make) -> None:
    before = [row(number, number / 199) for number in range(200)]  # too many distinct scores for counts
    after = [row(number, (number / 199) ** 2) for number in range(200)]
    straight = compare(make_result("a", before), make_result("b", after))
    assert straight == compare(make_result("c", before[::-1]), make_result("d", after))


def test_kinds_add_up_to_the_task(make_result: Make, before: list, after: list) -> None:
    whole = compare(make_result("a", before), make_result("b", after))
    assert [(kind.kind, kind.n) for kind in whole.kinds] == [("color", 10), ("shape", 10)]
    assert sum(kind.n * kind.difference for kind in whole.kinds) == pytest.approx(whole.n * whole.difference)


def test_documents_without_a_kind_count_in_the_task_only(make_result: Make, row: Make) -> None:
    rows = [row(1, 1.0, kind=None), row(2, 0.0)]
    result = compare(make_result("a", rows), make_result("b", rows))
    assert (result.n, result.difference, result.p_value, result.interval) == (2, 0.0, 1.0, (0.0, 0.0))
    assert [kind.n for kind in result.kinds] == [1]


@pytest.mark.parametrize("name", ["task", "metric", "prompt"])
def test_different_conditions_are_refused(make_result: Make, name: str, before: list, after: list) -> None:
    with pytest.raises(DataError, match=f"{name} is .* before and 'other' after"):
        compare(make_result("a", before), make_result("b", after, **{name: "other"}))


def test_different_documents_are_refused_with_numbers_and_examples(
    make_result: Make, row: Make, before: list, after: list
) -> None:
    new = [*after[5:], row(77, 1.0)]
    with pytest.raises(DataError) as caught:
        compare(make_result("a", before), make_result("b", new))
    message = str(caught.value)
    assert "5 documents missing after ('test-0', 'test-1', 'test-2', ...)" in message
    assert "1 document missing before ('test-77')" in message
    assert "Next:" in message


@pytest.mark.parametrize("field", ["question", "reference", "kind"])
def test_changed_documents_are_refused(make_result: Make, field: str, before: list, after: list) -> None:
    changed = [after[0], {**after[1], field: "something else"}, *after[2:]]
    with pytest.raises(DataError, match=r"'test-1'.*same version of the data"):
        compare(make_result("a", before), make_result("b", changed))


def test_comparison_json_has_exactly_the_agreed_fields(
    make_result: Make, tmp_path: Path, before: list, after: list
) -> None:
    path = tmp_path / "new" / "comparison.json"
    comparison = compare(make_result("a", before), make_result("b", after))
    write_comparison(path, [comparison])
    content = json.loads(path.read_text(encoding="utf-8"))
    assert list(content) == ["tasks"]
    task = content["tasks"][0]
    numbers = ["n", "before", "after", "difference", "interval", "p_value"]
    assert list(task) == ["task", "metric", *numbers, "kinds", "wins", "losses"]
    assert [list(kind) for kind in task["kinds"]] == [["kind", *numbers]] * 2
    assert task["interval"] == list(comparison.interval)
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "comparison.json"
    write_text(path, "old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_table_shows_every_number_and_indents_kinds(make_result: Make, before: list, after: list) -> None:
    rows = [{**line, "kind": "[red]\x1b[31mcolor"} for line in before]
    tuned = [{**line, "kind": "[red]\x1b[31mcolor"} for line in after]
    console = Console(file=io.StringIO(), width=110)
    print_table([compare(make_result("a", rows), make_result("b", tuned))], console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    task, kind = (line for line in printed.splitlines() if "0.150" in line)
    assert task.startswith("│ easy-vqa ")
    assert kind.startswith("│   [red]\ufffd[31mcolor")
    for text in ("20", "0.950", "+0.800", "< 0.001"):
        assert text in task


def test_numbers_read_the_same_everywhere() -> None:
    assert [difference_text(value) for value in (0.84, -0.0121, 0.0, -0.0001)] == [
        "+0.840",
        "-0.012",
        "+0.000",
        "+0.000",
    ]
    assert interval_text(Interval(-0.1, 0.25)) == "-0.100 to +0.250"
    assert [p_text(value) for value in (0.00099, 0.001, 0.0214, 1.0)] == [
        "< 0.001",
        "0.001",
        "0.021",
        "1.000",
    ]


Damage = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda line: line.pop("id"), "'id' must be a string, found nothing"),
        (lambda line: line.update(answer=None), "'answer' must be a string, found None"),
        (lambda line: line.update(kind=3), "'kind' must be a string or null, found 3"),
        (lambda line: line.update(score=True), "'score' must be a number from 0 to 1, found True"),
        (lambda line: line.update(score=1.5), "'score' must be a number from 0 to 1, found 1.5"),
        (lambda line: line.update(score=float("nan")), "'score' must be a number from 0 to 1, found nan"),
        (lambda line: line.update(stopped_by="?"), "'stopped_by' must be"),
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
        ("result.json", b"{}", "'task' must be str, found nothing"),
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
    with pytest.raises(DataError) as caught:
        read_result(folder)
    assert str(folder / file) in str(caught.value)
    assert found in str(caught.value)


@pytest.mark.parametrize(
    ("summary", "found"),
    [
        ({"n": 21}, "says n = 21, but .* has 20 lines"),
        ({"score": 0.9}, "different runs"),
        ({"n": 0}, "'n' must be a count above 0"),
        ({"n": True}, "'n' must be int"),
        ({"score": None}, "'score' must be a number"),
    ],
)
def test_files_that_contradict_each_other_are_refused(
    summary: dict, found: str, make_folder: Make, before: list
) -> None:
    with pytest.raises(DataError, match=found):
        read_result(make_folder("a", before, **summary))


def test_a_score_rounded_to_two_decimals_is_accepted(row: Make, make_folder: Make) -> None:
    rows = [row(number, float(number < 1)) for number in range(3)]
    assert read_result(make_folder("a", rows, score=0.33)).summary["score"] == 0.33
