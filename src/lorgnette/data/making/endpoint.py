"""Ask an OpenAI-compatible endpoint once, and say what kind of failure it was.

The official client does the talking; trying again is left to the caller, because every attempt counts against the
user's limits and has to be written down before it is made.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import openai
from pydantic import BaseModel, Field, ValidationError

from lorgnette.data.making.log import Answer, Tokens
from lorgnette.data.retrying import Interrupted, is_transient, retry_after
from lorgnette.errors import InputError, RunError

MOST_REPLY_BYTES = 8 << 20
KEY = "OPENAI_API_KEY"
FILTERED = {"content_filter", "content_policy_violation"}


class Rejected(Exception):
    """The endpoint refuses a request, and would again; `filtered` if because of what the picture shows."""

    def __init__(self, reason: str, *, filtered: bool) -> None:
        super().__init__(reason)
        self.filtered = filtered


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)


class _Reply(BaseModel):
    """The part of a chat completion that we read; whatever else an endpoint sends is ignored."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A client and what goes with every request."""

    client: openai.AsyncOpenAI
    model: str
    max_tokens: int
    response_format: dict[str, Any] | None


@asynccontextmanager
async def connect(
    model: str, base_url: str | None, *, timeout: float, max_tokens: int, response_format: dict[str, Any] | None
) -> AsyncIterator[Endpoint]:
    """Open an endpoint; the key is in the environment. No redirects: pictures go where the user said and nowhere else.

    Raises:
        InputError: if there is no key.
    """
    key = os.environ.get(KEY)
    if not key:
        raise InputError(f"{KEY} is not set in the environment. Next: export {KEY}=...; a local server takes any text.")
    http = openai.DefaultAsyncHttpxClient(
        event_hooks={"response": [_bound]}, follow_redirects=False, headers={"Accept-Encoding": "identity"}
    )
    async with openai.AsyncOpenAI(
        api_key=key, base_url=base_url, max_retries=0, timeout=timeout, http_client=http
    ) as client:
        yield Endpoint(client, model, max_tokens, response_format)


class _Bounded(httpx2.AsyncByteStream):
    """A body that breaks off when it becomes too long for what it should be."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self.stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self.stream:
            size += len(chunk)
            if size > MOST_REPLY_BYTES:
                raise httpx2.ReadError(f"more than {MOST_REPLY_BYTES:,} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self.stream.aclose()


async def _bound(response: httpx2.Response) -> None:
    """Bound a response before any of it is read; one that is compressed although we refused that could be a bomb."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise httpx2.DecodingError("a compressed reply, which was not asked for")
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    response.stream = _Bounded(response.stream)


async def ask(endpoint: Endpoint, said: list[Any]) -> Answer:
    """Send one request.

    Raises:
        Interrupted: if it may work the next time.
        Rejected: if this request will not work as it is; others may.
        InputError: if key, model or address are wrong.
        RunError: if the account is used up.
    """
    options: dict[str, Any] = {"max_completion_tokens": endpoint.max_tokens}
    if endpoint.response_format is not None:
        options["response_format"] = endpoint.response_format
    try:
        raw = await endpoint.client.chat.completions.with_raw_response.create(
            model=endpoint.model, messages=said, **options
        )
    except openai.APITimeoutError as error:
        raise Interrupted("no answer in time", charged=True) from error
    except openai.APIConnectionError as error:
        unreached = isinstance(error.__cause__, httpx2.ConnectError)
        raise Interrupted(f"connection lost ({error.__cause__ or error})", charged=not unreached) from error
    except openai.APIStatusError as error:
        raise _status_failure(error) from error
    try:
        reply = _Reply.model_validate_json(raw.content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise Interrupted(f"no chat completion: {first['msg']}", charged=True) from error
    choice, usage = reply.choices[0], reply.usage
    tokens = None if usage is None else Tokens(usage.prompt_tokens, usage.completion_tokens)
    return Answer(choice.message.content, choice.message.refusal, choice.finish_reason, endpoint.max_tokens, tokens)


def _status_failure(error: openai.APIStatusError) -> Exception:
    """Tell what an HTTP status means for the work."""
    told = f"HTTP {error.status_code}: {error.message:.300}"
    if error.code == "insufficient_quota":
        return RunError(f"The account has no quota left ({told}). Next: call the same command when it has.")
    if is_transient(error.status_code):
        return Interrupted(f"HTTP {error.status_code}", wait=retry_after(error.response.headers.get("Retry-After")))
    if error.status_code in (400, 413, 422):
        return Rejected(told, filtered=error.code in FILTERED)
    return InputError(
        f"The endpoint refuses ({told}). Next: check {KEY}, --model and --base-url (it usually ends in /v1)."
    )
