"""Ask an endpoint about many pictures at a time: within the limits, again where it may help, and nothing twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tenacity import AsyncRetrying, retry_if_exception_type

from lorgnette.data.making.endpoint import Endpoint, Rejected, ask, connect
from lorgnette.data.making.log import Answer, Ledger, Tokens
from lorgnette.data.making.pictures import Picture, sent_url
from lorgnette.data.making.plan import Settings, estimate, settled, usable_answers
from lorgnette.data.making.prompt import messages, response_format
from lorgnette.data.retrying import Interrupted, stopping, waiting
from lorgnette.errors import DataError, InputError, LorgnetteError, RunError

MOST_REJECTED = 3
"""So many requests refused as malformed before the first answer: the requests are wrong, not the pictures."""

MOST_SILENT = 5
"""So many pictures in a row without an answer: the endpoint is down."""


class _Stop(Exception):
    """A limit is reached."""


@dataclass
class _Work:
    """What the workers share; they take turns within one thread."""

    endpoint: Endpoint
    ledger: Ledger
    settings: Settings
    broken: dict[str, str]
    stopped: str = ""
    in_flight: int = 0
    answered: int = 0
    rejected: int = 0
    silent: int = 0
    finished: asyncio.Condition = field(default_factory=asyncio.Condition)


async def ask_all(
    pictures: Sequence[Picture],
    ledger: Ledger,
    settings: Settings,
    broken: dict[str, str],
    advance: Callable[[], None],
) -> str:
    """Ask about pictures, `settings.concurrency` at a time; return which limit ended it, or "".

    What is answered is in the ledger; pictures that cannot be decoded are added to `broken`.

    Raises:
        InputError: if key, address, model or the form of the requests are wrong.
        RunError: if the endpoint is down or the account is used up.
    """
    left = iter(pictures)
    async with connect(
        settings.model,
        settings.base_url,
        timeout=settings.timeout,
        max_tokens=settings.max_tokens,
        response_format=response_format() if settings.schema else None,
    ) as endpoint:
        work = _Work(endpoint, ledger, settings, broken)

        async def one_after_another() -> None:
            for picture in left:
                if work.stopped:
                    return
                await _ask_about(work, picture)
                advance()

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(settings.concurrency):
                    group.create_task(one_after_another())
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
    return work.stopped


async def _ask_about(work: _Work, picture: Picture) -> None:
    """Ask about one picture until its answer is settled; what became of it is in the log."""
    prompt = work.settings.prompt
    answers = usable_answers(work.ledger, picture, work.settings)
    again = AsyncRetrying(
        stop=stopping(work.settings.attempts),
        wait=waiting(work.settings.first_wait),
        retry=retry_if_exception_type(Interrupted),
        reraise=True,
    )
    try:
        url = await asyncio.to_thread(sent_url, picture.path, work.settings.image_side)
        while settled(answers, prompt) is None:
            said = messages(prompt, url, answers)
            expected = estimate(picture, prompt, answers, work.settings.max_tokens)
            answers.append(await again(_send, work, picture, said, expected))
            work.silent = 0
    except _Stop:
        return
    except DataError as error:
        work.broken[picture.name] = str(error)
    except Rejected as error:
        work.rejected += not error.filtered
        if work.rejected >= MOST_REJECTED and not work.answered:
            raise InputError(
                f"The endpoint refuses the requests themselves ({error}). Next: try --no-schema, another --model or a "
                "smaller --image-side."
            ) from error
    except Interrupted as error:
        work.silent += 1
        if work.silent >= MOST_SILENT:
            raise RunError(
                f"The endpoint left {work.silent} pictures in a row without an answer (the last time: {error.reason}). "
                "Nothing is lost. Next: call the same command when it works again."
            ) from error


async def _send(work: _Work, picture: Picture, said: list[dict[str, Any]], expected: Tokens) -> Answer:
    """Send one request and write down what became of it.

    A request that others in flight may leave no money for waits until they have said what they cost. Where money is
    limited, the very first one is alone: it shows how wrong the estimates are.
    """
    key, ledger = work.settings.key(picture), work.ledger
    async with work.finished:
        while True:
            limit = ledger.limit(expected)
            if limit and (work.in_flight == 0 or limit == "--max-requests"):
                work.stopped = limit
                raise _Stop
            blind = work.settings.max_cost is not None and not work.answered
            if not limit and not (blind and work.in_flight):
                break
            await work.finished.wait()
        work.in_flight += 1
        number = ledger.sent(key, picture.name, expected)
    try:
        answer = await ask(work.endpoint, said)
        ledger.answered(number, key, answer)
        work.answered += 1
        return answer
    except Interrupted as error:
        ledger.failed(number, key, error.reason, charged=error.charged)
        raise
    except (Rejected, LorgnetteError) as error:
        final = isinstance(error, Rejected) and error.filtered
        ledger.failed(number, key, str(error), charged=False, final=final)
        raise
    finally:
        async with work.finished:
            work.in_flight -= 1
            work.finished.notify_all()
