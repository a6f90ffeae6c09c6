"""A server that is stopped tells every client why there is no answer, and ends without a word of its own."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest

from lorgnette.models.llava import Llava
from lorgnette.serving import answering, api, server
from lorgnette.serving.prompts import Prompter
from lorgnette.serving.server import Server

HI = {"messages": [{"role": "user", "content": "What is this?"}]}
Run = Callable[..., AbstractContextManager[tuple[str, Server]]]


def ask(address: str, stream: bool) -> tuple[int, str]:
    """Return the status and the last line."""
    answer = httpx.post(f"{address}/v1/chat/completions", json=HI | {"stream": stream}, timeout=30)
    return answer.status_code, answer.text.strip().rpartition("\n")[2]


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no answer end by itself."""
    monkeypatch.setattr("lorgnette.serving.prompts.context_of", lambda _: 1 << 30)
    monkeypatch.setattr("lorgnette.serving.answering.ending_ids", lambda _: frozenset())


@pytest.mark.usefixtures("endless")
def test_clients_are_told_that_the_server_is_being_stopped(
    llava: Llava, run_server: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "PATIENCE", 0.1)
    with ThreadPoolExecutor(4) as pool:
        with run_server(llava, max_new_tokens=1_000_000, batch_size=2) as (address, _):
            answers = [pool.submit(ask, address, stream) for stream in (True, False, True, False)]
            time.sleep(0.5)  # two are answered, two wait
        for stream, answer in zip((True, False, True, False), answers, strict=True):
            status, last = answer.result()
            assert status == (200 if stream else 503)
            assert json.loads(last.removeprefix("data: "))["error"]["message"] == "The server is being stopped."
    assert caplog.text == ""


@pytest.mark.usefixtures("endless")
def test_being_forced_to_stop_is_no_failure(
    llava: Llava, run_server: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told = answering._told

    def slowly(*stepped: Any) -> list[int | None]:
        time.sleep(0.3)
        return told(*stepped)

    monkeypatch.setattr(answering, "_told", slowly)
    with (
        ThreadPoolExecutor(2) as pool,
        run_server(llava, max_new_tokens=1_000_000, batch_size=1) as (address, forced),
    ):
        for _ in range(2):  # one is answered, one waits
            pool.submit(ask, address, True)
        time.sleep(0.5)
        forced.force_exit = True
    # the one that waits is given up while the other's token is awaited, when the loop is closed already
    assert "given up" not in caplog.text


@pytest.mark.usefixtures("endless")
@pytest.mark.parametrize("stream", [True, False])
def test_whoever_hangs_up_before_the_answer_begins_is_not_answered(
    llava: Llava, run_server: Run, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setattr(api, "LOOKS_EVERY", 0.05)
    prepared, steps = [], []
    asked, told = Prompter.asked, answering._told

    def slowly(prompter: Prompter, request: Any) -> Any:
        prepared.append(request)
        time.sleep(0.4)
        return asked(prompter, request)

    def counted(*stepped: Any) -> list[int | None]:
        steps.append(stepped)
        return told(*stepped)

    monkeypatch.setattr(Prompter, "asked", slowly)
    monkeypatch.setattr(answering, "_told", counted)
    with run_server(llava, max_new_tokens=1_000_000) as (address, _), ThreadPoolExecutor(2) as pool:
        gone = [pool.submit(httpx.post, f"{address}/v1/chat/completions", json=HI | {"stream": stream}, timeout=0.2)]
        gone += [pool.submit(httpx.post, f"{address}/v1/chat/completions", json=HI | {"stream": stream}, timeout=0.2)]
        assert all(isinstance(call.exception(), httpx.ReadTimeout) for call in gone)
        time.sleep(0.6)
        before = len(steps)
        time.sleep(0.2)
        assert len(steps) == before
        assert len(prepared) == 1  # the other one was gone before its turn came
