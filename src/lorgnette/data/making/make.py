"""Make questions and answers about pictures, with any vision model behind an OpenAI-compatible address.

Asks about each content once, and leaves a LLaVA file, a page for a person to look through, and the log that all of it
can be made from again. What was answered is never asked again.
"""

from __future__ import annotations

import asyncio
import unicodedata
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console

from lorgnette.data.making.log import Ledger
from lorgnette.data.making.pictures import Pictures
from lorgnette.data.making.plan import Settings, settled, usable_answers
from lorgnette.data.making.prompt import Pair
from lorgnette.data.making.review import Card, write_review
from lorgnette.data.sample import IMAGE_TAG
from lorgnette.errors import LorgnetteError, MissingExtra, RunError
from lorgnette.progress import progress_bar
from lorgnette.run import write_json


def make(pictures: Pictures, out: Path, settings: Settings, console: Console) -> dict[str, Any]:
    """Ask about the pictures that are not answered yet, and write everything that is known by then.

    Returns:
        What `made.json` holds: counts of pictures and pairs, requests, tokens, cost.

    Raises:
        InputError: if key, address or model are wrong, or the limits make no sense.
        RunError: if the endpoint does not answer, or all was asked and there is not a single usable pair. What is known
            is written before.
    """
    out.mkdir(parents=True, exist_ok=True)
    ledger = settings.open_ledger(out)
    todo = [one for one in pictures.unique if settled(usable_answers(ledger, one, settings), settings.prompt) is None]
    stopped, failure = "", None
    if todo:
        try:
            from lorgnette.data.making.asking import ask_all  # noqa: PLC0415
        except ImportError as error:
            raise MissingExtra(error.name or "openai", "make") from error
        with progress_bar(console) as progress:
            task = progress.add_task("asking", total=len(todo))
            try:
                stopped = asyncio.run(ask_all(todo, ledger, settings, pictures.broken, lambda: progress.advance(task)))
            except LorgnetteError as error:
                failure = error
    if failure is not None and not any(settings.key(one) in ledger.answers for one in todo):
        raise failure  # there is nothing new: what an earlier call has written stays
    made = write_made(pictures, ledger, settings, out, stopped)
    if failure is not None:
        raise failure
    if not made["pictures"]["with pairs"] and not made["pictures"]["not asked yet"]:
        raise RunError(f"Not a single pair can be used. Next: see why in {out / 'review.html'}")
    return made


def write_made(pictures: Pictures, ledger: Ledger, settings: Settings, out: Path, stopped: str) -> dict[str, Any]:
    """Write `dataset.json`, `review.html` and `made.json` from what the log knows."""
    counts: Counter[str] = Counter()
    rows, cards = [], []
    for picture in pictures.unique:
        if picture.name in pictures.broken:
            continue
        answers = usable_answers(ledger, picture, settings)
        verdict = settled(answers, settings.prompt)
        failure = ledger.failures.get(settings.key(picture))
        if verdict is None:
            counts["no answer" if failure else "not asked yet"] += 1
            if failure:
                cards.append(Card(picture.name, picture.path, (), f"no answer: {failure}"))
        elif verdict.outcome == "pairs":
            pairs, repeated = without_repetitions(verdict.pairs)
            counts.update({"with pairs": 1, "pairs": len(pairs), "repeated": repeated, "repaired": len(answers) > 1})
            rows.append(_row(picture.name, pairs))
            cards.append(Card(picture.name, picture.path, pairs, ""))
        else:
            counts[verdict.outcome] += 1
            cards.append(Card(picture.name, picture.path, (), f"{verdict.outcome}: {verdict.reason}"))
    cards += [Card(name, None, (), f"broken: {reason}") for name, reason in pictures.broken.items()]
    made = {
        "model": settings.model,
        "base_url": _without_user(settings.base_url),
        "prompt": settings.prompt.ask,
        "image_side": settings.image_side,
        "images": str(pictures.root),
        "pictures": {
            "with pairs": counts["with pairs"],
            "with repaired pairs": counts["repaired"],
            "refused": counts["refused"],
            "invalid": counts["invalid"],
            "cut off": counts["cut"],
            "without an answer": counts["no answer"],
            "not asked yet": counts["not asked yet"],
            "that are copies": len(pictures.copies),
            "held out": len(pictures.held_out),
            "broken": len(pictures.broken),
        },
        "pairs": counts["pairs"],
        "repeated_questions": counts["repeated"],
        "requests": ledger.requests,
        "requests_with_estimated_tokens": ledger.unmeasured,
        "tokens": asdict(ledger.tokens),
        "cost": ledger.cost,
        "stopped_by": stopped,
    }
    write_json(out / "dataset.json", rows)
    write_review(out / "review.html", made, cards)
    write_json(out / "made.json", made)
    return made


def without_repetitions(pairs: tuple[Pair, ...]) -> tuple[tuple[Pair, ...], int]:
    """Leave out questions that were asked about the picture before, in other case or punctuation; count them."""
    first: dict[str, Pair] = {}
    for pair in pairs:
        first.setdefault(plain(pair.question), pair)
    return tuple(first.values()), len(pairs) - len(first)


def plain(text: str) -> str:
    """Return the letters and digits of a text, without case and without differences that nobody sees."""
    return "".join(letter for letter in unicodedata.normalize("NFKC", text).casefold() if letter.isalnum())


def _row(name: str, pairs: tuple[Pair, ...]) -> dict[str, Any]:
    turns = []
    for number, pair in enumerate(pairs):
        tag = f"{IMAGE_TAG}\n" if number == 0 else ""
        turns += [{"from": "human", "value": tag + pair.question}, {"from": "gpt", "value": pair.answer}]
    return {"id": name, "image": name, "conversations": turns}


def _without_user(url: str | None) -> str | None:
    """Leave out what may be secret in an address."""
    if url is None:
        return None
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"
