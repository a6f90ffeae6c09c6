"""The run folder: files and folders that are whole or absent, provenance, metrics, checkpoints.

Knows nothing about models. Everything that another start of the same run reads back was written to a name of its own
first and renamed when it was complete, so that a kill at any moment leaves the last whole state.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lorgnette import __version__
from lorgnette.errors import DataError, InputError

WHOLE = "whole.json"
"""Written last into a checkpoint: names and sizes of its files. Without it a checkpoint does not count."""

RECORD = "lorgnette.json"
"""In every folder of a model, an adapter or a projector that we write: what it is, and what it was made of."""

REMEDY = (
    "Next: bring it back from a copy, or delete it (in a run: the folder that it lies in) and run the command again."
)


def cache_folder(kind: str) -> Path:
    """Return the folder for one kind of things that can be made again: `lorgnette/KIND` under `XDG_CACHE_HOME`.

    That is `~/.cache` where it is not set. Whatever is in there may be deleted at any time.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lorgnette" / kind


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Give a folder to write into that takes the name `folder` only when the block ends without an error."""
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        sync_tree(unfinished)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)  # a full disk should not stay full
        raise
    if folder.exists():
        shutil.rmtree(folder)
    unfinished.rename(folder)


def require_absent(output: Path) -> None:
    """Check that nothing is where a new folder is to be written.

    Raises:
        InputError: if something is.
    """
    if output.exists():
        raise InputError(
            f"{output}: is there already and is left as it is. Next: choose another name for the output, or delete it."
        )


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    # half of a surrogate pair has no UTF-8 form; a question mark in its place is better than no file
    write_bytes(path, text.encode("utf-8", errors="replace"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        with unfinished.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        DataError: if the file is missing or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file. {REMEDY}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}). {REMEDY}") from error


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        DataError: if the file is missing, no JSON, or another value.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise DataError(f"{path}: is no JSON object. {REMEDY}")
    return value


def read_record(folder: Path) -> dict[str, Any]:
    """Read what a folder says of itself, empty if it says nothing.

    Raises:
        DataError: if its record is no JSON object.
    """
    file = folder / RECORD
    return read_json_object(file) if file.is_file() else {}


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read the whole lines of a file that may have been cut while it was written; none if there is no file.

    Raises:
        DataError: naming the line that is no JSON object, or if it is no file.
    """
    if not path.exists():
        return []
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}). Next: move it away and run the command again.") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.endswith(b"\n"):
            break  # the process was killed within this line
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: no JSON object. Next: delete the file and run the command again.")
        rows.append(row)
    return rows


def write_json_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write one JSON object a line, whole or not at all."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def append_json_line(path: Path, row: dict[str, Any]) -> None:
    """Append one JSON object as a line; what a kill or a full disk left of a line before is taken away."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", errors="replace")
    with path.open("ab+") as stream:
        end = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, end - 1))
        if end and stream.read(1) != b"\n":
            stream.seek(0)
            content = stream.read()
            begins = content.rfind(b"\n") + 1
            if _is_json(content[begins:]):  # only its end is missing, as some editors leave it
                line = b"\n" + line
            else:
                stream.truncate(begins)
        stream.write(line)


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def sync_tree(folder: Path) -> None:
    """Ask the system to bring every file of a folder to the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())


def seal_checkpoint(folder: Path) -> None:
    """Mark a checkpoint as whole: the last thing that is written into it."""
    sync_tree(folder)
    sizes = {str(file.relative_to(folder)): file.stat().st_size for file in folder.rglob("*") if file.is_file()}
    write_json(folder / WHOLE, sizes)


def last_whole_checkpoint(folder: Path) -> Path | None:
    """Find the newest checkpoint that was written to its end, and delete those that were not."""
    found = None
    numbered = [path for path in folder.glob("checkpoint-*") if path.name.rpartition("-")[2].isdecimal()]
    for checkpoint in sorted(numbered, key=lambda path: int(path.name.rpartition("-")[2])):
        if is_whole(checkpoint):
            found = checkpoint
        else:
            shutil.rmtree(checkpoint)
    return found


def is_whole(checkpoint: Path) -> bool:
    """Tell whether all files that the seal names are there in their full size."""
    seal = checkpoint / WHOLE
    if not seal.is_file():
        return False
    sizes = read_json(seal)
    return isinstance(sizes, dict) and all(
        (checkpoint / name).is_file() and (checkpoint / name).stat().st_size == size for name, size in sizes.items()
    )


def provenance(command: Sequence[str]) -> dict[str, Any]:
    """Record what made a run: command, versions, machine. Times are UTC."""
    return {
        "command": list(command),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": library_versions(),
        "machine": {"system": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()},
        "executable": sys.executable,
    }


def library_versions() -> dict[str, str | None]:
    """Return the versions of everything that numbers depend on."""
    names = ("torch", "transformers", "peft", "accelerate", "tokenizers", "safetensors", "numpy", "pillow")
    own = {"lorgnette": __version__, "python": platform.python_version()}
    return own | {name: _version(name) for name in names}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
