"""How long to wait before a server is asked again: as long as it says, or longer each time."""

from __future__ import annotations

import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime

from tenacity import RetryCallState, wait_exponential, wait_random

LONGEST_WAIT = 120.0
"""Seconds. A server that asks for a longer pause (a daily quota is used up) is not asked again by this call."""


class Interrupted(Exception):
    """A request that failed and may work the next time.

    Attributes:
        reason: what happened, in a few words.
        wait: how many seconds the server asks us to wait, if it says so.
        charged: whether a paid endpoint may have done the work before it failed.
        progressed: whether the failed attempt brought part of the answer.
    """

    def __init__(
        self, reason: str, *, wait: float | None = None, charged: bool = False, progressed: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait = wait
        self.charged = charged
        self.progressed = progressed


def is_transient(status: int) -> bool:
    """Tell whether an HTTP status says "later" rather than "never"."""
    return status in (408, 409, 425, 429) or status >= 500


def retry_after(header: str | None) -> float | None:
    """Read the `Retry-After` header: seconds, or a date (RFC 9110, section 10.2.3). Unreadable ones are ignored."""
    if header is None:
        return None
    try:
        return max(0.0, float(header)) if header.strip().isdecimal() else _seconds_until(header)
    except (ValueError, TypeError, OverflowError):
        return None


def _seconds_until(date: str) -> float:
    return max(0.0, parsedate_to_datetime(date).timestamp() - time.time())


def waiting(first: float) -> Callable[[RetryCallState], float]:
    """Give tenacity's `wait`: what the server asked for, else `first` seconds doubled each time, with jitter."""
    growing = wait_exponential(multiplier=first, max=60.0) + wait_random(0.0, first)

    def wait(state: RetryCallState) -> float:
        error = interruption(state)
        return error.wait if error is not None and error.wait is not None else growing(state)

    return wait


def stopping(attempts: int) -> Callable[[RetryCallState], bool]:
    """Give tenacity's `stop`: `attempts` in a row brought nothing, or the server wants to be left alone for long."""
    fruitless = 0

    def stop(state: RetryCallState) -> bool:
        nonlocal fruitless
        error = interruption(state)
        fruitless = 0 if error is not None and error.progressed else fruitless + 1
        return fruitless >= attempts or (error is not None and (error.wait or 0.0) > LONGEST_WAIT)

    return stop


def interruption(state: RetryCallState) -> Interrupted | None:
    """Return what ended the last attempt, if it was an interruption."""
    error = state.outcome.exception() if state.outcome is not None else None
    return error if isinstance(error, Interrupted) else None
