"""Every image decoded once, for check and training alike, by worker processes, while the rows that name it are read."""

from __future__ import annotations

import hashlib
import os
import signal
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context

from lorgnette.errors import RowError, RunError
from lorgnette.images.cache import Mark, image_cache, mark_of, recall_content, recall_file, refusal, remember
from lorgnette.images.facts import ImageFacts, image_facts, read_image_bytes

BATCH = 16
"""Images that a worker process takes at a time."""


class ImageStore:
    """Facts of images by path, each found once. Made by `image_store`.

    Args:
        alone: images that are decoded in this process before the pool is used.

    Attributes:
        decoded: how many images were decoded, not remembered.
    """

    def __init__(self, cache: sqlite3.Connection, pool: ProcessPoolExecutor | None, alone: int = 0) -> None:
        self.decoded = 0
        self._alone = alone
        self._cache = cache
        self._pool = pool
        self._known: dict[str, ImageFacts] = {}
        self._asked: dict[str, tuple[Future[list[tuple[ImageFacts, bool]]], int]] = {}
        self._marks: dict[str, Mark] = {}
        self._new: dict[str, tuple[Mark, ImageFacts]] = {}

    @property
    def asked(self) -> int:
        """Return how many distinct images were asked for."""
        return len(self._known) + len(self._asked)

    def look_ahead(self, paths: Iterable[str]) -> None:
        """Begin to find the facts of images that will be asked for."""
        unknown = []
        for path in dict.fromkeys(paths):
            if path in self._known or path in self._asked:
                continue
            try:
                mark = mark_of(path)
            except RowError as error:
                self._known[path] = ImageFacts(problem=(error.kind, error.reason))
                continue
            facts = recall_file(self._cache, path, mark)
            if facts is None:
                self._marks[path] = mark
                unknown.append(path)
            else:
                self._known[path] = facts
        for start in range(0, len(unknown), BATCH):
            batch = unknown[start : start + BATCH]
            pool = None if self._alone > 0 else self._pool
            self._alone -= len(batch)
            future = _done(batch) if pool is None else pool.submit(_look, batch)
            self._asked.update({path: (future, place) for place, path in enumerate(batch)})

    def facts(self, path: str) -> ImageFacts:
        """Return the facts of an image, waiting for them if need be.

        Raises:
            RunError: if decoding an image killed the worker process.
        """
        if path not in self._known:
            self.look_ahead([path])
        if path in self._asked:
            future, place = self._asked.pop(path)
            try:
                facts, is_new = future.result()[place]
            except BrokenProcessPool as error:
                raise RunError(
                    f"{path}: a worker process died decoding this image or one near it. Next: give it more memory, or "
                    "lorgnette data check with --workers 1: the image at which that stops is the one to remove."
                ) from error
            self.decoded += is_new
            self._known[path] = facts
            self._new[path] = (self._marks.pop(path), facts)
            if len(self._new) >= 1000:
                self.write()
        return self._known[path]

    def require_image(self, path: str) -> None:
        """Refuse an image that cannot be used.

        Raises:
            RowError: of the kind that was found.
        """
        error = refusal(path, self.facts(path))
        if error is not None:
            raise error

    def write(self) -> None:
        """Write what was found since the last time to the cache."""
        remember(self._cache, self._new)
        self._new.clear()


@contextmanager
def image_store(workers: int, alone: int = 0) -> Iterator[ImageStore]:
    """Open the cache and start the worker processes; with one worker, images are decoded in this process.

    Args:
        alone: images that this process decodes itself before it starts others, which takes them a second.

    Raises:
        InputError: if the cache cannot be used.
    """
    with image_cache(writable=True) as cache:
        # spawned, not forked: a process that has threads must not be forked
        pool = ProcessPoolExecutor(workers, get_context("spawn"), _ignore_ctrl_c) if workers > 1 else None
        store = ImageStore(cache, pool, alone)
        try:
            yield store
        finally:
            if pool is not None:
                pool.shutdown(cancel_futures=True)
            store.write()


def cores() -> int:
    """Return how many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _ignore_ctrl_c() -> None:
    """Leave Ctrl-C, which a terminal sends to workers too, to the main process: it stops them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _look(paths: Sequence[str]) -> list[tuple[ImageFacts, bool]]:
    """Find the facts of a few images, each with whether it had to be decoded; what a worker process does."""
    found = []
    with image_cache(writable=False) as cache:
        for path in paths:
            try:
                content = read_image_bytes(path)
            except RowError as error:
                found.append((ImageFacts(problem=(error.kind, error.reason)), False))
                continue
            remembered = recall_content(cache, hashlib.sha256(content).hexdigest())
            found.append((remembered or image_facts(path, content), remembered is None))
    return found


def _done(paths: Sequence[str]) -> Future[list[tuple[ImageFacts, bool]]]:
    future: Future[list[tuple[ImageFacts, bool]]] = Future()
    future.set_result(_look(paths))
    return future
