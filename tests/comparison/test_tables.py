"""The terminal's table, CSV, Markdown, JSON, and every win and loss."""

import csv
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lorgnette.comparison.compare import compare, compare_sides
from lorgnette.comparison.effects import Compared
from lorgnette.comparison.folders import Side
from lorgnette.comparison.tables import (
    COLUMNS,
    as_csv,
    as_markdown,
    headings,
    print_changes,
    print_tables,
    write_tables,
)
from lorgnette.run import write_text

Make = Callable[..., Any]  # the fixtures of conftest.py
HOSTILE = "[red]\x1b[31m=1+2|<b>*x*"


@pytest.fixture
def compared(make_result: Make, before: list, after: list) -> Compared:
    return compare(make_result("a", before), make_result("b", after), ("base", "tuned"))


@pytest.fixture
def hostile(make_result: Make, before: list, after: list) -> Compared:
    first, second = ([{**line, "kind": HOSTILE, "answer": HOSTILE} for line in rows] for rows in (before, after))
    task = "=HYPERLINK(1)"
    return compare(make_result("c", first, task=task), make_result("d", second, task=task), (HOSTILE, "tuned"))


def printed(show: Callable[[Console], None], width: int = 110) -> str:
    console = Console(file=io.StringIO(), width=width)
    show(console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_table_shows_every_number_and_indents_groups(compared: Compared) -> None:
    text = printed(lambda console: print_tables([compared.numbers], console), width=80)
    task, color, _ = (line for line in text.splitlines() if line.strip().startswith(("easy-vqa ", "color", "shape")))
    assert task.split() == ["easy-vqa", "20", "0.150", "0.950", "+0.800", "+0.550", "to", "+1.000", "<", "0.001"]
    assert color.startswith("   color")
    assert "easy-vqa, exact_match: 17 answers better, 1 worse, 2 the same" in text
    assert "tuned against base: better on easy-vqa: +80.0 points, 95 % 55.0 to 100.0" in text
    assert "where n is below 30" in text


def test_names_are_text_in_the_terminal(hostile: Compared) -> None:
    text = printed(lambda console: print_tables([hostile.numbers], console))
    assert "\x1b" not in text
    assert "[red]\ufffd[31m=1+2|<b>*x*" in text


def test_each_candidate_has_a_table(make_result: Make, before: list, after: list) -> None:
    sides = [
        Side(name=name, folder=Path(name), results={"easy-vqa": make_result(name, rows)})
        for name, rows in (("one", before), ("two", after), ("three", before))
    ]
    numbers = [made.numbers for made in compare_sides(sides)]
    text = printed(lambda console: print_tables(numbers, console))
    assert [line.strip() for line in text.splitlines() if line.strip().endswith("against one")] == [
        "two against one",
        "three against one",
    ]
    assert "three against one: no difference shown on easy-vqa" in text


@pytest.mark.parametrize(
    ("baseline", "candidate", "shown"),
    [
        ("before", "after", ("before", "after")),
        ("gemma2-merged", "gemma2-finetune-trained", ("merged", "finetun…")),
        ("model", "model-tuned", ("model", "model-t…")),
        ("a-long-name", "a-long-name-tuned", ("baseline", "other")),
    ],
)
def test_headings_tell_two_names_apart(baseline: str, candidate: str, shown: tuple[str, str]) -> None:
    assert headings(baseline, candidate) == shown


def test_a_scale_that_does_not_end_at_1_is_named(make_result: Make, before: list, after: list) -> None:
    for row in (*before, *after):
        row["scores"] |= {"chrf": 50.0, "cider_d": 2.0}
    made = compare(make_result("a", before), make_result("b", after), names=("a", "b"))
    console = Console(file=io.StringIO(), width=100)
    print_tables([made.numbers], console)
    for text in (console.file.getvalue(), as_markdown([made.numbers])):  # type: ignore[attr-defined]
        shown = text.replace("\\_", "_")
        assert "chrf (of 100)" in shown
        assert "cider_d (of 10)" in shown
    assert ",chrf," in as_csv([made.numbers])


def test_losses_come_before_wins_and_are_shown_with_both_answers(compared: Compared) -> None:
    text = printed(lambda console: print_changes([compared], 2, console))
    assert [line for line in text.splitlines() if " of " in line] == [
        "tuned on easy-vqa: 1 of 1 losses",
        "tuned on easy-vqa: 2 of 17 wins",
    ]
    assert "test-0: question 0?" in text
    assert "base: blue (1.000)" in text
    assert "tuned: no idea (0.000)" in text


def test_csv_has_a_line_a_group_and_metric_in_full_precision(compared: Compared) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv([compared.numbers]))))
    assert tuple(rows[0]) == COLUMNS
    assert [(row["grouping"], row["value"], row["n"], row["verdict"]) for row in rows] == [
        ("", "", "20", "better"),
        ("kind", "color", "10", ""),
        ("kind", "shape", "10", ""),
    ]
    assert float(rows[0]["p_value"]) == compared.numbers.p_value
    assert [float(rows[0][f"difference_{end}"]) for end in ("low", "high")] == list(compared.numbers.interval)


def test_csv_is_safe_to_open_in_a_spreadsheet(hostile: Compared) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv([hostile.numbers]))))
    assert rows[0]["task"] == "'=HYPERLINK(1)"
    assert not [cell for row in rows for cell in row.values() if cell.startswith("=")]


def test_markdown_says_the_sentence_and_the_numbers(compared: Compared, hostile: Compared) -> None:
    lines = as_markdown([compared.numbers]).splitlines()
    assert lines[0] == "**tuned against base: better on easy-vqa: +80.0 points, 95 % 55.0 to 100.0**"
    assert "| easy-vqa, exact\\_match | 20 | 0.150 | 0.950 | +0.800 | +0.550 to +1.000 | < 0.001 | 17 | 1 |" in lines
    assert "Holm" in lines[-1]
    text = as_markdown([hostile.numbers])
    assert "\\<b\\>\\*x\\*" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in rows} == {10}


def test_comparison_json_keeps_the_agreed_fields(compared: Compared, tmp_path: Path) -> None:
    write_tables(tmp_path / "new", [compared])
    names = {"comparison.json", "comparison.csv", "comparison.md", "changes.jsonl"}
    assert {path.name for path in (tmp_path / "new").iterdir()} == names
    content = json.loads((tmp_path / "new" / "comparison.json").read_text(encoding="utf-8"))
    assert list(content) == ["tasks"]
    (task,) = content["tasks"]
    agreed = ["task", "metric", "n", "before", "after", "difference", "interval", "p_value"]
    assert list(task)[:8] == agreed
    assert set(task) - set(agreed) == {
        *("p_corrected", "test", "before_interval", "after_interval", "wins", "losses", "verdict"),
        *("baseline", "candidate", "shares", "image_factor", "groups", "metrics", "notes"),
    }
    assert task["interval"] == list(compared.numbers.interval)
    assert [(line["value"], line["n"]) for line in task["groups"]["kind"]] == [("color", 10), ("shape", 10)]


def test_changes_are_all_wins_and_losses(compared: Compared, tmp_path: Path) -> None:
    write_tables(tmp_path, [compared])
    rows = [json.loads(line) for line in (tmp_path / "changes.jsonl").read_text().splitlines()]
    assert [row["change"] for row in rows] == ["loss"] + ["win"] * 17
    assert rows[0] == {
        "task": "easy-vqa",
        "baseline": "base",
        "candidate": "tuned",
        "id": "test-0",
        "change": "loss",
        "before": 1.0,
        "after": 0.0,
        "image": None,
        "question": "question 0?",
        "references": ["blue"],
        "answer_before": "blue",
        "answer_after": "no idea",
    }


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
