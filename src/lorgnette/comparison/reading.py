"""Read result folders, and check that their two files are whole and belong together.

A result folder holds `result.json` (what made the scores, and their means) and `predictions.jsonl` (one answer a
line). Everything else here that looks at a result starts from the values that this module returns.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorgnette.errors import DataError
from lorgnette.evaluation.schema import PREDICTIONS, RESULT

EVALUATE = "Next: lorgnette evaluate MODEL --task NAME"
# `score` in result.json is the mean of the rows; only the order of adding may differ.
ROUNDING = 1e-6
# Sums and squares of larger numbers overflow, and no metric comes near it.
LARGEST = 1e100


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One answer to one document.

    Attributes:
        groups: its value in every grouping of the task, `kind` not among them.
        image: the absolute path of its first image.
        prompt: what the model was asked, the task's prompt filled; empty where nobody knows.
        references: the right answers, one or several.
        read: whether the answer could be understood.
        score: the main metric of this answer; `scores` has every metric that this answer has one of.
        parts: what this answer adds to metrics of the whole corpus.
        stopped_by: "end" or "length", null where nobody knows.
    """

    id: str
    kind: str | None
    groups: Mapping[str, str]
    image: str | None
    question: str
    prompt: str
    references: tuple[str, ...]
    answer: str
    read: bool
    score: float
    scores: Mapping[str, float]
    parts: Mapping[str, tuple[float, ...]]
    stopped_by: str | None


@dataclass(frozen=True, kw_only=True)
class Result:
    """One task on one model, as its folder tells it."""

    folder: Path
    summary: Mapping[str, Any]
    predictions: tuple[Prediction, ...]


def is_result(folder: Path) -> bool:
    """Tell whether a folder looks like a result: one of its two files is there."""
    return (folder / RESULT).is_file() or (folder / PREDICTIONS).is_file()


def read_result(folder: Path) -> Result:
    """Read a result folder and check that its two files are whole and belong together.

    Raises:
        DataError: a file is missing, cut off or malformed, or the two files contradict each other; the
            message names the file and the line.
    """
    summary_path, predictions_path = folder / RESULT, folder / PREDICTIONS
    for path in (summary_path, predictions_path):
        if not path.is_file():
            raise DataError(f"{path} does not exist, so {folder} is not a result folder. {EVALUATE}")
    summary = _parse_object(summary_path.read_bytes(), str(summary_path))
    _check_summary(summary, str(summary_path))
    predictions: dict[str, Prediction] = {}
    with predictions_path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            where = f"{predictions_path}, line {number}"
            prediction = _prediction(_parse_object(line, where), where)
            if prediction.id in predictions:
                raise DataError(f"{where}: the id {prediction.id!r} was already used above. {EVALUATE}")
            predictions[prediction.id] = prediction
    if len(predictions) != summary["n"]:
        raise DataError(
            f"{summary_path} says n = {summary['n']}, but {predictions_path} has {len(predictions)} lines: "
            f"the evaluation was interrupted, or the files are from different runs. {EVALUATE}"
        )
    mean = math.fsum(row.score for row in predictions.values()) / len(predictions)
    if abs(mean - summary["score"]) > ROUNDING * max(1.0, abs(mean)):
        raise DataError(
            f"{summary_path} says score = {summary['score']}, but the scores in {predictions_path} average "
            f"{mean:.6f}: the files are from different runs. {EVALUATE}"
        )
    return Result(folder=folder, summary=summary, predictions=tuple(predictions.values()))


def _parse_object(raw: bytes, where: str) -> dict[str, Any]:
    """Parse one JSON object, or name the place where it breaks."""
    try:
        value = json.loads(raw.decode("utf-8"))
        if b"\\ud" in raw.lower():  # a lone surrogate passes json.loads, then fails wherever it is written
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not whole JSON in UTF-8 ({error}); is it cut off? {EVALUATE}") from error
    if not isinstance(value, dict):
        raise DataError(f"{where}: needs a JSON object, found {type(value).__name__}. {EVALUATE}")
    return value


def _check_summary(summary: Mapping[str, Any], where: str) -> None:
    """Check the fields of `result.json` that a comparison relies on; others may be there or not."""
    for name, wanted in (("task", str), ("metric", str), ("prompt", str), ("n", int)):
        _require(type(summary.get(name)) is wanted, summary, name, wanted.__name__, where)
    _require(summary["n"] > 0, summary, "n", "a count above 0", where)
    _require(_is_number(summary.get("score")), summary, "score", "a finite number", where)
    scores = summary.get("scores")
    named = isinstance(scores, dict) and all(
        _is_map(score, object) and "aggregate" in score for score in scores.values()
    )
    _require(named, summary, "scores", "an object of objects with an aggregate", where)


def _prediction(row: Mapping[str, Any], where: str) -> Prediction:
    """Check one line of `predictions.jsonl`; fields that are not in the format are left aside."""
    for name in ("id", "question", "prompt", "answer"):
        _require(isinstance(row.get(name), str), row, name, "a string", where)
    for name in ("kind", "image", "stopped_by"):
        _require(name in row and isinstance(row[name], str | None), row, name, "a string or null", where)
    reference = row.get("reference")
    references = tuple(reference) if isinstance(reference, list) else (reference,)
    said = "a string or a list of strings"
    _require(all(isinstance(text, str) for text in references), row, "reference", said, where)
    _require(_is_map(row.get("groups"), str), row, "groups", "an object of strings", where)
    _require(type(row.get("read")) is bool, row, "read", "true or false", where)
    _require(_is_number(row.get("score")), row, "score", "a finite number", where)
    scores, parts = row.get("scores"), row.get("parts", {})
    are_numbers = isinstance(scores, dict) and all(map(_is_number, scores.values()))
    _require(are_numbers, row, "scores", "an object of finite numbers", where)
    are_lists = _is_map(parts, list) and all(map(_is_number, (number for part in parts.values() for number in part)))
    _require(are_lists, row, "parts", "an object of lists of finite numbers", where)
    return Prediction(
        id=row["id"],
        kind=row["kind"],
        groups=row["groups"],
        image=row["image"],
        question=row["question"],
        prompt=row["prompt"],
        references=references,
        answer=row["answer"],
        read=row["read"],
        score=float(row["score"]),
        scores=row["scores"],
        parts={name: tuple(part) for name, part in parts.items()},
        stopped_by=row["stopped_by"],
    )


def _require(holds: bool, row: Mapping[str, Any], name: str, allowed: str, where: str) -> None:
    """Raise the message of a wrong field unless the condition holds."""
    if not holds:
        found = repr(row[name])[:80] if name in row else "nothing"
        raise DataError(f"{where}: '{name}' must be {allowed}, found {found}. {EVALUATE}")


def _is_map(value: Any, kind: type) -> bool:
    """Tell whether a JSON value is an object whose values are all of one kind."""
    return isinstance(value, dict) and all(isinstance(item, kind) for item in value.values())


def _is_number(value: object) -> bool:
    """Tell whether a JSON value is a finite number that can be computed with (true, NaN and 10**400 are not)."""
    return isinstance(value, int | float) and type(value) is not bool and abs(value) <= LARGEST
