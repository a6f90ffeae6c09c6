"""One command at a time in a folder, and nothing left of one whose input was refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from lorgnette.errors import InputError
from lorgnette.processes import is_main


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second command out of a run folder; the other processes of one launch come in with the main one.

    If the block fails, the lock and the folders that were made for it go again, as far as they are empty: input that is
    refused leaves nothing behind.

    Raises:
        InputError: if another process works in it, or it cannot be made.
    """
    if not is_main():
        yield
        return
    file, new = folder / ".lock", []
    try:
        new = [path for path in (file, folder, *folder.parents) if not path.exists()]  # from the inside out
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file, timeout=0)
        lock.acquire()
    except Timeout as error:
        raise InputError(
            f"{folder}: another lorgnette works in this folder. Next: wait for it, or choose another --output."
        ) from error
    except OSError as error:
        _remove_empty([path for path in new if path != file])
        raise InputError(
            f"{folder}: cannot be used as a run folder ({error}). Next: choose another --output."
        ) from error
    try:
        yield
    except BaseException:
        if file in new:  # still locked, so it is nobody else's
            file.unlink(missing_ok=True)
        _remove_empty([path for path in new if path != file])
        raise
    finally:
        lock.release()


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove those of some folders, the innermost first, that are there and hold nothing."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
