"""Making questions with an endpoint: what is asked, what counts, what is paid, what every failure leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from chat_server import Ask, ChatServer, chat_server, good, pairs_text
from lorgnette.cli import app
from lorgnette.data.making.log import Answer, Ledger, Prices, Tokens
from lorgnette.data.making.make import make, plain, without_repetitions
from lorgnette.data.making.pictures import find_pictures
from lorgnette.data.making.plan import Settings, plan
from lorgnette.data.making.prompt import LANGUAGES, Pair, judge, read_prompt, response_format
from lorgnette.data.readers import read_samples
from lorgnette.errors import DataError, InputError, MissingExtra, RunError

PRICES = Prices(input=1.0, output=10.0)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with chat_server() as running:
        yield running


def paint(folder: Path, number: int, first: int = 0) -> Path:
    """Put so many pictures of noise into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(first, first + number):
        pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed:03}.png")
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return paint(tmp_path / "pictures", 3)


def settings_for(server: ChatServer, **options: Any) -> Settings:
    return replace(
        Settings(
            model="eye",
            prompt=read_prompt("en", 5),
            base_url=server.url,
            attempts=3,
            first_wait=0.001,
            timeout=5.0,
            concurrency=2,
        ),
        **options,
    )


def run(server: ChatServer, images: Path, out: Path, **options: Any) -> dict[str, Any]:
    settings = settings_for(server, **options)
    return make(find_pictures(images, settings.image_side), out, settings, Console(quiet=True))


def rows_of(out: Path) -> list[dict[str, Any]]:
    return json.loads((out / "dataset.json").read_text())


def test_every_picture_is_asked_once_and_becomes_a_row(server: ChatServer, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    made = run(server, images, out, prices=PRICES)
    assert len(server.asks) == 3
    assert set(server.by_picture.values()) == {1}
    assert made["pictures"]["with pairs"] == 3
    assert made["pairs"] == 15
    assert made["tokens"] == {"input": 3_000, "output": 600}
    assert made["cost"] == pytest.approx((3_000 * 1 + 600 * 10) / 1e6)
    rows = rows_of(out)
    assert [row["image"] for row in rows] == ["000.png", "001.png", "002.png"]
    assert [turn["from"] for turn in rows[0]["conversations"]] == ["human", "gpt"] * 5
    assert rows[0]["conversations"][0]["value"] == "<image>\nWhich shape is number 0?"
    assert rows[0]["conversations"][2]["value"] == "Which shape is number 1?"
    assert rows[0]["conversations"][3]["value"] == "A circle, 1."
    samples = list(read_samples(str(out / "dataset.json"), "llava", images=str(images)))
    assert [sample.images[0] for sample in samples] == [str(images / f"00{n}.png") for n in range(3)]


def test_what_is_sent_is_the_picture_the_prompt_and_the_schema(
    server: ChatServer, images: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (4000, 1000), "red").save(images / "wide.png")
    run(server, images, tmp_path / "out", max_tokens=777, image_side=500)
    assert len(server.asks) == 4
    for ask in server.asks:
        (said,) = ask.body["messages"]
        assert said["content"][1]["text"] == read_prompt("en", 5).ask
        assert ask.body["max_completion_tokens"] == 777
        assert ask.body["response_format"] == response_format()
        assert ask.handler.headers["Authorization"] == "Bearer sk-secret"
    assert {tuple(size) for size in sizes(server)} == {(32, 24), (500, 125)}
    run(server, images, tmp_path / "other", schema=False)
    assert "response_format" not in server.asks[-1].body
    assert b"sk-secret" not in b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


def sizes(server: ChatServer) -> list[tuple[int, int]]:
    import base64
    import io

    urls = [ask.body["messages"][0]["content"][0]["image_url"]["url"] for ask in server.asks]
    return [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).size for url in urls]


def test_what_was_answered_is_never_asked_again(server: ChatServer, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(server, images, out)
    paint(images, 2, first=10)
    assert run(server, images, out)["pictures"]["with pairs"] == 5
    assert len(server.asks) == 5
    run(server, images, out)
    assert len(server.asks) == 5
    run(server, images, out, model="other eye")
    assert len(server.asks) == 10
    run(server, images, out, prompt=read_prompt("ru", 5))
    assert len(server.asks) == 15
    (images / "000.png").rename(images / "moved.png")
    assert rows_of(out)[0]["image"] == "000.png"
    assert run(server, images, out)["pictures"]["with pairs"] == 5
    assert rows_of(out)[-1]["image"] == "moved.png"
    assert len(server.asks) == 15


def test_identical_pictures_and_questions_count_once(server: ChatServer, images: Path, tmp_path: Path) -> None:
    (images / "sub").mkdir()
    (images / "sub" / "copy.png").write_bytes((images / "001.png").read_bytes())
    twice = {"pairs": [{"question": q, "answer": "A."} for q in ("Wo ist es?", "What?", "what ?!", "Why?", "WHY")]}
    server.react = lambda ask: ask.complete(json.dumps(twice))
    made = run(server, images, tmp_path / "out")
    assert len(server.asks) == 3
    assert made["pictures"]["that are copies"] == 1
    assert made["repeated_questions"] == 6
    assert [turn["value"] for turn in rows_of(tmp_path / "out")[0]["conversations"][::2]] == [
        "<image>\nWo ist es?",
        "What?",
        "Why?",
    ]


def test_questions_are_compared_without_case_width_and_punctuation() -> None:
    assert plain("Что ЭТО?!") == plain("что это")
    assert plain("这是什么?") == plain("这是什么\uff1f")
    assert plain("\uff21") == plain("a")
    assert plain("Is it red?") != plain("Is it read?")
    pairs = tuple(Pair(question=question, answer="x") for question in ("A?", "a", "b"))
    assert without_repetitions(pairs) == ((pairs[0], pairs[2]), 1)


def test_held_out_pictures_are_never_asked_about(server: ChatServer, images: Path, tmp_path: Path) -> None:
    test = tmp_path / "test"
    test.mkdir()
    (test / "x.png").write_bytes((images / "001.png").read_bytes())
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "That."}]
    (test / "test.json").write_text(json.dumps([{"image": "x.png", "conversations": turns}]))
    settings = settings_for(server)
    for source in (test, test / "test.json"):
        found = find_pictures(images, 1024, [source])
        assert found.held_out == ["001.png"]
        assert [one.name for one in found.unique] == ["000.png", "002.png"]
    made = make(found, tmp_path / "out", settings, Console(quiet=True))
    assert made["pictures"]["held out"] == 1
    assert len(server.asks) == 2
    (test / "test.json").write_text(json.dumps([{"image": "y.png", "conversations": turns}]))
    with pytest.raises(DataError, match=r"1 of its images are neither beside it nor below .*y\.png"):
        find_pictures(images, 1024, [test / "test.json"])
    # a split lies elsewhere, and its paths are relative to the pictures
    (test / "test.json").write_text(json.dumps([{"image": "002.png", "conversations": turns}]))
    assert find_pictures(images, 1024, [test / "test.json"]).held_out == ["002.png"]
    (test / "test.json").write_text(json.dumps([{"image": "x.png"}]))
    with pytest.raises(DataError, match="row 0"):
        find_pictures(images, 1024, [test / "test.json"])


def test_trouble_is_tried_again_and_every_attempt_is_written_down(
    server: ChatServer, images: Path, tmp_path: Path
) -> None:
    trouble: list[Callable[[Ask], None]] = [
        lambda ask: ask.fail(429, Retry_After="0"),
        lambda ask: ask.fail(500),
        lambda ask: ask.complete(pairs_text(), cut=80),
        lambda ask: ask.send(200, b'{"choices": []}'),
        lambda ask: ask.send(200, b"<html>busy</html>"),
        lambda ask: ask.fail(503),
    ]

    def react(ask: Ask) -> None:
        (trouble[ask.number] if ask.number < len(trouble) else good)(ask)

    server.react = react
    made = run(server, images, tmp_path / "out", concurrency=1, attempts=7)
    assert made["pictures"]["with pairs"] == 3
    assert made["requests"] == len(server.asks) == 9
    # those that broke off in the middle may have been charged, refusals by status have not
    assert made["requests_with_estimated_tokens"] == 3
    events = [json.loads(line) for line in (tmp_path / "out" / "requests.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events].count("sent") == 9
    reasons = [event["reason"] for event in events if event["event"] == "failed"]
    assert reasons[:2] == ["HTTP 429", "HTTP 500"]
    assert reasons[2].startswith("connection lost")
    assert all(reason.startswith("no chat completion") for reason in reasons[3:5])


def test_a_slow_endpoint_is_left_after_the_timeout(server: ChatServer, images: Path, tmp_path: Path) -> None:
    def react(ask: Ask) -> None:
        if ask.number == 0:
            time.sleep(0.6)
        good(ask)

    server.react = react
    made = run(server, images, tmp_path / "out", timeout=0.3, concurrency=1)
    assert made["pictures"]["with pairs"] == 3
    assert made["requests"] == 4
    assert made["requests_with_estimated_tokens"] == 1
    assert "no answer in time" in (tmp_path / "out" / "requests.jsonl").read_text()


def test_the_pause_that_the_endpoint_asks_for_is_kept(server: ChatServer, images: Path, tmp_path: Path) -> None:
    times = []

    def react(ask: Ask) -> None:
        times.append(time.monotonic())
        ask.fail(429, Retry_After="1") if ask.number == 0 else good(ask)

    server.react = react
    run(server, images, tmp_path / "out", concurrency=1)
    assert 1.0 <= times[1] - times[0] < 3.0
    server.asks.clear()
    server.react = lambda ask: ask.fail(429, Retry_After="86400")
    with pytest.raises(RunError, match="a row without an answer"):
        run(server, paint(images, 6, first=20), tmp_path / "out", concurrency=1)
    assert len(server.asks) == 5  # one a picture: nobody waits a day


def test_an_unusable_answer_is_repaired_once(server: ChatServer, images: Path, tmp_path: Path) -> None:
    bad = [
        "I see a circle.",
        pairs_text(4),
        json.dumps({"pairs": [{"question": "?", "answer": "", "why": 1}] * 5}),
    ]

    def react(ask: Ask) -> None:
        ask.complete(bad[ask.number // 2] if ask.round == 0 else pairs_text())

    server.react = react
    made = run(server, images, tmp_path / "out", concurrency=1)
    assert made["pictures"]["with pairs"] == made["pictures"]["with repaired pairs"] == 3
    assert len(server.asks) == 6
    said = server.asks[3].body["messages"]
    assert [turn["role"] for turn in said] == ["user", "assistant", "user"]
    assert said[0] == server.asks[2].body["messages"][0]
    assert said[1]["content"] == pairs_text(4)
    assert "4 pairs instead of 5" in said[2]["content"]


def test_an_answer_that_stays_unusable_is_counted_and_not_paid_again(
    server: ChatServer, images: Path, tmp_path: Path
) -> None:
    def react(ask: Ask) -> None:
        ask.complete("no JSON" if ask.number < 2 else pairs_text())

    server.react = react
    made = run(server, images, tmp_path / "out", concurrency=1)
    assert made["pictures"]["invalid"] == 1
    assert made["pictures"]["with pairs"] == 2
    assert len(server.asks) == 4
    assert run(server, images, tmp_path / "out")["pictures"]["invalid"] == 1
    assert len(server.asks) == 4
    page = (tmp_path / "out" / "review.html").read_text()
    assert "invalid: Invalid JSON" in page


def test_refusals_are_counted_and_not_paid_again(server: ChatServer, images: Path, tmp_path: Path) -> None:
    refusals: list[Callable[[Ask], None]] = [
        lambda ask: ask.complete(refusal="I will not <b>look</b>."),
        lambda ask: ask.complete("", finish_reason="content_filter"),
        lambda ask: ask.fail(400, "content_policy_violation"),
        good,
    ]
    server.react = lambda ask: refusals[ask.number](ask)
    paint(images, 1, first=7)
    for _ in range(2):
        made = run(server, images, tmp_path / "out", concurrency=1)
        assert made["pictures"]["refused"] == 3
        assert made["pictures"]["with pairs"] == 1
    assert len(server.asks) == 4
    assert "I will not &lt;b&gt;look&lt;/b&gt;." in (tmp_path / "out" / "review.html").read_text()


def test_an_answer_that_is_cut_off_is_asked_again_only_with_more_tokens(
    server: ChatServer, images: Path, tmp_path: Path
) -> None:
    server.react = lambda ask: ask.complete(pairs_text()[:40], finish_reason="length")
    with pytest.raises(RunError, match="Not a single pair"):
        run(server, images, tmp_path / "out", max_tokens=100)
    assert json.loads((tmp_path / "out" / "made.json").read_text())["pictures"]["cut off"] == 3
    server.react = good
    with pytest.raises(RunError):
        run(server, images, tmp_path / "out", max_tokens=100)
    assert len(server.asks) == 3
    assert run(server, images, tmp_path / "out", max_tokens=200)["pictures"]["with pairs"] == 3
    assert len(server.asks) == 6


def test_requests_never_exceed_their_limit(server: ChatServer, tmp_path: Path) -> None:
    images = paint(tmp_path / "pictures", 8)
    made = run(server, images, tmp_path / "out", max_requests=3, concurrency=4)
    assert (len(server.asks), made["stopped_by"]) == (3, "--max-requests")
    assert made["pictures"]["not asked yet"] == 5
    run(server, images, tmp_path / "out", max_requests=5, concurrency=4)
    assert len(server.asks) == 5  # the limit counts all calls
    assert run(server, images, tmp_path / "out", max_requests=9)["stopped_by"] == ""
    assert len(server.asks) == 8


@pytest.mark.parametrize("usage", [(1_000, 200), (5_000, 1_000), None])
def test_money_never_exceeds_its_limit(server: ChatServer, tmp_path: Path, usage: tuple[int, int] | None) -> None:
    images = paint(tmp_path / "pictures", 18)
    server.react = lambda ask: ask.complete(pairs_text(), usage=usage)
    limit = 0.05  # the longest answer of 1,000 tokens costs 0.01
    options = {"prices": PRICES, "max_cost": limit, "max_tokens": 1_000}
    made = run(server, images, tmp_path / "out", concurrency=8, **options)
    assert made["stopped_by"] == "--max-cost"
    real = len(server.asks) * PRICES.cost(Tokens(*usage)) if usage else made["cost"]
    assert made["cost"] == pytest.approx(real)
    assert made["cost"] <= limit
    # it does not stop before another longest answer could exceed the limit
    assert made["cost"] + PRICES.cost(Tokens(6_000, 1_000)) > limit
    asked = len(server.asks)
    run(server, images, tmp_path / "out", **options)
    assert len(server.asks) == asked


def test_a_limit_on_money_needs_prices(server: ChatServer, images: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--max-cost needs --input-price"):
        run(server, images, tmp_path / "out", max_cost=1.0)
    assert not server.asks


def test_concurrency_is_what_was_asked_for(server: ChatServer, tmp_path: Path) -> None:
    server.react = lambda ask: (time.sleep(0.05), good(ask))[1]
    run(server, paint(tmp_path / "pictures", 9), tmp_path / "out", concurrency=3)
    assert server.most_busy == 3


@pytest.mark.parametrize(
    ("status", "code", "error", "says"),
    [
        (401, "invalid_api_key", InputError, "check OPENAI_API_KEY"),
        (404, "model_not_found", InputError, "--model and --base-url"),
        (302, None, InputError, "HTTP 302"),
        (429, "insufficient_quota", RunError, "no quota left"),
        (400, None, InputError, "try --no-schema"),
    ],
)
def test_what_is_wrong_with_all_requests_ends_at_once(
    server: ChatServer, images: Path, tmp_path: Path, status: int, code: str | None, error: type, says: str
) -> None:
    server.react = lambda ask: ask.fail(status, code, Location="http://127.0.0.1:1/")
    with pytest.raises(error, match=says):
        run(server, images, tmp_path / "out", concurrency=1)
    assert len(server.asks) == (3 if status == 400 else 1)
    server.react = good
    assert run(server, images, tmp_path / "out")["pictures"]["with pairs"] == 3


def test_a_failure_without_an_answer_leaves_what_was_written(
    server: ChatServer, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(server, images, tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    server.react = lambda ask: ask.fail(401)
    with pytest.raises(InputError):
        run(server, images, tmp_path / "out", model="wrong")
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(InputError, match="OPENAI_API_KEY is not set"):
        run(server, images, tmp_path / "out", model="other")
    assert rows_of(tmp_path / "out") == rows


def test_one_request_that_is_rejected_leaves_the_others_alone(server: ChatServer, images: Path, tmp_path: Path) -> None:
    server.react = lambda ask: ask.fail(413, message="too large") if ask.number == 1 else good(ask)
    made = run(server, images, tmp_path / "out", concurrency=1)
    assert made["pictures"]["with pairs"] == 2
    assert made["pictures"]["without an answer"] == 1
    assert "too large" in (tmp_path / "out" / "review.html").read_text()
    assert run(server, images, tmp_path / "out")["pictures"]["with pairs"] == 3


def test_an_endpoint_that_is_down_is_not_asked_for_ever(server: ChatServer, tmp_path: Path) -> None:
    images = paint(tmp_path / "pictures", 20)
    server.react = lambda ask: good(ask) if ask.number < 2 else ask.fail(502)
    with pytest.raises(RunError, match="5 pictures in a row") as error:
        run(server, images, tmp_path / "out", concurrency=1)
    assert "HTTP 502" in str(error.value)
    assert len(server.asks) == 2 + 5 * 3
    assert len(rows_of(tmp_path / "out")) == 2  # what was answered is there
    with pytest.raises(RunError, match="connection lost"):
        run(replace(server, url="http://127.0.0.1:1/v1"), images, tmp_path / "out")


def test_replies_are_bounded(server: ChatServer, images: Path, tmp_path: Path) -> None:
    import gzip

    server.react = lambda ask: ask.send(200, b"x" * (9 << 20))
    with pytest.raises(RunError):
        run(server, paint(images, 5, first=30), tmp_path / "out", attempts=1)
    assert "more than 8,388,608 bytes" in (tmp_path / "out" / "requests.jsonl").read_text()
    server.react = lambda ask: ask.send(200, gzip.compress(bytes(1_000)), Content_Encoding="gzip")
    with pytest.raises(RunError, match="a compressed reply"):
        run(server, images, tmp_path / "out", attempts=1)


def test_broken_pictures_are_counted_and_cost_nothing(server: ChatServer, images: Path, tmp_path: Path) -> None:
    (images / "empty.png").write_bytes(b"")
    (images / "text.jpg").write_text("hello")
    (images / "cut.png").write_bytes((images / "000.png").read_bytes()[:600])
    made = run(server, images, tmp_path / "out")
    assert made["pictures"]["broken"] == 3
    assert len(server.asks) == 3
    page = (tmp_path / "out" / "review.html").read_text()
    assert all(f"<h3>{name}</h3>" in page for name in ("empty.png", "text.jpg", "cut.png"))


def test_a_folder_without_pictures_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    for place in (tmp_path, tmp_path / "none"):
        with pytest.raises(DataError, match="no pictures"):
            find_pictures(place, 1024)


def test_links_are_not_followed(images: Path, tmp_path: Path) -> None:
    (images / "link.png").symlink_to(paint(tmp_path / "outside", 1, first=50) / "050.png")
    assert [one.name for one in find_pictures(images, 1024).unique] == ["000.png", "001.png", "002.png"]


KILLED = """
import sys
from pathlib import Path
from rich.console import Console
from lorgnette.data.making.make import make
from lorgnette.data.making.pictures import find_pictures
from lorgnette.data.making.plan import Settings
from lorgnette.data.making.prompt import read_prompt

settings = Settings(model="eye", prompt=read_prompt("en", 5), base_url=sys.argv[1], concurrency=3)
make(find_pictures(Path(sys.argv[2]), 1024), Path(sys.argv[3]), settings, Console(quiet=True))
"""


def test_a_kill_loses_nothing_that_was_answered(server: ChatServer, tmp_path: Path) -> None:
    images, out = paint(tmp_path / "pictures", 12), tmp_path / "out"
    server.react = lambda ask: (time.sleep(0.1), ask.complete("no JSON" if ask.round == 0 else pairs_text()))[1]
    process = subprocess.Popen([sys.executable, "-c", KILLED, server.url, str(images), str(out)])
    deadline = time.monotonic() + 60
    while len(server.asks) < 11 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.2)  # the server notices
    log = (out / "requests.jsonl").read_bytes()
    answered = [json.loads(line)["request"] for line in log.splitlines() if b'"answered"' in line]
    sent, before = log.count(b'"sent"'), len(server.asks)
    # written down before it is sent; what was in flight is lost, nothing else
    assert 6 <= len(answered) <= before <= sent <= len(answered) + 3
    (out / "requests.jsonl").write_bytes(log + b'{"event": "answered", "requ')  # and a line may be cut
    assert plan(find_pictures(images, 1024), settings_for(server).open_ledger(out), settings_for(server))["to_ask"]
    assert (out / "requests.jsonl").read_bytes().endswith(b'"requ')  # looking changes nothing
    made = run(server, images, out, concurrency=3)
    assert made["pictures"]["with pairs"] == 12
    # two requests a picture (the repair goes on where it was), and those in flight once more
    assert len(server.asks) == 24 + before - len(answered)
    assert made["requests"] == 24 + sent - len(answered)
    assert made["requests_with_estimated_tokens"] == sent - len(answered)


def test_a_damaged_log_is_an_error_and_not_paid_again(server: ChatServer, images: Path, tmp_path: Path) -> None:
    run(server, images, tmp_path / "out")
    log = tmp_path / "out" / "requests.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    for damaged in (b"{}\n", b"no JSON\n", b'{"event": "x", "key": "", "request": 1}\n', b"[]\n"):
        log.write_bytes(b"".join([*lines[:2], damaged, *lines[2:]]))
        with pytest.raises(DataError, match=r"requests\.jsonl, line 3"):
            run(server, images, tmp_path / "out")
    assert len(server.asks) == 3


def test_the_ledger_counts_what_is_in_the_air(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "log.jsonl", PRICES, max_cost=0.03)
    estimate = Tokens(1_000, 1_000)  # 0.011
    first, second = ledger.sent("a", "a.png", estimate), ledger.sent("b", "b.png", estimate)
    assert ledger.limit(estimate) == "--max-cost"
    ledger.answered(first, "a", Answer("x", None, "stop", 1_000, Tokens(2_000, 100)))  # 0.003
    assert ledger.limit(estimate) == ""
    assert ledger.limit(Tokens(5_000, 1_000)) == "--max-cost"  # the input was estimated at half of what it is
    ledger.failed(second, "b", "HTTP 500", charged=False)
    assert (ledger.cost, ledger.unmeasured, ledger.requests) == (pytest.approx(0.003), 0, 2)
    again = Ledger(tmp_path / "log.jsonl", PRICES)
    assert (again.cost, again.answers, again.failures) == (ledger.cost, ledger.answers, {"b": "HTTP 500"})


@pytest.mark.parametrize(
    ("content", "outcome", "reason"),
    [
        (pairs_text(), "pairs", ""),
        (f"```json\n{pairs_text()}\n```", "pairs", ""),
        (f"```\n{pairs_text()}\n```\n", "pairs", ""),
        (f"Here: {pairs_text()}", "invalid", "Invalid JSON"),
        (f"{pairs_text()} Enjoy!", "invalid", "Invalid JSON"),
        (None, "invalid", "Invalid JSON"),
        ("[]", "invalid", "Input should be an object"),
        (pairs_text(6), "invalid", "6 pairs instead of 5"),
        (pairs_text().replace("A circle, 3.", "  "), "invalid", "pairs.3.answer: Value error, empty text"),
        (pairs_text().replace("A circle, 3.", "<image>"), "invalid", "the tag <image>"),
        (pairs_text().replace("A circle, 3.", "x" * 4_001), "invalid", "more than 4000 characters"),
        (pairs_text().replace('"A circle, 3."', "3"), "invalid", "pairs.3.answer"),
        (pairs_text().replace("circle, 3", "\\ud800"), "invalid", "Invalid JSON"),
        (pairs_text().replace('"pairs"', '"Pairs"'), "invalid", "pairs: Field required"),
        (pairs_text()[:-1] + ', "note": 1}', "invalid", "note: Extra inputs"),
    ],
)
def test_answers_are_judged_strictly(content: str | None, outcome: str, reason: str) -> None:
    verdict = judge(Answer(content, None, "stop", 100, None), 5)
    assert verdict.outcome == outcome
    assert reason in verdict.reason
    assert len(verdict.pairs) == (5 if outcome == "pairs" else 0)


def test_the_schema_is_one_that_strict_endpoints_take() -> None:
    schema = response_format()["json_schema"]["schema"]
    assert schema["required"] == ["pairs"]
    pair = schema["$defs"]["Pair"]
    assert (pair["required"], pair["additionalProperties"]) == (["question", "answer"], False)
    assert not {"minLength", "maxLength", "minItems"} & set(json.dumps(schema).replace('"', " ").split())


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_prompts_of_all_languages_say_the_same_things(language: str) -> None:
    prompt = read_prompt(language, 7)
    assert prompt.ask.count("7") == 2
    assert '{"pairs": [{"question": "...", "answer": "..."}]}' in prompt.ask
    assert prompt.ask.count("\n- ") == 6
    repaired = prompt.repaired("<mistake>")
    assert "<mistake>" in repaired
    assert "7" in repaired
    assert "{" not in repaired.replace('{"pairs": [{"question": "...", "answer": "..."}]}', "")
    alphabet = {"ru": "а-яё", "zh": "\u4e00-\u9fff"}.get(language)
    if alphabet:
        import re

        assert len(re.findall(f"[{alphabet}]", prompt.ask)) > 250


def test_a_prompt_of_ones_own_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text('Ask {pairs} times: {"pairs": [{"question": "", "answer": ""}]}')
    prompt = read_prompt(str(file), 3)
    assert prompt.ask.startswith("Ask 3 times")
    assert prompt.repair == read_prompt("en", 3).repair
    file.write_text(file.read_text() + "\n---\nNo: {mistake}")
    assert read_prompt(str(file), 3).repaired("x") == "No: x"
    file.write_text("Ask me.")
    with pytest.raises(InputError, match=r"\{pairs\}, \"pairs\", \"question\", \"answer\" does not occur"):
        read_prompt(str(file), 3)
    with pytest.raises(InputError, match="Allowed: en, ru, zh, es"):
        read_prompt("fr", 3)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="no UTF-8"):
        read_prompt(str(file), 3)


def test_the_plan_estimates_first_and_measures_later(server: ChatServer, images: Path, tmp_path: Path) -> None:
    settings = settings_for(server, prices=PRICES, max_tokens=1_000)
    found = find_pictures(images, 1024)
    first = plan(found, settings.open_ledger(tmp_path / "out"), settings)
    text = len(settings.prompt.ask.encode()) // 3
    assert first["expected_tokens"] == {"input": 3 * (2 + text), "output": 3 * 300}
    assert first["measured"] is False
    worst = Tokens(3 * (2 * (2 + text) + 1_000), 3 * 2_000)
    assert first["worst_cost"] == pytest.approx(PRICES.cost(worst))
    assert not (tmp_path / "out").exists()
    run(server, images, tmp_path / "out", prices=PRICES)
    paint(images, 2, first=30)
    later = plan(find_pictures(images, 1024), settings.open_ledger(tmp_path / "out"), settings)
    assert (later["to_ask"], later["answered_already"], later["measured"]) == (2, 3, True)
    assert later["expected_tokens"] == {"input": 2_000, "output": 400}
    assert later["spent"] == pytest.approx(0.009)


def test_the_review_page_shows_and_escapes(server: ChatServer, images: Path, tmp_path: Path) -> None:
    evil = pairs_text().replace("A circle, 0.", "<script>alert(1)</script>")
    server.react = lambda ask: ask.complete(evil)
    run(server, images, tmp_path / "out", model="<i>eye</i>")
    page = (tmp_path / "out" / "review.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<i>eye" not in page
    assert page.count('<img src="data:image/jpeg;base64,') == 3
    assert page.count("<li>") == 15
    assert "default-src 'none'" in page


def test_the_command_goes_from_the_estimate_to_the_page(
    server: ChatServer, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    command = ["data", "make", str(images), str(out), "--model", "eye", "--base-url", server.url]
    priced = [*command, "--input-price", "1", "--output-price", "10"]
    dry = CliRunner().invoke(app, [*priced, "--dry-run"])
    assert dry.exit_code == 0, dry.output
    assert "3 pictures to ask about" in dry.output
    assert "at the very most" in dry.output
    assert not server.asks
    assert not out.exists()
    done = CliRunner().invoke(app, [*priced, "--max-requests", "2", "--prompt", "es"])
    assert done.exit_code == 0, done.output
    assert "Stopped by --max-requests" in done.output
    assert f"format: llava, images: {images}" in done.output
    assert len(server.asks) == 2
    assert "Observa con atenci\u00f3n" in server.asks[0].body["messages"][0]["content"][1]["text"]
    half = CliRunner().invoke(app, [*command, "--input-price", "1"])
    assert isinstance(half.exception, InputError)
    monkeypatch.delenv("OPENAI_API_KEY")
    without = CliRunner().invoke(app, command)
    assert isinstance(without.exception, InputError)
    assert "OPENAI_API_KEY is not set" in str(without.exception)


def test_missing_libraries_name_the_extra(
    server: ChatServer, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    for name in [name for name in sys.modules if name.startswith("lorgnette.data.making.")]:
        if name.endswith((".asking", ".endpoint")):
            monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingExtra, match=r"lorgnette\[make\]"):
        run(server, images, tmp_path / "out")
