"""The HTTP side: chat completions in OpenAI's form, whole or as a stream. Knows nothing about models."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import EventSourceResponse, JSONResponse, Response
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from lorgnette.errors import InputError, LorgnetteError, first_line, nearest
from lorgnette.serving.answering import Answering, Asked, Busy, Said
from lorgnette.serving.messages import ChatRequest

MOST_BYTES = 20 << 20
"""Of a request's body, images included."""
LOOKS_EVERY = 0.5
"""Seconds between two looks whether the client of an answer that comes whole is still there."""


@dataclass(frozen=True)
class Served:
    """What is offered.

    Attributes:
        name: what clients call the model.
        fingerprint: what the model is, by content.
        prepare: makes a prompt of a request; called for one at a time, always in the same thread.
        key: what clients must show, if anything.
    """

    name: str
    fingerprint: str
    prepare: Callable[[ChatRequest], Asked]
    answering: Answering
    key: str | None = None


def build_api(served: Served) -> FastAPI:
    """Make the application that answers HTTP requests."""
    api = FastAPI(title="Lorgnette", max_body_size=MOST_BYTES)
    entry = {"id": served.name, "object": "model", "created": int(time.time()), "owned_by": "lorgnette"}
    # a hundred images at once would need a hundred times the memory; and what a thread has once needed, it keeps
    one_at_a_time = asyncio.Lock()
    one_thread = ThreadPoolExecutor(1, "prompts")
    if served.key is not None:
        api.add_middleware(_Keyed, key=served.key)

    def require_served(name: str) -> dict[str, Any]:
        if name != served.name:
            near = nearest(name, [served.name])
            raise HTTPException(404, f"There is no model {name!r:.100}. Served: {served.name!r}.{near}")
        return entry

    @api.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [entry]}

    @api.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        return require_served(name)

    @api.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @api.post("/v1/chat/completions")
    async def chat_completions(asked_for: ChatRequest, request: Request) -> Response:
        if asked_for.model is not None:
            require_served(asked_for.model)
        async with one_at_a_time:
            if await request.is_disconnected():
                raise _gone()
            asked = await asyncio.get_running_loop().run_in_executor(one_thread, served.prepare, asked_for)
        answer = _Answer(served, asked)
        if not asked_for.stream:
            return await answer.whole(request)
        usage = asked_for.stream_options is not None and asked_for.stream_options.include_usage
        return EventSourceResponse(answer.events(usage), headers={"Cache-Control": "no-cache"})

    api.add_exception_handler(RequestValidationError, _invalid)
    api.add_exception_handler(HTTPException, _refused)
    api.add_exception_handler(Exception, _failed)
    api.add_exception_handler(LorgnetteError, _failed)
    return api


class _Keyed:
    """Turn away whoever does not show the key, before anything of a request's body is read."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._key = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and scope["path"] != "/health":
            shown = Headers(scope=scope).get("Authorization", "").removeprefix("Bearer ")
            if not secrets.compare_digest(shown.encode("latin-1"), self._key):  # what servers read headers as
                told = "The key is missing or wrong. Next: send it as `Authorization: Bearer KEY`."
                status, body = _error(HTTPException(401, told))
                await JSONResponse(body, status)(scope, receive, send)
                return
        await self._app(scope, receive, send)


class _Answer:
    """One answer on its way to a client."""

    def __init__(self, served: Served, asked: Asked) -> None:
        self._heard: asyncio.Queue[Said | Exception] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._ticket = served.answering.ask(asked, self._hear)
        self._prompt_tokens = len(asked.prompt.input_ids)
        self._head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": served.name,
            "system_fingerprint": served.fingerprint,
        }

    def _hear(self, said: Said | Exception) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the server was stopped, and nobody listens
            self._loop.call_soon_threadsafe(self._heard.put_nowait, said)

    async def whole(self, request: Request) -> Response:
        """Wait for the whole answer, for as long as the client is there."""
        looked = self._loop.time()
        try:
            while True:
                if self._loop.time() - looked >= LOOKS_EVERY:
                    if await request.is_disconnected():
                        raise _gone()
                    looked = self._loop.time()
                try:
                    said = await asyncio.wait_for(self._heard.get(), LOOKS_EVERY)
                except TimeoutError:
                    continue
                if isinstance(said, Exception):
                    return await _failed(request, said)
                if said.finished is not None:
                    message = {"role": "assistant", "content": said.whole, "refusal": None}
                    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": said.finished}
                    head = {**self._head, "object": "chat.completion"}
                    return JSONResponse(head | {"choices": [choice], "usage": self._usage(said)})
        finally:
            self._ticket.leave()

    async def events(self, usage: bool) -> AsyncIterator[str]:
        """Yield the answer as server-sent events, as it comes."""
        try:
            yield self._event({"role": "assistant", "content": ""}, None)
            while True:
                said = await self._heard.get()
                if isinstance(said, Exception):
                    yield f"data: {json.dumps(_error(said)[1])}\n\n"
                    return
                if said.text:
                    yield self._event({"content": said.text}, None)
                if said.finished is not None:
                    yield self._event({}, said.finished)
                    if usage:
                        yield self._chunk([], {"usage": self._usage(said)})
                    yield "data: [DONE]\n\n"
                    return
        finally:
            self._ticket.leave()

    def _event(self, delta: dict[str, Any], finished: str | None) -> str:
        return self._chunk([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finished}], {})

    def _chunk(self, choices: list[dict[str, Any]], more: dict[str, Any]) -> str:
        chunk = {**self._head, "object": "chat.completion.chunk", "choices": choices, **more}
        # all but ASCII is escaped: some clients break lines at every character that Unicode breaks them at
        return f"data: {json.dumps(chunk)}\n\n"

    def _usage(self, said: Said) -> dict[str, int]:
        prompt, answer = self._prompt_tokens, said.tokens
        return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


def _gone() -> HTTPException:
    return HTTPException(499, "The client is gone.")


def _error(error: Exception) -> tuple[int, dict[str, Any]]:
    """Return the status and the body that tell a client what went wrong."""
    if isinstance(error, InputError):
        status, kind = 400, "invalid_request_error"
    elif isinstance(error, HTTPException):
        status, kind = error.status_code, "invalid_request_error"
    else:
        status, kind = 503 if isinstance(error, Busy) else 500, "server_error"
    told = error.detail if isinstance(error, HTTPException) else str(error)
    message = told if isinstance(error, LorgnetteError | HTTPException) else first_line(error)
    return status, {"error": {"message": message, "type": kind, "param": None, "code": None}}


async def _failed(_: Request, error: Exception) -> Response:
    status, body = _error(error)
    return JSONResponse(body, status, {"Retry-After": "1"} if status == 503 else None)


async def _refused(request: Request, error: Exception) -> Response:
    return await _failed(request, error)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    kind = request.headers.get("Content-Type", "")
    if "json" not in kind:  # curl -d sends a form unless it is told otherwise
        reason = f"the body's Content-Type is {kind!r:.100}. Next: send the header `Content-Type: application/json`."
        return await _failed(request, InputError(reason))
    told = []
    for mistake in error.errors()[:5]:
        where = ".".join(str(part) for part in mistake["loc"] if part != "body")
        said = mistake["msg"].removeprefix("Value error, ")
        told.append(f"{where}: {said}" if where else said)
    return await _failed(request, InputError("; ".join(told)))
