"""A local server that speaks the protocol of chat completions, well or badly."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reaction = Callable[["Ask"], None]


def pairs_text(number: int = 5, word: str = "shape") -> str:
    """What a good model answers."""
    pairs = [{"question": f"Which {word} is number {n}?", "answer": f"A circle, {n}."} for n in range(number)]
    return json.dumps({"pairs": pairs})


@dataclass
class Ask:
    """A request, and the ways to answer it."""

    handler: BaseHTTPRequestHandler
    body: dict[str, Any]
    number: int
    """How many requests came before it."""

    @property
    def picture(self) -> str:
        """The hash of the picture that it is about."""
        url = self.body["messages"][0]["content"][0]["image_url"]["url"]
        return hashlib.sha256(base64.b64decode(url.partition(",")[2])).hexdigest()

    @property
    def round(self) -> int:
        """0 for the first request about a picture, 1 for the repair."""
        return len(self.body["messages"]) // 2

    def send(self, status: int, body: bytes, length: int | None = None, **headers: str) -> None:
        self.handler.send_response(status)
        self.handler.send_header("Content-Type", "application/json")
        self.handler.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.handler.send_header(name.replace("_", "-"), value)
        self.handler.end_headers()
        self.handler.wfile.write(body)

    def complete(
        self,
        content: str | None = None,
        *,
        refusal: str | None = None,
        finish_reason: str = "stop",
        usage: tuple[int, int] | None = (1_000, 200),
        cut: int | None = None,
    ) -> None:
        """Answer with a completion; with `cut` the connection breaks after so many bytes."""
        message = {"role": "assistant", "content": content, "refusal": refusal}
        reply: dict[str, Any] = {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": self.body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        }
        if usage is not None:
            reply["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
        body = json.dumps(reply).encode()
        self.send(200, body[:cut], len(body))

    def fail(self, status: int, code: str | None = None, message: str = "no", **headers: str) -> None:
        """Answer with an error of the protocol."""
        error = {"error": {"message": message, "type": "error", "code": code, "param": None}}
        self.send(status, json.dumps(error).encode(), **headers)


def good(ask: Ask) -> None:
    """Answer as asked."""
    ask.complete(pairs_text())


@dataclass
class ChatServer:
    """What was asked, and how it is answered."""

    url: str
    react: Reaction = good
    asks: list[Ask] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    busy: int = 0
    most_busy: int = 0

    @property
    def by_picture(self) -> Counter[str]:
        """How many requests came about each picture."""
        return Counter(ask.picture for ask in self.asks)


@contextmanager
def chat_server() -> Iterator[ChatServer]:
    """Run the server as long as the block lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with server.lock:
                ask = Ask(self, body, len(server.asks))
                server.asks.append(ask)
                server.busy += 1
                server.most_busy = max(server.busy, server.most_busy)
            try:
                server.react(ask)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client was killed, or lost its patience
            finally:
                with server.lock:
                    server.busy -= 1
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server = ChatServer(f"http://127.0.0.1:{http.server_port}/v1")
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()
