"""How numbers and names of a comparison are written, the same in the terminal and on the page."""

from __future__ import annotations

from lorgnette.comparison.statistics import Interval


def score_text(score: float) -> str:
    """Format a score: 0.913."""
    return f"{score:.3f}"


def difference_text(difference: float) -> str:
    """Format a difference with its sign: +0.840. What rounds to zero has a plus, never a minus."""
    return f"{round(difference, 3) + 0.0:+.3f}"


def interval_text(interval: Interval) -> str:
    """Format an interval of a difference: +0.820 to +0.860."""
    return f"{difference_text(interval.low)} to {difference_text(interval.high)}"


def p_text(p: float) -> str:
    """Format a p-value: 0.021, or `< 0.001`."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def printable(text: str) -> str:
    """Replace control characters, which could otherwise drive a terminal or break a drawing."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
