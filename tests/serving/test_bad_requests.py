"""Requests that are wrong, hostile or given up: each is told why in OpenAI's form, and the server answers the next."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from lorgnette.data.sample import Turn
from lorgnette.images import opening
from lorgnette.inference import engine
from lorgnette.inference.decoding import LEAST_TEMPERATURE, Decoding
from lorgnette.models.llava import Llava
from lorgnette.serving import answering, api, messages
from lorgnette.serving.answering import Answering

Serve = Callable[..., str]


def user(*content: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(content) if len(content) > 1 else content[0]}]}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def data_url(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def png(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("1", (width, height)).save(file, "PNG")
    return file.getvalue()


def post(address: str, body: Any, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes | Iterator) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} | headers
    return httpx.post(f"{address}/v1/chat/completions", content=content, headers=headers, timeout=60)


HI = {"messages": [{"role": "user", "content": "What is this?"}]}
NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def noisy() -> bytes:
    file = io.BytesIO()
    Image.fromarray(NOISE).save(file, "PNG")
    return file.getvalue()


BAD: dict[str, tuple[Any, int, str]] = {
    "no JSON": (b"{", 400, "JSON"),
    "no object": (b"[]", 400, "dictionary"),
    "nested too deep": (b'{"messages":' + b"[" * 100_000, 400, ""),
    "not UTF-8": (b'{"messages": "\xff"}', 400, ""),
    "half a surrogate pair": (user("a \ud800 b"), 400, ""),
    "no messages": ({"messages": []}, 400, "messages"),
    "no content": ({"messages": [{"role": "user"}]}, 400, "messages.0.content"),
    "empty": (user("  "), 400, r"messages\[0\]: is empty"),
    "a role of nobody": ({"messages": [{"role": "tool", "content": "x"}]}, 400, "messages.0.role"),
    "last by the assistant": (
        {"messages": [*HI["messages"], {"role": "assistant", "content": "x"}]},
        400,
        "the last one by the user",
    ),
    "two users": ({"messages": HI["messages"] * 2}, 400, "user and assistant in turn"),
    "a system in the middle": ({"messages": [*HI["messages"], {"role": "system", "content": "x"}]}, 400, "in turn"),
    "image by the system": (
        {"messages": [{"role": "system", "content": [image(data_url(noisy()))]}, *HI["messages"]]},
        400,
        "only a user's message",
    ),
    "a tag without an image": (user("<image>\nWhat?"), 400, "1 <image> tags, the message 0 images"),
    "tools": (HI | {"tools": [{"type": "function"}]}, 400, "tools is not supported"),
    "two answers": (HI | {"n": 2}, 400, "n is not supported"),
    "a misspelt field": (HI | {"temprature": 0.5}, 400, "Did you mean 'temperature'"),
    "a temperature that is no number": (json.dumps(HI | {"temperature": float("nan")}).encode(), 400, "temperature"),
    "a temperature as text": (HI | {"temperature": "hot"}, 400, "temperature"),
    "tokens without end": (HI | {"max_tokens": 10**30}, 400, "max_tokens"),
    "no tokens": (HI | {"max_tokens": 0}, 400, "max_tokens"),
    "more tokens than the prompt leaves": (HI | {"max_tokens": 2_048}, 400, r"2,048\. Allowed: 2,0\d\d, of 2,048 with"),
    "a seed out of range": (HI | {"seed": 1 << 70}, 400, "seed"),
    "another model": (HI | {"model": "gpt-4"}, 404, "Served: 'small'"),
    "more than the model reads": (user("no " * 5_000), 400, r"tokens, images included\. Allowed: "),
    "a book": (user("no " * 400_000), 400, r"1,199,999 characters\. Allowed: 1,000,000"),
    "an image elsewhere": (user(text("?"), image("http://169.254.169.254/x.png")), 400, "nothing is fetched"),
    "a file": (user(text("?"), image("file:///etc/passwd")), 400, "nothing is fetched"),
    "a path": (user(text("?"), image("/etc/passwd")), 400, "nothing is fetched"),
    "no base64": (user(text("?"), image("data:image/png;base64,***")), 400, "image 0: the URL is not base64"),
    "no image": (user(text("?"), image(data_url(b"hello"))), 400, "image 0: the file is not an image"),
    "an empty image": (user(text("?"), image("data:image/png;base64,")), 400, "image 0: the file is empty"),
    "half an image": (user(text("?"), image(data_url(noisy()[:2000]))), 400, "image 0: cannot be decoded"),
    "another kind of file": (user(text("?"), image(data_url(b"<svg/>", "text/xml"))), 400, "Allowed: data:image"),
    "PostScript": (user(text("?"), image(data_url(b"%!PS-Adobe-3.0 EPSF-3.0\n"))), 400, "not an image"),
    "too many parts": (user(*[0] * 2_001), 400, r"2,001 texts and images\. Allowed: 2,000"),
    "too many parts in all": ({"messages": [user(*[0] * 500)["messages"][0]] * 5}, 400, "2,500 texts and images"),
    "only the first wrong part is told": (user(*[0] * 2_000), 400, r"^(?!.*\.1: )"),
    "only the first unknown field is told": (
        {"messages": [HI["messages"][0] | {f"x{n}": 0 for n in range(9)}]},
        400,
        r"^messages\.0: there is no field 'x0'\.$",
    ),
    "only the first wrong message is told": ({"messages": [0] * 1_000}, 400, r"^messages\.0: [^;]*$"),
    "too many ends": (HI | {"stop": ["x"] * 33}, 400, "at most 32 items"),
    "an end that is too long": (HI | {"stop": "x" * 501}, 400, "at most 500 characters"),
    "an image that unpacks to gigabytes": (user(text("?"), image(data_url(png(20_000, 20_000)))), 400, "pixels"),
    "images that do so together": (
        user(text("?"), *[image(data_url(png(6_000 + n, 6_000))) for n in range(4)]),
        400,
        "image 2: 6002 x 6000 pixels",
    ),
}


@pytest.fixture
def address(llava: Llava, serve: Serve) -> str:
    return serve(llava)


def test_each_is_told_what_is_wrong_and_the_next_is_answered(address: str) -> None:
    expected = post(address, HI).json()["choices"]
    wrong = {}
    for name, (body, status, told) in BAD.items():
        answer = post(address, body)
        error = answer.json().get("error", {})
        if answer.status_code != status or not re.search(told, error.get("message", "")):
            wrong[name] = (answer.status_code, answer.text[:300])
        assert error.get("type") == "invalid_request_error", name
    assert wrong == {}
    assert post(address, HI).json()["choices"] == expected


def test_a_line_that_would_be_scaled_up_to_gigabytes_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "MAX_MADE", 10_000)
    refused = post(address, user(text("?"), image(data_url(png(1_000, 1)))))
    assert refused.status_code == 400
    assert "image 0: 1000 x 1 pixels become" in refused.json()["error"]["message"]


def test_a_body_without_end_is_refused_before_it_is_read(address: str) -> None:
    def endless() -> Iterator[bytes]:
        yield b'{"messages": "'
        for _ in range(64):
            yield b"x" * (1 << 20)

    assert post(address, b" " * (api.MOST_BYTES + 1)).status_code == 413
    with contextlib.suppress(httpx.WriteError):  # the server may close the connection before all has been sent
        assert post(address, endless()).status_code == 413
    assert post(address, HI).status_code == 200


def test_a_page_of_another_site_cannot_ask_by_a_plain_form(address: str) -> None:
    form = "application/x-www-form-urlencoded"
    for kind in ("text/plain", form):
        refused = post(address, HI, **{"Content-Type": kind})
        assert refused.status_code == 400
        assert f"Content-Type is '{kind}'. Next: send the header" in refused.json()["error"]["message"]


def test_a_key_is_demanded_where_one_is_set(llava: Llava, serve: Serve) -> None:
    address = serve(llava, key="secret ключ")
    assert post(address, HI).status_code == 401
    assert post(address, HI, Authorization="Bearer wrong").status_code == 401
    assert httpx.get(f"{address}/v1/models").status_code == 401
    assert httpx.get(f"{address}/openapi.json").status_code == 401
    assert httpx.get(f"{address}/health").status_code == 200
    assert post(address, b"{").status_code == 401  # nothing of a stranger's body is looked at
    shown = {b"Authorization": "Bearer secret ключ".encode()}
    assert httpx.get(f"{address}/v1/models", headers=shown).status_code == 200


def test_fields_that_ask_for_nothing_are_taken(address: str) -> None:
    expected = post(address, HI).json()["choices"]
    neutral = {name: allowed[0] for name, allowed in messages.NEUTRAL.items()}
    ignored = {
        "user": "me",
        "metadata": {"a": "b"},
        "stream_options": None,
        "tools": None,
        "stop": [],
        "temperature": 0,
    }
    assert post(address, HI | neutral | ignored).json()["choices"] == expected
    said = {name: (*allowed, None)[0] for name, allowed in messages.NEUTRAL_OF_MESSAGE.items()}
    assert post(address, {"messages": [HI["messages"][0] | said]}).json()["choices"] == expected


def test_a_temperature_that_leaves_one_token_is_none(address: str) -> None:
    """Dividing by it would give infinities, whose differences are no numbers, and end the others' answers too."""
    expected = post(address, HI).json()["choices"]
    for temperature in (5e-324, 1e-40, 1e-6, 9e-6):
        assert post(address, HI | {"temperature": temperature}).json()["choices"] == expected
    assert post(address, HI | {"temperature": LEAST_TEMPERATURE, "seed": 0}).json()["choices"] == expected


def test_a_failure_of_the_model_is_told_and_the_next_is_answered(
    address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = post(address, HI).json()["choices"]

    def broken(*_: object) -> None:
        raise RuntimeError("CUDA out of memory.\nTried to allocate everything.")

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_forward", broken)
        whole = post(address, HI)
        assert whole.status_code == 500
        assert whole.json()["error"] == {
            "message": "CUDA out of memory.",
            "type": "server_error",
            "param": None,
            "code": None,
        }
        stream = post(address, HI | {"stream": True})
        assert (
            json.loads(stream.text.strip().split("\n\n")[-1].removeprefix("data: "))["error"]["type"] == "server_error"
        )
    assert "Tried to allocate everything" in caplog.text  # whoever runs the server is told too
    assert post(address, HI).json()["choices"] == expected


def test_too_many_are_turned_away_at_once(llava: Llava, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "MOST_WAITING", 0)
    refused = post(serve(llava), HI)
    assert refused.status_code == 503
    assert refused.headers["Retry-After"] == "1"
    assert "requests are waiting" in refused.json()["error"]["message"]


def test_nothing_is_said_to_those_who_are_gone(llava: Llava, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer of a million tokens ends at its next one when its client hangs up, streamed or whole."""
    monkeypatch.setattr("lorgnette.serving.prompts.context_of", lambda _: 1 << 30)
    monkeypatch.setattr(api, "LOOKS_EVERY", 0.05)
    monkeypatch.setattr("lorgnette.serving.answering.ending_ids", lambda _: frozenset())
    answered: list[int] = []
    told = answering._told

    def counted(tickets: list[Any], logits: Any) -> list[int | None]:
        answered.append(len(tickets))
        return told(tickets, logits)

    monkeypatch.setattr(answering, "_told", counted)
    address = serve(llava, max_new_tokens=1_000_000)
    for body in (HI | {"stream": True}, HI):
        before = len(answered)
        with pytest.raises((httpx.ReadTimeout, Enough)):
            _hang_up(address, body)
        assert len(answered) > before + 5
        deadline = time.monotonic() + 10
        while (count := len(answered)) == before or _goes_on(answered, count):
            assert time.monotonic() < deadline


def _goes_on(answered: list[int], count: int) -> bool:
    time.sleep(0.2)
    return len(answered) > count


class Enough(Exception):
    pass


def _hang_up(address: str, body: dict[str, Any]) -> None:
    with httpx.stream("POST", f"{address}/v1/chat/completions", json=body, timeout=0.5) as stream:
        for number, _ in enumerate(stream.iter_lines()):
            if number > 10:
                raise Enough


def open_ended(llava: Llava, monkeypatch: pytest.MonkeyPatch) -> tuple[Answering, answering.Asked]:
    """Answer one prompt at a time, and a prompt whose answer has no end."""
    monkeypatch.setattr(answering, "ending_ids", lambda _: frozenset())
    prompt = llava.renderer().render_prompt("0", (), (Turn("user", "What is this?"),))
    return Answering(llava, 1), answering.Asked(prompt, {}, Decoding(1_000_000))


def test_stopping_gives_up_what_is_open(llava: Llava, monkeypatch: pytest.MonkeyPatch) -> None:
    answers, asked = open_ended(llava, monkeypatch)
    heard: list[Any] = []
    waits: list[Any] = []
    answers.ask(asked, heard.append)
    answers.ask(asked, waits.append)
    while len(heard) < 3:
        time.sleep(0.01)
    answers.close()
    assert [type(last[-1]) for last in (heard, waits)] == [answering.Busy] * 2
    assert len(waits) == 1
    with pytest.raises(answering.Busy, match="being stopped"):
        answers.ask(asked, heard.append)


def test_whoever_hangs_up_while_waiting_takes_nobodys_place(llava: Llava, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "MOST_WAITING", 2)
    answers, asked = open_ended(llava, monkeypatch)
    heard: list[Any] = []
    answers.ask(asked, heard.append)
    while not heard:
        time.sleep(0.01)
    first, _ = (answers.ask(asked, heard.append) for _ in range(2))
    with pytest.raises(answering.Busy, match="2 requests are waiting"):
        answers.ask(asked, heard.append)
    first.leave()
    answers.ask(asked, heard.append)
    answers.close()
