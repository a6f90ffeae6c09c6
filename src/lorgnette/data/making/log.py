"""The log of a paid endpoint: every request before it is sent, every answer before it is used.

A kill at any moment loses no answer that was paid for, and the limits on money and requests count what earlier calls
spent. One line an event, brought to the disk before the work goes on; the file is only ever added to.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lorgnette.errors import DataError


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of a request."""

    input: int
    output: int

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(self.input + other.input, self.output + other.output)

    def __sub__(self, other: Tokens) -> Tokens:
        return Tokens(self.input - other.input, self.output - other.output)


@dataclass(frozen=True, slots=True)
class Prices:
    """What a million tokens cost, in any currency."""

    input: float
    output: float

    def cost(self, tokens: Tokens) -> float:
        """Return what tokens cost."""
        return (tokens.input * self.input + tokens.output * self.output) / 1e6


@dataclass(frozen=True, slots=True)
class Answer:
    """What an endpoint answered; `tokens` if it says what it charges."""

    content: str | None
    refusal: str | None
    finish_reason: str | None
    max_tokens: int
    tokens: Tokens | None


class Ledger:
    """The log, what is known from it, and what may still be spent.

    A request that was sent and neither answered nor refused may have been charged: it counts with its estimate. So does
    an answer whose endpoint says nothing of tokens.

    Attributes:
        answers: key -> answers, in their order.
        requests: requests ever sent.
        measured: tokens that the endpoint has counted; `estimated`: those of the other requests.
        failures: key -> why the last request about it failed, if no answer came after it.
    """

    def __init__(
        self, file: Path, prices: Prices | None, max_cost: float | None = None, max_requests: int | None = None
    ) -> None:
        """Read a log, or begin one with the first request.

        Raises:
            DataError: if a line of it is damaged; a last line that a kill cut off does not count.
        """
        self.file = file
        self.prices = prices
        self.max_cost = max_cost
        self.max_requests = max_requests
        self.answers: dict[str, list[Answer]] = defaultdict(list)
        self.failures: dict[str, str] = {}
        self.requests = 0
        self.measured = self.estimated = Tokens(0, 0)
        self._estimates: dict[int, Tokens] = {}
        self._understated = 1.0
        lines = file.read_bytes().splitlines(keepends=True) if file.exists() else []
        if lines and not lines[-1].endswith(b"\n"):
            del lines[-1]  # a kill cut it off, or another process is writing it: it goes when we write ourselves
        self._whole_bytes: int | None = sum(map(len, lines))
        for number, line in enumerate(lines, start=1):
            try:
                self._apply(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise DataError(
                    f"{file}, line {number}: no event of this log ({error!r:.200}). Next: restore the file, or choose "
                    "another folder; without it every picture is paid again."
                ) from error

    @property
    def tokens(self) -> Tokens:
        """All tokens so far, estimates included."""
        return self.measured + self.estimated

    @property
    def unmeasured(self) -> int:
        """How many requests count with an estimate."""
        return len(self._estimates)

    @property
    def cost(self) -> float | None:
        """What all requests cost, if prices are known."""
        return None if self.prices is None else self.prices.cost(self.tokens)

    def mean_tokens(self) -> Tokens | None:
        """Return what a picture took on average, if the endpoint has said so."""
        number = sum(any(answer.tokens is not None for answer in answers) for answers in self.answers.values())
        return Tokens(self.measured.input // number, self.measured.output // number) if number else None

    def limit(self, estimate: Tokens) -> str:
        """Name the limit that a request could exceed if its answer becomes as long as it may, or "".

        Estimates of the input are corrected by the largest error that was seen.
        """
        if self.max_requests is not None and self.requests >= self.max_requests:
            return "--max-requests"
        if self.max_cost is None or self.prices is None:
            return ""
        worst = Tokens(round(estimate.input * self._understated), estimate.output)
        return "--max-cost" if self.prices.cost(self.tokens + worst) > self.max_cost else ""

    def sent(self, key: str, image: str, estimate: Tokens) -> int:
        """Write down that a request is about to be sent; return its number."""
        number = self.requests
        self._append({"event": "sent", "request": number, "key": key, "image": image, "estimate": asdict(estimate)})
        return number

    def answered(self, number: int, key: str, answer: Answer) -> None:
        """Write down an answer."""
        self._append({"event": "answered", "request": number, "key": key, "answer": asdict(answer)})

    def failed(self, number: int, key: str, reason: str, *, charged: bool, final: bool = False) -> None:
        """Write down that a request got no answer. `final` means that it never will, and is not to be asked again."""
        row = {"event": "failed", "request": number, "key": key, "reason": reason, "charged": charged, "final": final}
        self._append(row)

    def _append(self, row: dict[str, Any]) -> None:
        line = (json.dumps(row, ensure_ascii=True) + "\n").encode()
        with self.file.open("ab", buffering=0) as stream:
            if self._whole_bytes is not None:
                stream.truncate(self._whole_bytes)
                self._whole_bytes = None
            stream.write(line)
            os.fsync(stream.fileno())
        self._apply(row)

    def _apply(self, row: dict[str, Any]) -> None:
        """Take an event into account."""
        key, number = row["key"], row["request"]
        if row["event"] == "sent":
            self.requests += 1
            self._estimates[number] = Tokens(**row["estimate"])
            self.estimated += self._estimates[number]
        elif row["event"] == "answered":
            tokens = row["answer"]["tokens"]
            answer = Answer(**{**row["answer"], "tokens": None if tokens is None else Tokens(**tokens)})
            self.answers[key].append(answer)
            self.failures.pop(key, None)
            if answer.tokens is not None:
                estimate = self._forget_estimate(number)
                self.measured += answer.tokens
                self._understated = max(self._understated, answer.tokens.input / max(1, estimate.input))
        elif row["event"] == "failed":
            self.failures[key] = row["reason"]
            if row["final"]:
                self.answers[key].append(Answer(None, row["reason"], None, 0, None))
            if not row["charged"]:
                self._forget_estimate(number)
        else:
            raise KeyError(row["event"])

    def _forget_estimate(self, number: int) -> Tokens:
        estimate = self._estimates.pop(number)
        self.estimated -= estimate
        return estimate
