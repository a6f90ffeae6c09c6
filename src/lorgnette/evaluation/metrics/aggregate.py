"""Metrics of a whole corpus, from the numbers that every answer adds.

Rows' `parts` in predictions.jsonl are enough to compute them again on any choice of rows, as a bootstrap does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

Parts = Sequence[Sequence[float]] | np.ndarray
"""(rows, numbers): what every row adds."""

Aggregate = Callable[[Parts], float]

AGGREGATES: Mapping[str, Aggregate] = {}
"""Metric name -> function of the rows' parts of that name: (rows, numbers) -> the corpus's value."""
