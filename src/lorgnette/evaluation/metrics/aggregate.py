"""Metrics of a whole corpus, from the numbers that every answer adds.

Rows' `parts` in predictions.jsonl are enough to compute them again on any choice of rows, as a bootstrap does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from lorgnette.evaluation.metrics import coco_captions, text

Statistics = Sequence[Sequence[float]] | np.ndarray
"""(rows, numbers): what every row adds."""

Aggregate = Callable[[Statistics], float]


def bleu_of_captions(statistics: Statistics, order: int) -> float:
    """Return coco-caption's BLEU from `bleu_statistics` of every caption."""
    return coco_captions.bleu_from_statistics(np.sum(statistics, axis=0).tolist(), order)


def meteor_of_captions(statistics: Statistics) -> float:
    """Return METEOR 1.5 of a corpus from the statistics of every caption."""
    return coco_captions.meteor_from_statistics(np.sum(statistics, axis=0).tolist())


def sacrebleu(statistics: Statistics) -> float:
    """Return sacreBLEU's corpus BLEU, 0 to 100, from `sacrebleu_statistics` of every answer."""
    return text.sacrebleu_from_statistics(np.sum(statistics, axis=0).tolist())


def chrf(statistics: Statistics) -> float:
    """Return sacreBLEU's corpus chrF, 0 to 100, from `chrf_statistics` of every answer."""
    return text.chrf_from_statistics(np.sum(statistics, axis=0).tolist())


def mean_of_kinds(statistics: Statistics) -> float:
    """Return the mean over kinds of each kind's mean score; rows are (number of the kind, score)."""
    kinds, scores = np.asarray(statistics, dtype=np.float64).T
    return float(np.mean([scores[kinds == kind].mean() for kind in np.unique(kinds)]))


AGGREGATES: Mapping[str, Aggregate] = {
    **{f"bleu_{order}": partial(bleu_of_captions, order=order) for order in range(1, coco_captions.ORDERS + 1)},
    "meteor_1_5": meteor_of_captions,
    "sacrebleu": sacrebleu,
    "chrf": chrf,
    "average_accuracy": mean_of_kinds,
}
"""Metric name -> function of the rows' statistics of that name: (rows, numbers) -> the corpus's value."""
SCALES: Mapping[str, int] = {"sacrebleu": 100, "chrf": 100, "cider": 10, "cider_d": 10}
"""Metrics that do not end at 1, and where they end."""


def metric_text(metric: str) -> str:
    """Return what tables call a metric: with the end of its scale where that is not 1."""
    return f"{metric} (of {SCALES[metric]})" if metric in SCALES else metric
