"""Downloads from a local server that breaks off, lies, redirects and refuses."""

from __future__ import annotations

import hashlib
import random
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from rich.console import Console

from lorgnette.data.downloading import Remote, download, parse_remote
from lorgnette.data.retrying import retry_after
from lorgnette.errors import DataError, InputError, RunError
from lorgnette.progress import progress_bar

CONTENT = random.Random(0).randbytes(500_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Site:
    """A server whose answer to each path is a function of the request."""

    url: str = ""
    answers: dict[str, Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def fetch(self, path: str, folder: Path, sha256: str | None = None, max_bytes: int = 10_000_000) -> Path:
        with progress_bar(Console()) as progress:
            return download(
                Remote(f"{self.url}{path}", path.strip("/"), sha256),
                folder,
                max_bytes=max_bytes,
                progress=progress,
                attempts=3,
                first_wait=0.001,
                timeout=2.0,
            )


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append((self.path, self.headers.get("Range")))
            site.answers[self.path](self)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        site.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield site
        server.shutdown()
        thread.join()


def send(
    request: BaseHTTPRequestHandler,
    body: bytes = b"",
    status: int = 200,
    length: int | None = None,
    **headers: str,
) -> None:
    request.send_response(status)
    request.send_header("Content-Length", str(len(body) if length is None else length))
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    request.wfile.write(body)


def ranged(content: bytes = CONTENT, most: int | None = None, tag: str = '"v1"') -> Callable:
    """Serve ranges properly, but break off after `most` bytes."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        valid = request.headers.get("If-Range") in (None, tag)
        start = int(asked[1]) if asked and valid else 0
        body = content[start:]
        headers = {"ETag": tag}
        if asked and valid:
            headers["Content_Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        send(request, body[:most], 206 if asked and valid else 200, len(body), **headers)

    return answer


def test_a_file_comes_once_and_is_checked(site: Site, tmp_path: Path) -> None:
    site.answers["/a.zip"] = ranged()
    assert site.fetch("/a.zip", tmp_path, SHA256).read_bytes() == CONTENT
    assert site.fetch("/a.zip", tmp_path, SHA256).read_bytes() == CONTENT
    assert site.asked == [("/a.zip", None)]
    assert [file.name for file in tmp_path.iterdir()] == ["a.zip"]


def test_a_download_goes_on_where_it_broke_off(site: Site, tmp_path: Path) -> None:
    site.answers["/a.zip"] = ranged(most=100_000)
    assert site.fetch("/a.zip", tmp_path, SHA256).read_bytes() == CONTENT
    # five breaks although three attempts are allowed: each of them brought something
    assert [asked for _, asked in site.asked] == [None, *(f"bytes={number}00000-" for number in range(1, 5))]


def test_the_next_call_goes_on_and_a_changed_file_starts_anew(site: Site, tmp_path: Path) -> None:
    site.answers["/a.zip"] = ranged(most=10_000)  # too little to count as progress
    with pytest.raises(RunError, match="broke off after 30,000") as error:
        site.fetch("/a.zip", tmp_path)
    assert "What came is kept" in str(error.value)
    assert (tmp_path / "a.zip.part").stat().st_size == 30_000
    assert not (tmp_path / "a.zip").exists()
    site.asked.clear()
    site.answers["/a.zip"] = ranged()
    assert site.fetch("/a.zip", tmp_path).read_bytes() == CONTENT
    assert site.asked == [("/a.zip", "bytes=30000-")]
    site.answers["/b.zip"] = ranged(most=10_000)
    with pytest.raises(RunError):
        site.fetch("/b.zip", tmp_path)
    other = CONTENT[::-1]
    site.answers["/b.zip"] = ranged(other, tag='"v2"')
    assert site.fetch("/b.zip", tmp_path).read_bytes() == other


def test_a_server_without_ranges_starts_from_zero(site: Site, tmp_path: Path) -> None:
    answers = iter([CONTENT[:200_000], CONTENT])
    site.answers["/a.zip"] = lambda request: send(request, next(answers), length=len(CONTENT))
    assert site.fetch("/a.zip", tmp_path).read_bytes() == CONTENT


def test_a_server_that_goes_on_elsewhere_starts_from_zero(site: Site, tmp_path: Path) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        if request.headers.get("Range"):
            send(request, CONTENT[:10], 206, Content_Range=f"bytes 7-16/{len(CONTENT)}")
        else:
            first = len(site.asked) == 1
            send(request, CONTENT[: 200_000 if first else None], length=len(CONTENT))

    site.answers["/a.zip"] = answer
    assert site.fetch("/a.zip", tmp_path).read_bytes() == CONTENT
    assert len(site.asked) == 3


def test_a_server_that_promises_more_than_it_has_is_given_up(site: Site, tmp_path: Path) -> None:
    site.answers["/a.zip"] = lambda request: send(request, CONTENT, length=len(CONTENT) + 7)
    with pytest.raises(RunError, match="broke off after 500,000"):
        site.fetch("/a.zip", tmp_path)
    assert len(site.asked) == 4  # the first brought something

    def lying(request: BaseHTTPRequestHandler) -> None:
        total = len(CONTENT) * 2
        if request.headers.get("Range"):
            send(request, b"", 416)
        else:
            send(request, CONTENT, length=total)

    site.answers["/b.zip"] = lying
    with pytest.raises(RunError):
        site.fetch("/b.zip", tmp_path)


def test_a_total_that_the_body_exceeds_is_a_lie(site: Site, tmp_path: Path) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        if request.headers.get("Range"):
            send(request, CONTENT, 206, Content_Range=f"bytes 100000-499999/{len(CONTENT)}", ETag='"v"')
        else:
            send(request, CONTENT[:100_000], length=len(CONTENT), ETag='"v"')

    site.answers["/a.zip"] = answer
    with pytest.raises(DataError, match="says 500,000 bytes, and sends more"):
        site.fetch("/a.zip", tmp_path)
    assert not (tmp_path / "a.zip.part").exists()


def test_sizes_are_bounded_with_and_without_a_length(site: Site, tmp_path: Path) -> None:
    site.answers["/a.zip"] = ranged()
    with pytest.raises(DataError, match=r"500,000 bytes\. Allowed: 400,000") as error:
        site.fetch("/a.zip", tmp_path, max_bytes=400_000)
    assert "--max-download" in str(error.value)

    def endless(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(CONTENT)

    site.answers["/b.zip"] = endless
    with pytest.raises(DataError, match="sends more than 400,000"):
        site.fetch("/b.zip", tmp_path, max_bytes=400_000)
    assert not (tmp_path / "b.zip.part").exists()
    assert site.fetch("/b.zip", tmp_path).read_bytes() == CONTENT


def test_another_hash_is_an_error_and_the_file_goes(site: Site, tmp_path: Path) -> None:
    site.answers["/a.zip"] = ranged()
    with pytest.raises(DataError, match=f"has sha256 {SHA256}. Allowed: {'0' * 64}"):
        site.fetch("/a.zip", tmp_path, "0" * 64)
    assert not [file for file in tmp_path.iterdir() if file.suffix != ".json"]


def test_redirects_are_followed_a_few_times_and_to_http_only(site: Site, tmp_path: Path) -> None:
    def to(place: str) -> Callable:
        return lambda request: send(request, status=302, Location=place)

    site.answers |= {"/a.zip": to("/b"), "/b": to(f"{site.url}/c"), "/c": ranged()}
    assert site.fetch("/a.zip", tmp_path, SHA256).read_bytes() == CONTENT
    site.answers["/loop.zip"] = to("/loop.zip")
    with pytest.raises(DataError, match="more than 5 redirects"):
        site.fetch("/loop.zip", tmp_path)
    for place in ("file:///etc/passwd", "ftp://example.org/a.zip"):
        site.answers["/away.zip"] = to(place)
        with pytest.raises(DataError, match=f"redirects from http to {place.split(':')[0]}"):
            site.fetch("/away.zip", tmp_path)


def test_refusals_are_final_and_trouble_is_tried_again(site: Site, tmp_path: Path) -> None:
    site.answers["/gone.zip"] = lambda request: send(request, status=404)
    with pytest.raises(DataError, match="the server answers 404"):
        site.fetch("/gone.zip", tmp_path)
    assert len(site.asked) == 1
    statuses = iter([503, 429])

    def answer(request: BaseHTTPRequestHandler) -> None:
        status = next(statuses, None)
        send(request, status=status, Retry_After="0") if status else ranged()(request)

    site.answers["/a.zip"] = answer
    assert site.fetch("/a.zip", tmp_path).read_bytes() == CONTENT
    site.asked.clear()
    site.answers["/later.zip"] = lambda request: send(request, status=429, Retry_After="86400")
    with pytest.raises(RunError, match="the server answers 429"):
        site.fetch("/later.zip", tmp_path)
    assert len(site.asked) == 1  # nobody waits a day


def test_no_server_is_an_explained_failure(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no connection"):
        Site("http://127.0.0.1:1").fetch("/a.zip", tmp_path)


def test_urls_are_read_with_their_hash() -> None:
    assert parse_remote("https://example.org/x/a%20b.zip?download=1") == Remote(
        "https://example.org/x/a%20b.zip?download=1", "a b.zip"
    )
    assert parse_remote(f"http://example.org/a.zip#sha256={SHA256.upper()}").sha256 == SHA256
    assert str(parse_remote("https://user:word@example.org/a.zip?token=1")) == "https://example.org/a.zip"


@pytest.mark.parametrize(
    "url",
    [
        "a.zip",
        "ftp://example.org/a.zip",
        "file:///etc/passwd",
        "https://example.org/",
        "https:///a.zip",
        "https://example.org/..",
        "https://example.org/%2e%2e%2fa%5c",
        "https://[::1/a.zip",
        "https://example.org/a.zip#sha256=12",
        "https://example.org/a.zip#md5=12",
        "https://example.org/.hidden",
    ],
)
def test_urls_that_cannot_be_used_are_refused(url: str) -> None:
    with pytest.raises(InputError, match="--url"):
        parse_remote(url)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), (None, None), ("soon", None), ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0), ("-1", None), ("1e9", None)],
)
def test_the_retry_after_header(header: str | None, seconds: float | None) -> None:
    assert retry_after(header) == seconds
