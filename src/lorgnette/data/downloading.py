"""Fetch a file over HTTP: goes on where it broke off, checked and bounded.

What a server says about itself is not believed: lengths are compared with what came, redirects are followed a few
times and to http and https only, and a file takes its name when all of it is there. Knows nothing of what is in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import httpx
from rich.progress import Progress
from tenacity import Retrying, retry_if_exception_type

from lorgnette.data.retrying import Interrupted, is_transient, retry_after, stopping, waiting
from lorgnette.errors import DataError, InputError, RunError
from lorgnette.run import file_hash, read_json_object, write_json

MOST_REDIRECTS = 5
PROGRESS_BYTES = 65_536
"""An attempt that brought as much counts as progress. Less does not: a server that sends a byte and breaks off would
be asked for ever."""


@dataclass(frozen=True, slots=True)
class Remote:
    """A file to fetch.

    Attributes:
        name: the name that it gets here, the last part of the URL's path.
        sha256: hexadecimal, if it is known.
    """

    url: str
    name: str
    sha256: str | None = None

    def __str__(self) -> str:
        """Leave out what may be secret: user, password and query."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.hostname}{parts.path}"


def parse_remote(text: str) -> Remote:
    """Read `URL` or `URL#sha256=HEX`.

    Raises:
        InputError: if it is no http or https URL that ends in a file name, or the hash is none.
    """
    url, _, fragment = text.partition("#")
    try:
        parts = urlsplit(url)
        name = PurePosixPath(unquote(parts.path)).name
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        usable, name = False, ""
    if not usable or not re.fullmatch(r"[^\\/\0:]{1,200}", name) or name.startswith("."):
        raise InputError(f"--url {text}: Allowed: an http or https URL whose path ends in a file name.")
    digest = fragment.removeprefix("sha256=").lower()
    if fragment and not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise InputError(f"--url {text}: after # Allowed: sha256= and 64 hexadecimal digits.")
    return Remote(url, name, digest or None)


@dataclass
class _Fetch:
    """One file on its way; `most` is how much of it was here at any time of this call."""

    client: httpx.Client
    remote: Remote
    part: Path
    max_bytes: int
    tell: Callable[[int, int | None], None]
    most: int = 0

    @property
    def notes(self) -> Path:
        """Where it is kept which version of the file the part belongs to."""
        return self.part.with_name(f"{self.part.name}.json")


def download(
    remote: Remote,
    folder: Path,
    *,
    max_bytes: int,
    progress: Progress,
    attempts: int = 6,
    first_wait: float = 1.0,
    timeout: float = 60.0,
) -> Path:
    """Fetch a file into a folder, or return it if it is there already.

    What came before a break stays as `NAME.part` and is gone on with (`Range`), by the next attempt or the next call,
    if the server says that the file is still the same. `attempts` count from the last one that brought something.

    Raises:
        DataError: if the server refuses, lies about the length, redirects elsewhere, sends more than `max_bytes`, or
            the hash is another one.
        RunError: if it could not be fetched to its end.
    """
    target = folder / remote.name
    if target.is_file():
        _check_hash(target, remote)
        return target
    folder.mkdir(parents=True, exist_ok=True)
    task = progress.add_task(f"{remote.name} (MB)", total=None)

    def tell(size: int, total: int | None) -> None:
        progress.update(task, completed=size // 1_000_000, total=None if total is None else total // 1_000_000)

    with httpx.Client(timeout=timeout, follow_redirects=False) as client:
        fetch = _Fetch(client, remote, target.with_name(f"{target.name}.part"), max_bytes, tell)
        again = Retrying(
            stop=stopping(attempts),
            wait=waiting(first_wait),
            retry=retry_if_exception_type(Interrupted),
            reraise=True,
        )
        try:
            again(_attempt, fetch)
        except Interrupted as error:
            raise RunError(
                f"{remote}: {error.reason}. What came is kept. Next: call the same command again, or fetch it by hand "
                f"into {folder}"
            ) from error
    _check_hash(fetch.part, remote)
    fetch.part.rename(target)
    fetch.notes.unlink()
    return target


def _attempt(fetch: _Fetch) -> None:
    """Fetch what is missing; an interruption says whether there is more now than there ever was.

    A server that lies about the length makes the same bytes come again and again: they are no progress.
    """
    try:
        _go_on(fetch)
    except Interrupted as error:
        size = fetch.part.stat().st_size if fetch.part.is_file() else 0
        error.progressed = size - fetch.most >= PROGRESS_BYTES
        fetch.most = max(fetch.most, size)
        raise


def _go_on(fetch: _Fetch) -> None:
    """Fetch what is missing of a file in one request."""
    notes = read_json_object(fetch.notes) if fetch.notes.is_file() and fetch.part.is_file() else {}
    have = fetch.part.stat().st_size if notes.get("url") == fetch.remote.url else 0
    if have and have == notes["total"]:
        return
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if notes["validator"]:
            headers["If-Range"] = notes["validator"]
    with _answer(fetch, headers) as response:
        start, total = _extent(fetch, response, have, notes.get("total"))
        if (total or 0) > fetch.max_bytes:
            raise DataError(
                f"{fetch.remote}: {total:,} bytes. Allowed: {fetch.max_bytes:,}. Next: raise --max-download."
            )
        write_json(fetch.notes, {"url": fetch.remote.url, "validator": _validator(response), "total": total})
        size = _pour(fetch, response, start, total)
    if total is not None and size > total:
        fetch.part.unlink()
        raise DataError(f"{fetch.remote}: the server says {total:,} bytes, and sends more. Next: another URL.")
    if total is not None and size < total:
        raise Interrupted(f"broke off after {size:,} of {total:,} bytes")


@contextmanager
def _answer(fetch: _Fetch, headers: dict[str, str]) -> Iterator[httpx.Response]:
    """Open the response that redirects lead to."""
    request = fetch.client.build_request("GET", fetch.remote.url, headers=headers)
    try:
        for _ in range(MOST_REDIRECTS + 1):
            response = fetch.client.send(request, stream=True)
            following = response.next_request
            if following is None:
                break
            response.close()
            schemes = (request.url.scheme, following.url.scheme)
            if schemes[1] not in ("http", "https") or schemes == ("https", "http"):
                raise DataError(
                    f"{fetch.remote}: redirects from {schemes[0]} to {schemes[1]}. Allowed: to https, and from http to "
                    "http. Next: another URL."
                )
            request = following
        else:
            raise DataError(f"{fetch.remote}: more than {MOST_REDIRECTS} redirects. Next: another URL.")
    except httpx.TransportError as error:
        raise Interrupted(f"no connection ({error or type(error).__name__})") from error
    try:
        yield response
    finally:
        response.close()


def _extent(fetch: _Fetch, response: httpx.Response, have: int, known: int | None) -> tuple[int, int | None]:
    """Return where the body starts within the file, and the file's length if the server says it."""
    if response.status_code == 200:
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdecimal() else None
    if response.status_code == 206 and have:
        told = re.fullmatch(r"bytes (\d{1,18})-\d+/(\d{1,18}|\*)", response.headers.get("Content-Range", ""))
        total = int(told[2]) if told and told[2] != "*" else None
        if told and int(told[1]) == have and known in (None, total):
            return have, total
    if response.status_code in (206, 416):
        fetch.part.unlink(missing_ok=True)
        raise Interrupted("the server cannot go on in the middle, or the file has changed: from the start again")
    if is_transient(response.status_code):
        wait = retry_after(response.headers.get("Retry-After"))
        raise Interrupted(f"the server answers {response.status_code}", wait=wait)
    raise DataError(f"{fetch.remote}: the server answers {response.status_code}. Next: check the URL.")


def _pour(fetch: _Fetch, response: httpx.Response, start: int, total: int | None) -> int:
    """Write a body to the part, from `start`; return the size of the part."""
    size = start
    with fetch.part.open("r+b" if start else "wb") as stream:
        stream.seek(start)
        try:
            for chunk in response.iter_raw():
                size += len(chunk)
                if size > fetch.max_bytes:
                    break
                stream.write(chunk)
                fetch.tell(size, total)
        except httpx.TransportError as error:
            raise Interrupted(f"broke off after {size:,} bytes ({error or type(error).__name__})") from error
    if size > fetch.max_bytes:
        fetch.part.unlink()
        raise DataError(f"{fetch.remote}: sends more than {fetch.max_bytes:,} bytes. Next: raise --max-download.")
    return size


def _validator(response: httpx.Response) -> str | None:
    """Return what tells this version of the file from another one (RFC 9110, section 13.1.5: no weak tags)."""
    tag: str | None = response.headers.get("ETag")
    if tag and not tag.startswith("W/"):
        return tag
    modified: str | None = response.headers.get("Last-Modified")
    return modified


def _check_hash(file: Path, remote: Remote) -> None:
    if remote.sha256 is None:
        return
    found = file_hash(file)
    if found != remote.sha256:
        file.unlink()
        raise DataError(
            f"{remote}: the file has sha256 {found}. Allowed: {remote.sha256}. It was deleted. Next: check the hash, "
            "and call the same command again."
        )
