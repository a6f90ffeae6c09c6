"""Commands that let a model answer: serve."""

from __future__ import annotations

import importlib.util
import os
import socket
from contextlib import suppress
from typing import Annotated

import typer

from lorgnette.cli.terminal import console, say, settle
from lorgnette.errors import InputError, MissingExtra

KEY = "LORGNETTE_API_KEY"


def serve(
    model: Annotated[
        str, typer.Argument(help="A LLaVA, a T5, or `trained/` of a stage: folder or hub name.", show_default=False)
    ],
    host: Annotated[str, typer.Option(help="Where to listen; 0.0.0.0 for other machines too.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    name: Annotated[
        str | None, typer.Option(help="What clients call the model; MODEL if not given.", show_default=False)
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="Most tokens of an answer, where a request does not say.")
    ] = 1024,
    batch_size: Annotated[int, typer.Option(min=1, help="Requests that are answered at a time.")] = 32,
) -> None:
    """Serve a model over HTTP in the form of OpenAI's chat completions. Answers are those that `evaluate` measures.

    If LORGNETTE_API_KEY is set in the environment, clients must show it.

    Example: lorgnette serve runs/quickstart/merged --port 8000
    """
    for library in ("fastapi", "uvicorn"):
        if importlib.util.find_spec(library) is None:
            raise MissingExtra(library, "serve")
    with _listen(host, port) as listening:  # before the model is loaded: that may take minutes
        settle()
        from lorgnette.models.adapted import load_model_or_adapter  # noqa: PLC0415
        from lorgnette.models.fingerprint import fingerprint  # noqa: PLC0415
        from lorgnette.processes import processes  # noqa: PLC0415
        from lorgnette.serving.answering import Answering  # noqa: PLC0415
        from lorgnette.serving.api import Served, build_api  # noqa: PLC0415
        from lorgnette.serving.prompts import Prompter  # noqa: PLC0415
        from lorgnette.serving.server import Server  # noqa: PLC0415

        learner = load_model_or_adapter(model)
        learner.module.to(processes().device)
        prompter = Prompter(learner, max_new_tokens)
        answering = Answering(learner, batch_size)
        key = os.environ.get(KEY) or None
        served = Served(name or model, fingerprint(model), prompter.asked, answering, key)
        _say_where(served.name, model, host, listening.getsockname()[1], open_to_all=key is None)
        try:
            with suppress(KeyboardInterrupt):  # how it ends, unless a script started it in the background
                Server(build_api(served), answering.stop).run(sockets=[listening])
        finally:
            answering.close()
    say("Stopped.")


def _say_where(name: str, model: str, host: str, port: int, *, open_to_all: bool) -> None:
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    say(
        f"{model} answers at {address}/v1 as {name!r}, until Ctrl-C.",
        f"Next: curl {address}/v1/chat/completions -H 'Content-Type: application/json' "
        """-d '{"messages": [{"role": "user", "content": "Who are you?"}]}'""",
    )
    if open_to_all and host not in ("127.0.0.1", "::1", "localhost"):
        console.print(f"warning: whoever reaches {host} can ask. Next: set {KEY} to demand a key.", style="yellow")


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family)
        # asyncio does this for sockets that it opens itself; without it a short answer waits 40 ms for the client
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except (OSError, UnicodeError) as error:
        raise InputError(f"{host}:{port}: cannot listen there ({error}). Next: another --port or --host.") from error
