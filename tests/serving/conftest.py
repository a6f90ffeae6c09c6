"""A model of the tests behind a real port."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import uvicorn

from lorgnette.models.learner import Learner
from lorgnette.serving.answering import Answering
from lorgnette.serving.api import Served, build_api
from lorgnette.serving.prompts import Prompter

Serve = Callable[..., str]


@contextmanager
def served(learner: Learner, *, max_new_tokens: int = 12, batch_size: int = 8, key: str | None = None) -> Iterator[str]:
    """Serve a model until the end of the block; gives its address."""
    prompter = Prompter(learner, max_new_tokens)
    answering = Answering(learner, batch_size)
    api = build_api(Served("small", "sha256:0", prompter.asked, answering, key))
    server = uvicorn.Server(uvicorn.Config(api, port=0, log_level="error", lifespan="off", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        answering.close()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve a model until the end of the test: address."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        yield lambda learner, **settings: stack.enter_context(served(learner, **settings))
