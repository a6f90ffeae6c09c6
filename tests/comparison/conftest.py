"""Result folders as the evaluation writes them, small enough to read."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lorgnette.comparison.reading import Result, read_result

Row = dict[str, Any]


@pytest.fixture
def row() -> Callable[..., Row]:
    """One line of predictions.jsonl: `row(number, score, **fields)`."""

    def make(number: int, score: float, **fields: Any) -> Row:
        made = {
            "id": f"test-{number}",
            "kind": ("color", "shape")[number % 2],
            "groups": {},
            "image": None,
            "question": f"question {number}?",
            "prompt": f"question {number}?",
            "reference": "blue",
            "answer": "blue" if score == 1.0 else "no idea",
            "raw": "blue" if score == 1.0 else "no idea",
            "read": True,
            "score": score,
            "scores": {"exact_match": score},
            "seconds": 0.25,
            "stopped_by": "end",
        }
        return made | fields

    return make


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """A result folder on disk: `make_folder(name, rows, **fields of result.json)`."""

    def make(name: str, rows: Sequence[Row], **summary: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        score = sum(row["score"] for row in rows) / len(rows)
        content = {
            "task": "easy-vqa",
            "metric": "exact_match",
            "n": len(rows),
            "score": score,
            "stderr": 0.01,
            "interval": [max(0.0, score - 0.1), min(1.0, score + 0.1)],
            "kinds": {},
            "groups": {},
            "scores": _scores(rows),
            "counts": {},
            "warnings": [],
            "stopped_by_length": 0,
            "stopped_by_length_share": 0.0,
            "unread": 0,
            "unread_share": 0.0,
            "options": {},
            "prompt": "{question}",
            "chat_template": "plain",
            "decoding": {"method": "greedy", "max_new_tokens": 8},
            "data": {"split": "test", "limit": None, "documents": len(rows), "unusable": {}, "fingerprint": "sha256:1"},
            "batch_size": 4,
            "model": {"path": name},
            "versions": {"torch": "2.13"},
        }
        (folder / "result.json").write_text(json.dumps(content | summary), encoding="utf-8")
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "predictions.jsonl").write_text(lines, encoding="utf-8")
        return folder

    return make


def _scores(rows: Sequence[Row]) -> dict[str, Any]:
    """The summary of every metric; the comparison only reads which there are and how they are aggregated."""
    means = dict.fromkeys(name for row in rows for name in row["scores"])
    corpus = dict.fromkeys(name for row in rows for name in row.get("parts", {}))
    numbers = {"score": 0.5, "stderr": 0.01, "interval": [0.4, 0.6], "n": len(rows)}
    return {name: numbers | {"aggregate": "mean"} for name in means} | {
        name: numbers | {"aggregate": name} for name in corpus
    }


@pytest.fixture
def make_result(make_folder: Callable[..., Path]) -> Callable[..., Result]:
    """The same folder, read."""

    def make(name: str, rows: Sequence[Row], **summary: Any) -> Result:
        return read_result(make_folder(name, rows, **summary))

    return make


@pytest.fixture
def before(row: Callable[..., Row]) -> list[Row]:
    """20 answers, the first 3 of them right."""
    return [row(number, float(number < 3)) for number in range(20)]


@pytest.fixture
def after(row: Callable[..., Row]) -> list[Row]:
    """The same 20 documents, all but the first right."""
    return [row(number, float(number > 0)) for number in range(20)]


@pytest.fixture
def pair(make_result: Callable[..., Result], tmp_path: Path, row: Callable[..., Row]) -> tuple[Result, Result]:
    """60 became right, 6 became wrong, 24 stayed wrong, 30 stayed right; some pictures cannot be shown."""
    Image.new("RGB", (400, 200), "red").save(tmp_path / "wide.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "wide.png").read_bytes()[:60])
    images = [str(tmp_path / "wide.png"), str(tmp_path / "gone.png"), str(tmp_path / "broken.png"), None]
    first = [0.0] * 60 + [1.0] * 6 + [0.0] * 24 + [1.0] * 30
    second = [1.0] * 60 + [0.0] * 6 + [0.0] * 24 + [1.0] * 30
    return (
        make_result("before", [row(i, s, image=images[i % 4]) for i, s in enumerate(first)]),
        make_result("after", [row(i, s, image=images[i % 4]) for i, s in enumerate(second)]),
    )
