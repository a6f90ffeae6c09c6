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
from typing import Any, TypeVar

from pydantic import ValidationError

from lorgnette.errors import DataError
from lorgnette.evaluation.schema import PREDICTIONS, RESULT, Answer, Summary

EVALUATE = "Next: lorgnette evaluate MODEL --task NAME"
# `score` in result.json is the mean of the rows; only the order of adding may differ.
ROUNDING = 1e-6

Known = TypeVar("Known", Answer, Summary)


@dataclass(frozen=True, kw_only=True)
class Result:
    """One task on one model, as its folder tells it."""

    folder: Path
    summary: Mapping[str, Any]
    predictions: tuple[Answer, ...]

    @property
    def name(self) -> str:
        """Return what the result is called: its task, unless that was measured on several sets."""
        return str(self.summary.get("name") or self.summary["task"])


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
    _checked(Summary, summary, str(summary_path))
    predictions: dict[str, Answer] = {}
    with predictions_path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            where = f"{predictions_path}, line {number}"
            prediction = _checked(Answer, _parse_object(line, where), where)
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


def _checked(model: type[Known], row: Mapping[str, Any], where: str) -> Known:
    """Hold what a file says against the format, or name the first field that is wrong and what it may be."""
    try:
        return model.model_validate(row)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        found = repr(row[name])[:80] if name in row else "nothing"
        allowed = model.model_fields[name].description
        raise DataError(f"{where}: '{name}' must be {allowed}, found {found}. {EVALUATE}") from error
