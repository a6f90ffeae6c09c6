"""The server process: how many connect, what is logged, and how it stops."""

from __future__ import annotations

import asyncio
import copy
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.config import LOGGING_CONFIG

MOST_CONNECTIONS = 512
PATIENCE = 5
"""Seconds that answers which are under way when the server is stopped get to end."""
FAREWELL = 2
"""Seconds after that in which clients are told why theirs has not."""


class Server(uvicorn.Server):
    """Serve on a socket that listens already, until Ctrl-C.

    Args:
        stop: gives up all answers, so that every client is told; uvicorn alone would drop the connections.

    Raises:
        KeyboardInterrupt: out of `run`, as uvicorn passes on what stopped it.
    """

    def __init__(self, api: FastAPI, stop: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                api,
                log_config=_log_config(),
                limit_concurrency=MOST_CONNECTIONS,
                timeout_graceful_shutdown=PATIENCE + FAREWELL,
            )
        )
        self._stop = stop

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more requests, and wait for the answers that are under way, but not forever."""
        asyncio.get_running_loop().call_later(PATIENCE, self._stop)
        await super().shutdown(sockets)


def _log_config() -> dict[str, Any]:
    """Return uvicorn's own configuration, less what it says about itself when it starts and stops."""
    config: dict[str, Any] = copy.deepcopy(LOGGING_CONFIG)
    config["loggers"]["uvicorn.error"]["level"] = "WARNING"
    return config
