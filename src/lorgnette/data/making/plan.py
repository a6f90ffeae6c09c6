"""What is still to be asked about which picture, and what it would cost. Sends nothing, needs no extra library."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lorgnette.data.making.log import Answer, Ledger, Prices, Tokens
from lorgnette.data.making.pictures import Picture, Pictures
from lorgnette.data.making.prompt import Prompt, Verdict, judge
from lorgnette.errors import InputError

REPAIRS = 1
USUAL_PAIR_TOKENS = 60
"""Tokens of a question with its answer, before the endpoint has said how many there are."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How an endpoint is asked.

    Attributes:
        max_cost: in the currency of `prices`; with `max_requests` it counts all calls that wrote into the same folder.
        max_tokens: most tokens of an answer.
        image_side: pictures are scaled down to it, in pixels.
        schema: whether the endpoint is sent the JSON schema; what it answers is held to it in any case.
        attempts: times that a request is sent in a row before its picture is left for the next call.
    """

    model: str
    prompt: Prompt
    base_url: str | None = None
    prices: Prices | None = None
    max_cost: float | None = None
    max_requests: int | None = None
    max_tokens: int = 2_000
    image_side: int = 1_024
    concurrency: int = 4
    timeout: float = 120.0
    schema: bool = True
    attempts: int = 6
    first_wait: float = 1.0

    def key(self, picture: Picture) -> str:
        """Name a question to the endpoint: content of the picture, prompt, model, size."""
        told = "\n".join([picture.sha256, self.model, str(self.image_side), self.prompt.ask])
        return hashlib.sha256(told.encode()).hexdigest()

    def open_ledger(self, out: Path) -> Ledger:
        """Read what earlier calls were answered and spent.

        Raises:
            InputError: if the cost is limited and the prices are unknown.
        """
        if self.max_cost is not None and self.prices is None:
            raise InputError("--max-cost needs --input-price and --output-price, in the same currency.")
        return Ledger(out / "requests.jsonl", self.prices, self.max_cost, self.max_requests)


def usable_answers(ledger: Ledger, picture: Picture, settings: Settings) -> list[Answer]:
    """Return what was answered about a picture; answers that a smaller `max_tokens` cut off do not count."""
    answers = ledger.answers.get(settings.key(picture), [])
    return [one for one in answers if one.finish_reason != "length" or one.max_tokens >= settings.max_tokens]


def settled(answers: list[Answer], prompt: Prompt) -> Verdict | None:
    """Judge the answers about a picture; None if it is to be asked, for the first time or to repair an answer."""
    if not answers:
        return None
    verdict = judge(answers[-1], prompt.pairs)
    return None if verdict.outcome == "invalid" and len(answers) <= REPAIRS else verdict


def estimate(picture: Picture, prompt: Prompt, answers: list[Answer], max_tokens: int) -> Tokens:
    """Estimate a request before it is sent: the picture, three bytes a token of text, and the longest answer."""
    texts = [prompt.ask, *(text for answer in answers for text in (answer.content or "", prompt.repair))]
    return Tokens(picture.tokens + sum(len(text.encode()) for text in texts) // 3, max_tokens)


def plan(pictures: Pictures, ledger: Ledger, settings: Settings) -> dict[str, Any]:
    """Say what a call would ask, and what it would cost: as measured so far, else as estimated."""
    todo = [one for one in pictures.unique if settled(usable_answers(ledger, one, settings), settings.prompt) is None]
    worst = sum((estimate(one, settings.prompt, [], settings.max_tokens) for one in todo), Tokens(0, 0))
    mean = ledger.mean_tokens()
    usual = settings.prompt.pairs * USUAL_PAIR_TOKENS
    expected = (
        Tokens(worst.input, usual * len(todo))
        if mean is None
        else Tokens(mean.input * len(todo), mean.output * len(todo))
    )
    prices = settings.prices
    # every answer is as long as it may be, cannot be used, is sent back, and is as long again
    repaired = worst + worst + Tokens(worst.output, 0)
    return {
        "to_ask": len(todo),
        "answered_already": len(pictures.unique) - len(todo),
        "measured": mean is not None,
        "expected_tokens": asdict(expected),
        "expected_cost": None if prices is None else prices.cost(expected),
        "worst_cost": None if prices is None else prices.cost(repaired),
        "spent": ledger.cost,
    }
