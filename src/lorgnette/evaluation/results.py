"""Answers to predictions.jsonl and result.json: rows with their scores, averages with their uncertainty.

Reads no model, so that answers of any tool can be scored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lorgnette.evaluation.intervals import wilson_interval
from lorgnette.evaluation.metrics.aggregate import AGGREGATES
from lorgnette.evaluation.schema import PREDICTIONS, RESULT, check_result
from lorgnette.evaluation.scoring import score_answers
from lorgnette.evaluation.tasks.task import Document, Score, Scored, Task
from lorgnette.run import write_json, write_json_lines

RESAMPLES = 1000
"""Bootstrap samples behind an interval; its ends then move by about a twentieth of its width."""


def write_result(
    folder: Path,
    task: Task,
    documents: Sequence[Document],
    asked: Sequence[Mapping[str, Any]],
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Score answers and write predictions.jsonl and result.json; return what the latter holds.

    Args:
        asked: for every document `prompt`, `answer`, `raw`, `seconds` and `stopped_by`.
        about: what made the answers, as the schema names it; `counts` and `warnings` are added to the task's own.

    Raises:
        DataError: if the task cannot score an answer.
    """
    scored = score_answers(task, documents, [row["answer"] for row in asked])
    predictions = [
        prediction(document, row, score, task.metric)
        for document, row, score in zip(documents, asked, scored.rows, strict=True)
    ]
    result = {"task": task.name} | summarise(task.metric, predictions, scored) | dict(about)
    result["counts"] = dict(scored.counts) | dict(about.get("counts", {}))
    result["warnings"] = [*scored.warnings, *about.get("warnings", ())]
    check_result(result, predictions)
    write_json_lines(folder / PREDICTIONS, predictions)
    write_json(folder / RESULT, result)
    return result


def fingerprint_of(documents: Sequence[Document], images: Mapping[str, str]) -> str:
    """Hash what is asked: texts, references, and of the images what `images` says of their contents."""
    content = [
        [d.id, d.question, d.reference, d.kind, dict(d.groups), dict(d.fields), dict(d.choices)]
        + [images.get(path) for path in d.images]
        for d in documents
    ]
    return f"sha256:{hashlib.sha256(json.dumps(content).encode()).hexdigest()}"


def prediction(document: Document, asked: Mapping[str, Any], score: Score, metric: str) -> dict[str, Any]:
    """Return a line of predictions.jsonl.

    Args:
        asked: `prompt`, `answer`, `raw`, `seconds` and `stopped_by`.
    """
    reference = document.reference
    row: dict[str, Any] = {
        "id": document.id,
        "kind": document.kind,
        "groups": dict(document.groups),
        "image": document.images[0] if document.images else None,
        "question": document.question,
        "prompt": asked["prompt"],
        "reference": reference if isinstance(reference, str) else list(reference),
        "answer": asked["answer"],
        "raw": asked["raw"],
        "read": bool(asked["answer"].strip()) if score.read is None else bool(score.read),
        "score": float(score.scores[metric]),
        "scores": {name: float(value) for name, value in score.scores.items()},
    }
    if score.parts:
        row["parts"] = {name: [float(value) for value in values] for name, values in score.parts.items()}
    return row | {"seconds": asked["seconds"], "stopped_by": asked["stopped_by"]}


def summarise(metric: str, predictions: Sequence[Mapping[str, Any]], scored: Scored) -> dict[str, Any]:
    """Average the scores over all documents, per kind and per group, and compute the metrics of the whole corpus.

    The interval of a mean is Wilson's where every score is at an end of its scale or all are equal (`wilson_interval`);
    all others, and those of corpus metrics, are percentile bootstraps over rows, which stay within the scale. All at
    95 %.
    """
    scores = _scores(predictions, scored)
    groupings = dict.fromkeys(name for row in predictions for name in row["groups"])
    cut = sum(row["stopped_by"] == "length" for row in predictions)
    unread = sum(not row["read"] for row in predictions)
    return {
        "metric": metric,
        "n": len(predictions),
        **{name: scores[metric][name] for name in ("score", "stderr", "interval")},
        "kinds": _groups(predictions, [row["kind"] for row in predictions]),
        "groups": {name: _groups(predictions, [row["groups"].get(name) for row in predictions]) for name in groupings},
        "scores": scores,
        "counts": dict(scored.counts),
        "warnings": list(scored.warnings),
        "stopped_by_length": cut,
        "stopped_by_length_share": cut / len(predictions),
        "unread": unread,
        "unread_share": unread / len(predictions),
    }


def _scores(predictions: Sequence[Mapping[str, Any]], scored: Scored) -> dict[str, Any]:
    found: dict[str, Any] = {}
    corpus = dict.fromkeys(name for row in predictions for name in row.get("parts", {}))
    for name in dict.fromkeys([*(name for row in predictions for name in row["scores"]), *corpus]):
        if name in corpus:
            found[name] = _of_corpus(name, [row["parts"][name] for row in predictions if name in row.get("parts", {})])
        else:
            rows = [row["scores"][name] for row in predictions if name in row["scores"]]
            found[name] = _of_mean(np.array(rows), scored.highest.get(name))
        if name in scored.notes:
            found[name]["note"] = scored.notes[name]
    return found


def _of_mean(scores: np.ndarray, highest: float | None) -> dict[str, Any]:
    mean, deviation = float(scores.mean()), float(scores.std(ddof=1)) if len(scores) > 1 else 0.0
    stderr = deviation / len(scores) ** 0.5
    found = wilson_interval(scores, 1.0 if highest is None else highest)
    interval = _bootstrapped(_drawn(scores, np.mean)) if found is None else list(found)
    made = {"score": mean, "stderr": stderr, "interval": interval, "n": len(scores), "aggregate": "mean"}
    return made if highest is None else made | {"highest": highest}


def _of_corpus(name: str, rows: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Compute a corpus metric and, by drawing rows with replacement, its uncertainty."""
    statistics = np.array(rows, dtype=np.float64)
    drawn = _drawn(statistics, AGGREGATES[name])
    return {
        "score": AGGREGATES[name](statistics),
        "stderr": float(drawn.std(ddof=1)),
        "interval": _bootstrapped(drawn),
        "n": len(rows),
        "aggregate": name,
    }


def _drawn(rows: np.ndarray, value: Callable[[np.ndarray], float]) -> np.ndarray:
    """Compute a value on rows drawn with replacement, `RESAMPLES` times; the seed is fixed."""
    random, n = np.random.default_rng(0), len(rows)
    return np.array([value(rows[random.integers(0, n, n)]) for _ in range(RESAMPLES)])


def _bootstrapped(drawn: np.ndarray) -> list[float]:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return [float(low), float(high)]


def _groups(predictions: Sequence[Mapping[str, Any]], names: Sequence[str | None]) -> dict[str, Any]:
    """Average the main score of the rows of each name; rows without a name are in none."""
    members: dict[str, list[float]] = {}
    for row, name in zip(predictions, names, strict=True):
        if name is not None:
            members.setdefault(name, []).append(row["score"])
    return {name: {"n": len(members[name]), "score": float(np.mean(members[name]))} for name in sorted(members)}
