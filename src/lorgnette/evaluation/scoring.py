"""Answers to scores: runs a task's own scoring and checks what it gives. Reads no model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lorgnette.errors import DataError, LorgnetteError
from lorgnette.evaluation.metrics.aggregate import AGGREGATES
from lorgnette.evaluation.tasks.task import Document, Score, Scored, SetTask, Task


def score_answers(task: Task, documents: Sequence[Document], answers: Sequence[str]) -> Scored:
    """Score the answers to some documents of a task.

    Raises:
        DataError: if the task's scoring raises, or gives anything but scores.
        MissingExtra: if a metric needs a library that is not installed.
    """
    if not isinstance(task, SetTask):
        return Scored([_row(task, *pair) for pair in zip(documents, answers, strict=True)])
    try:
        scored = task.score_all(documents, answers)
    except LorgnetteError:
        raise
    except (Exception, SystemExit) as error:  # a task is the user's own code
        raise DataError(f"task {task.name}: score_all() raised {error!r}.") from error
    if not isinstance(scored, Scored) or len(scored.rows) != len(documents):
        raise DataError(f"task {task.name}: score_all() gave {scored!r:.80}. Allowed: a Scored with a row an answer.")
    for name, most in scored.highest.items():
        if isinstance(most, bool) or not isinstance(most, int | float) or not 0 < most < math.inf:
            raise DataError(f"task {task.name}: score_all() gave {most!r:.80} as highest {name}. Allowed: above 0.")
    for document, row in zip(documents, scored.rows, strict=True):
        _check(row, task.metric, math.inf, f"task {task.name}, document {document.id}: score_all()")
    return scored


def _row(task: Any, document: Document, answer: str) -> Score:
    where = f"task {task.name}, document {document.id}: score()"
    try:
        given = task.score(document, answer)
    except LorgnetteError:
        raise
    except (Exception, SystemExit) as error:  # a task is the user's own code
        raise DataError(f"{where} raised {error!r}.") from error
    row = given if isinstance(given, Score) else Score({task.metric: given})
    _check(row, task.metric, 1.0, where)
    return row


def _check(row: Any, metric: str, most: float, where: str) -> None:
    """Refuse what cannot be written to a result, or would be NaN in its mean."""
    if not isinstance(row, Score) or metric not in row.scores:
        raise DataError(f"{where} gave {row!r:.200}. Allowed: a Score that has {metric}.")
    for value in row.scores.values():
        if not isinstance(value, int | float | np.floating) or not 0 <= value <= most or math.isinf(value):
            allowed = "0.0 to 1.0" if most == 1 else "a number from 0"
            raise DataError(f"{where} gave {value!r}. Allowed: {allowed}.")
    if row.read not in (None, True, False):
        raise DataError(f"{where} gave read {row.read!r:.80}. Allowed: true, false, or none where it is not known.")
    unknown = [name for name in row.parts if name not in AGGREGATES]
    if unknown or metric in row.parts:
        name = unknown[0] if unknown else metric
        raise DataError(f"{where} gave parts of {name}. Allowed: {', '.join(AGGREGATES)}; never the main metric.")
