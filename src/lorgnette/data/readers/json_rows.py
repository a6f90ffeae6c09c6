"""Rows of a JSON list or of JSON lines, plain or gzipped, one at a time.

A list is parsed row by row out of a window on the file, so that 200 MB of conversations are never in memory at once.
"""

from __future__ import annotations

import gzip
import itertools
import json
import zlib
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from lorgnette.errors import DataError, nearest

WINDOW = 1 << 18
"""Characters that are read at a time."""
LONGEST_ROW = 1 << 27
"""Most characters of one row: with its images inside it a row is large, but a bomb is larger."""
GZIP = b"\x1f\x8b"
IMAGE_STARTS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*")
"""How JPEG, PNG, GIF and TIFF begin."""
LITERAL = 16
"""An error this near to the end of the window may be a word or an escape that goes on after it."""


class BrokenLine(Exception):
    """One line of JSON lines is no JSON; the others can still be read."""


def json_rows(file: Path) -> Iterator[Any | BrokenLine]:
    """Yield every row of a JSON list, or of a file with one JSON value a line.

    Raises:
        DataError: if the file is missing, empty, truncated, no UTF-8, or a list that is no JSON.
    """
    try:
        with open_text(file) as stream:
            number, start = 1, stream.read(1)
            while start and start.isspace():
                number += start == "\n"
                start = stream.read(1)
            if not start:
                raise DataError(f"{file}: the file is empty. Allowed: a JSON list of rows, or one row a line.")
            yield from _list_rows(stream, file) if start == "[" else _line_rows(stream, start, number, file)
    except UnicodeDecodeError as error:
        raise DataError(no_text(file, error)) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{file}: cannot be unpacked ({error}). Next: copy the file anew.") from error
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error}).") from error


def no_text(file: Path, error: UnicodeDecodeError) -> str:
    """Say why a file is no UTF-8 text: it is an image, or written in another encoding."""
    with file.open("rb") as stream:
        start = stream.read(16)
    if start.startswith(IMAGE_STARTS) or start[8:12] == b"WEBP":
        return (
            f"{file}: is an image. Allowed: a file with rows, which name images. Next: give that file, and the folder "
            "of the images as `images`."
        )
    return f"{file}: cannot be read as UTF-8 text ({error!s:.200}). Next: save it as UTF-8."


def open_text(file: Path, newline: str | None = None) -> TextIOWrapper:
    """Open a UTF-8 text file, unpacked where it is gzipped.

    Raises:
        DataError: if there is no such file; what breaks while it is read is the reader's to explain.
    """
    try:
        if file.exists() and not file.is_file():
            raise DataError(f"{file}: is no file.")
        stream = file.open("rb")
    except (FileNotFoundError, NotADirectoryError) as error:
        near = [entry.name for entry in file.parent.iterdir()] if file.parent.is_dir() else []
        raise DataError(f"{file}: there is no such file.{nearest(file.name, near)} Next: check the path.") from error
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise DataError(f"{file}: cannot be read ({error}).") from error
    if stream.peek(2)[:2] == GZIP:
        stream.close()
        return gzip.open(file, "rt", encoding="utf-8-sig", newline=newline)
    return TextIOWrapper(stream, encoding="utf-8-sig", newline=newline)


def _list_rows(stream: TextIOWrapper, file: Path) -> Iterator[Any]:
    """Yield the values of a list whose opening bracket has been read."""
    window, place, row = stream.read(WINDOW), 0, 0
    ended = False  # nothing follows the window
    decode = json.JSONDecoder().raw_decode

    def widen() -> None:
        nonlocal window, place, ended
        if len(window) - place > LONGEST_ROW:
            raise DataError(f"{file}, row {row}: more than {LONGEST_ROW:,} characters.")
        more = stream.read(max(WINDOW, len(window) - place))
        window, place, ended = window[place:] + more, 0, not more

    def skip_space() -> str:
        """Go to the next character that means something and return it, "" at the end."""
        nonlocal place
        while True:
            while place < len(window) and window[place] in " \t\n\r":
                place += 1
            if place < len(window) or ended:
                return window[place : place + 1]
            widen()

    if skip_space() == "]":
        return
    while True:
        try:
            value, stop = decode(window, place)
        except json.JSONDecodeError as error:
            cut = error.msg.startswith("Unterminated string") or error.pos >= len(window) - LITERAL
            if ended or not cut:
                raise DataError(_broken(file, row, error.msg)) from error
            widen()
            continue
        except (ValueError, RecursionError) as error:  # a number of thousands of digits; too deep
            raise DataError(_broken(file, row, error)) from error
        if stop > len(window) - LITERAL and not ended:  # a number may go on
            widen()
            continue
        yield value
        place, row = stop, row + 1
        mark = skip_space()
        place += 1
        if mark == "]":
            break
        if mark != ",":
            raise DataError(_broken(file, row, f"{mark!r} after the row before it" if mark else "it ends in the list"))
        skip_space()
    if skip_space():
        raise DataError(f"{file}: no valid JSON (something follows the list). Next: is it two files in one?")


def _line_rows(stream: TextIOWrapper, start: str, first: int, file: Path) -> Iterator[Any | BrokenLine]:
    for number in itertools.count(first):
        line = (start if number == first else "") + stream.readline(LONGEST_ROW)
        if not line:
            return
        if not line.strip():
            continue
        if len(line) >= LONGEST_ROW:
            raise DataError(f"{file}, line {number}: more than {LONGEST_ROW:,} characters.")
        try:
            yield json.loads(line)
        except (ValueError, RecursionError) as error:
            # json would name a line of its own, which is always 1
            reason = f"{error.msg}, character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else error
            problem = f"{file}, line {number}: no valid JSON ({reason})."
            if number == first:
                raise DataError(f"{problem} Allowed: a JSON list of rows, or one row a line.") from error
            if not line.endswith("\n"):
                raise DataError(f"{problem} Next: the file may be truncated; copy it anew.") from error
            yield BrokenLine(f"line {number} is no valid JSON ({reason}).")


def _broken(file: Path, row: int, reason: object) -> str:
    return f"{file}, row {row}: no valid JSON ({reason}). Next: the file may be truncated; copy it anew."
