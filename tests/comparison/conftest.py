"""Result folders as the evaluation writes them, small enough to read."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from lorgnette.comparison.compare import Result, read_result

Row = dict[str, Any]


@pytest.fixture
def row() -> Callable[..., Row]:
    """One line of predictions.jsonl: `row(number, score, **fields)`."""

    def make(number: int, score: float, **fields: Any) -> Row:
        return {
            "id": f"test-{number}",
            "kind": ("color", "shape")[number % 2],
            "image": None,
            "question": f"question {number}?",
            "reference": "blue",
            "answer": "blue" if score == 1.0 else "no idea",
            "score": score,
            "stopped_by": "end",
        } | fields

    return make


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """A result folder on disk: `make_folder(name, rows, **fields of result.json)`."""

    def make(name: str, rows: Sequence[Row], **summary: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        content = {
            "task": "easy-vqa",
            "metric": "exact_match",
            "n": len(rows),
            "score": sum(row["score"] for row in rows) / len(rows),
            "prompt": "{question}",
            "data": {"split": "test"},
            "model": {"path": name},
        }
        (folder / "result.json").write_text(json.dumps(content | summary), encoding="utf-8")
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "predictions.jsonl").write_text(lines, encoding="utf-8")
        return folder

    return make


@pytest.fixture
def make_result(make_folder: Callable[..., Path]) -> Callable[..., Result]:
    """The same folder, read."""

    def make(name: str, rows: Sequence[Row], **summary: Any) -> Result:
        return read_result(make_folder(name, rows, **summary))

    return make
