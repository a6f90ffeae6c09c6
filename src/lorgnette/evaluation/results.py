"""Scores of single answers to a result with its uncertainty. Reads no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import norm


def summarise(metric: str, predictions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Average the scores, over all documents and per kind.

    The interval is Wilson's for scores that are 0 or 1 (Wilson 1927, doi 10.1080/01621459.1927.10502953), else the
    normal approximation; both at 95 %.
    """
    scores = np.array([prediction["score"] for prediction in predictions], dtype=np.float64)
    kinds = sorted({prediction["kind"] for prediction in predictions})
    mean, deviation = float(scores.mean()), float(scores.std(ddof=1)) if len(scores) > 1 else 0.0
    stderr = deviation / len(scores) ** 0.5
    return {
        "metric": metric,
        "n": len(scores),
        "score": mean,
        "stderr": stderr,
        "interval": _interval(scores, mean, stderr),
        "kinds": {kind: _kind(kind, predictions) for kind in kinds},
        "stopped_by_length": sum(prediction["stopped_by"] == "length" for prediction in predictions),
        "unread": sum(not prediction["answer"] for prediction in predictions),
    }


def _kind(kind: str, predictions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    scores = [prediction["score"] for prediction in predictions if prediction["kind"] == kind]
    return {"n": len(scores), "score": float(np.mean(scores))}


def _interval(scores: np.ndarray, mean: float, stderr: float) -> list[float]:
    z = float(norm.ppf(0.975))
    if not np.isin(scores, (0.0, 1.0)).all():
        return [mean - z * stderr, mean + z * stderr]
    n = len(scores)
    centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (mean * (1 - mean) / n + z * z / (4 * n * n)) ** 0.5
    return [max(0.0, centre - half), min(1.0, centre + half)]
