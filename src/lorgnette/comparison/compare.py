"""Read two result folders and compare them, document by document.

A result folder holds `result.json` (one score and what made it) and `predictions.jsonl` (one answer a line).
Two results are comparable only if the same questions were asked in the same words and scored in the same way;
everything else is refused, because a difference would then say nothing about the models.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lorgnette.comparison.statistics import Interval, p_value, paired_bootstrap
from lorgnette.comparison.wording import (
    difference_text,
    interval_text,
    p_text,
    printable,
    score_text,
)
from lorgnette.errors import DataError
from lorgnette.run import write_text

EVALUATE = "Next: lorgnette evaluate MODEL --task NAME"
# `score` in result.json is the mean of the rows; this allows one that was rounded to two decimals.
ROUNDING = 0.0051


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One answer to one document."""

    id: str
    kind: str | None
    image: str | None  # absolute path
    question: str
    reference: str
    answer: str
    score: float  # 0 to 1
    stopped_by: str  # "end" or "length"


@dataclass(frozen=True, kw_only=True)
class Result:
    """One task on one model, as its folder tells it."""

    folder: Path
    summary: Mapping[str, Any]
    predictions: tuple[Prediction, ...]


@dataclass(frozen=True, kw_only=True)
class KindComparison:
    """Before and after on the documents of one kind."""

    kind: str
    n: int
    before: float
    after: float
    difference: float
    interval: Interval
    p_value: float


@dataclass(frozen=True, kw_only=True)
class TaskComparison:
    """Before and after on one task; the fields are those of `comparison.json`, in its order."""

    task: str
    metric: str
    n: int
    before: float
    after: float
    difference: float
    interval: Interval
    p_value: float
    kinds: tuple[KindComparison, ...]
    wins: int
    losses: int


def read_result(folder: Path) -> Result:
    """Read a result folder and check that its two files are whole and belong together.

    Raises:
        DataError: a file is missing, cut off or malformed, or the two files contradict each other; the
            message names the file and the line.
    """
    summary_path, predictions_path = folder / "result.json", folder / "predictions.jsonl"
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
    if abs(mean - summary["score"]) > ROUNDING:
        raise DataError(
            f"{summary_path} says score = {summary['score']}, but the scores in {predictions_path} average "
            f"{mean:.4f}: the files are from different runs. {EVALUATE}"
        )
    return Result(folder=folder, summary=summary, predictions=tuple(predictions.values()))


def compare(before: Result, after: Result, *, seed: int = 0) -> TaskComparison:
    """Compare two results of one task, paired by document id.

    Documents are taken in the order of their ids, so the order of lines in the files changes no number.

    Raises:
        DataError: the tasks, metrics, prompts, documents, questions or references differ.
    """
    refused = f"Cannot compare {before.folder} with {after.folder}: "
    for name in ("task", "metric", "prompt"):
        if before.summary[name] != after.summary[name]:
            raise DataError(
                f"{refused}{name} is {before.summary[name]!r} before and {after.summary[name]!r} after. "
                "Next: evaluate both models in the same way."
            )
    first = {row.id: row for row in before.predictions}
    second = {row.id: row for row in after.predictions}
    _check_documents(first, second, refused)
    ids = sorted(first)
    by_kind: dict[str, list[str]] = {}
    for document in ids:
        kind = first[document].kind
        if kind is not None:
            by_kind.setdefault(kind, []).append(document)
    kinds = tuple(KindComparison(kind=kind, **_measure(first, second, by_kind[kind], seed)) for kind in sorted(by_kind))
    return TaskComparison(
        task=before.summary["task"],
        metric=before.summary["metric"],
        **_measure(first, second, ids, seed),
        kinds=kinds,
        wins=sum(second[document].score > first[document].score for document in ids),
        losses=sum(second[document].score < first[document].score for document in ids),
    )


def write_comparison(path: Path, comparisons: Sequence[TaskComparison]) -> None:
    """Write `comparison.json`, whole or not at all."""
    content = {"tasks": [asdict(comparison) for comparison in comparisons]}
    write_text(path, json.dumps(content, ensure_ascii=False, indent=2) + "\n")


def print_table(comparisons: Iterable[TaskComparison], console: Console) -> None:
    """Print one line a task and, indented below it, one line a kind."""
    table = Table("task / kind", caption="p-values of kinds are not corrected for their number")
    for heading in ("n", "before", "after", "difference", "95 % interval", "p-value"):
        table.add_column(heading, justify="right", no_wrap=True)
    for comparison in comparisons:
        table.add_section()
        rows: list[tuple[str, TaskComparison | KindComparison]] = [(printable(comparison.task), comparison)]
        rows += [(f"  {printable(kind.kind)}", kind) for kind in comparison.kinds]
        for name, row in rows:
            table.add_row(
                Text(name),  # never markup: a kind is whatever the data set calls it
                f"{row.n:,}",
                score_text(row.before),
                score_text(row.after),
                difference_text(row.difference),
                interval_text(row.interval),
                p_text(row.p_value),
            )
    console.print(table)


def _measure(
    before: Mapping[str, Prediction], after: Mapping[str, Prediction], ids: Sequence[str], seed: int
) -> dict[str, Any]:
    """Compute the numbers that a task and a kind have in common, over these documents."""
    first = np.array([before[document].score for document in ids])
    second = np.array([after[document].score for document in ids])
    return {
        "n": len(ids),
        "before": float(first.mean()),
        "after": float(second.mean()),
        "difference": float((second - first).mean()),
        "interval": paired_bootstrap(first, second, seed=seed),
        "p_value": p_value(first, second, seed=seed),
    }


def _check_documents(before: Mapping[str, Prediction], after: Mapping[str, Prediction], refused: str) -> None:
    """Refuse results that are not about the same documents."""
    gone, new = sorted(before.keys() - after.keys()), sorted(after.keys() - before.keys())
    if gone or new:
        told = [
            f"{len(ids):,} {'document' if len(ids) == 1 else 'documents'} missing {side} "
            f"({', '.join(map(repr, ids[:3]))}{', ...' if len(ids) > 3 else ''})"
            for side, ids in (("after", gone), ("before", new))
            if ids
        ]
        raise DataError(
            f"{refused}{' and '.join(told)}. Next: evaluate both models on the same split and the same limit."
        )
    for document, row in before.items():
        first = (row.kind, row.question, row.reference)
        second = (after[document].kind, after[document].question, after[document].reference)
        if first != second:
            raise DataError(
                f"{refused}document {document!r} has (kind, question, reference) = {first} before, {second} "
                "after. Next: evaluate both models on the same version of the data."
            )


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
    _require(_is_share(summary.get("score")), summary, "score", "a number from 0 to 1", where)


def _prediction(row: Mapping[str, Any], where: str) -> Prediction:
    """Check one line of `predictions.jsonl`; fields that are not in the format are left aside."""
    for name in ("id", "question", "reference", "answer"):
        _require(isinstance(row.get(name), str), row, name, "a string", where)
    for name in ("kind", "image"):
        _require(name in row and isinstance(row[name], str | None), row, name, "a string or null", where)
    _require(_is_share(row.get("score")), row, "score", "a number from 0 to 1", where)
    _require(row.get("stopped_by") in ("end", "length"), row, "stopped_by", '"end" or "length"', where)
    return Prediction(**{field.name: row[field.name] for field in fields(Prediction)})


def _require(holds: bool, row: Mapping[str, Any], name: str, allowed: str, where: str) -> None:
    """Raise the message of a wrong field unless the condition holds."""
    if not holds:
        found = repr(row[name])[:80] if name in row else "nothing"
        raise DataError(f"{where}: '{name}' must be {allowed}, found {found}. {EVALUATE}")


def _is_share(value: object) -> bool:
    """Tell whether a JSON value is a number from 0 to 1 (true and NaN are not)."""
    return type(value) in (int, float) and 0.0 <= value <= 1.0  # type: ignore[operator]
