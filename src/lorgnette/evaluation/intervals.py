"""The interval of a mean score where the scores themselves say too little for a bootstrap, or need none.

Knows one list of scores and the end of their scale. What is drawn from equal scores is always the same, so a bootstrap
would claim to be certain after three answers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import norm


def wilson_interval(scores: npt.ArrayLike, highest: float = 1.0) -> tuple[float, float] | None:
    """Compute the 95 % interval of a mean from Wilson's, or return None where a bootstrap is the better way.

    Where every score is at an end of the scale, the mean is a share: Wilson's interval of it (Wilson 1927, doi
    10.1080/01621459.1927.10502953). It holds for graded scores, too: none vary more within the scale.

    Where all n scores are the same v, at most the share u of documents has another one, with u the upper end of
    Wilson's interval for 0 of n. The furthest that these can be from v is an end of the scale, so the mean is within
    [v - u v, v + u (highest - v)]. At an end of the scale both are the same interval.

    Args:
        scores: (N,), from 0 to `highest`.
        highest: the most that a document can get; scores above it, or below 0, stretch the scale.
    """
    values = np.asarray(scores, dtype=np.float64)
    if np.isin(values, (0.0, highest)).all():
        low, high = _of_share(values.size, float(np.count_nonzero(values)) / values.size)
        return low * highest, high * highest
    if (values == values[0]).all():
        same, others = float(values[0]), _of_share(values.size, 0.0)[1]
        return same - others * (same - min(0.0, same)), same + others * (max(highest, same) - same)
    return None


def _of_share(n: int, share: float) -> tuple[float, float]:
    z = float(norm.ppf(0.975))
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)
