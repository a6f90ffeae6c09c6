"""A model of the tests behind a real port."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from lorgnette.models.learner import Learner
from lorgnette.serving.answering import Answering
from lorgnette.serving.api import Served, build_api
from lorgnette.serving.prompts import Prompter
from lorgnette.serving.server import Server

Serve = Callable[..., str]


@contextmanager
def running(
    learner: Learner, *, max_new_tokens: int = 12, batch_size: int = 8, key: str | None = None
) -> Iterator[tuple[str, Server]]:
    """Serve a model until the end of the block; gives its address and the server."""
    prompter = Prompter(learner, max_new_tokens)
    answering = Answering(learner, batch_size)
    server = Server(build_api(Served("small", "sha256:0", prompter.asked, answering, key)), answering.stop)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        port = listening.getsockname()[1]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            assert thread.is_alive()
        try:
            yield f"http://127.0.0.1:{port}", server
        finally:
            server.should_exit = True
            thread.join()
            answering.close()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve a model until the end of the test: address."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        yield lambda learner, **settings: stack.enter_context(running(learner, **settings))[0]


@pytest.fixture
def run_server() -> Callable[..., AbstractContextManager[tuple[str, Server]]]:
    """Serve a model until the end of a block: address and server."""
    return running
