"""Whether the hub can be asked for a model: its library tries for half a minute, with a line a try."""

from __future__ import annotations

import socket
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants, try_to_load_from_cache

from lorgnette.errors import ModelError, first_line, nearest

PATIENCE = 5.0
"""Seconds to wait for a connection."""


def require_reachable(name: str) -> None:
    """Refuse a name that is no folder and in no cache while the hub cannot be reached.

    Raises:
        ModelError: with the folder that was perhaps meant.
    """
    if constants.HF_HUB_OFFLINE or isinstance(try_to_load_from_cache(name, "config.json"), str):
        return
    trouble = _trouble(constants.ENDPOINT)
    if trouble is not None:
        near = nearest(name, [entry.name for entry in Path().iterdir() if entry.is_dir()])
        raise ModelError(
            f"{name}: there is no such folder, and {constants.ENDPOINT} cannot be asked for it ({trouble}).{near} "
            "Next: check the path, or the name and the network."
        )


@cache
def _trouble(endpoint: str) -> str | None:
    if getproxies():  # who is asked then is not for us to know
        return None
    address = urlsplit(endpoint)
    try:
        socket.create_connection((address.hostname, address.port or 443), PATIENCE).close()
    except OSError as error:
        return first_line(error)
    return None
