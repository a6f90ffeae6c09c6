"""Images are decoded once: remembered by content, in one process as in several, for training as for the check."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

import wild_images as wild
from lorgnette.errors import InputError, RowError, RunError
from lorgnette.images.cache import image_cache
from lorgnette.images.store import ImageStore, image_store


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lorgnette" / "image-facts" / "facts.sqlite"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    for number in range(5):
        wild.noise(number).save(tmp_path / "pictures" / f"{number}.png")
    wild.truncated_jpeg(tmp_path / "pictures" / "cut.jpg")
    return tmp_path / "pictures"


def look(folder: Path, workers: int = 1) -> tuple[dict, int]:
    with image_store(workers) as store:
        return facts(store, folder), store.decoded


def facts(store: ImageStore, folder: Path) -> dict:
    paths = sorted(str(file) for file in folder.iterdir())
    store.look_ahead(paths)
    return {Path(path).name: store.facts(path) for path in paths}


def test_a_second_look_decodes_nothing(folder: Path) -> None:
    first, decoded = look(folder)
    assert decoded == 6
    assert first["cut.jpg"].problem[0] == "image truncated"
    assert look(folder) == (first, 0)


def test_several_processes_find_what_one_finds(folder: Path, cache: Path) -> None:
    several, decoded = look(folder, workers=2)
    assert decoded == 6
    cache.unlink()
    assert look(folder) == (several, 6)


def test_images_are_known_by_content_and_noticed_when_they_change(folder: Path, tmp_path: Path) -> None:
    first, _ = look(folder)
    moved = folder.rename(tmp_path / "moved")
    assert look(moved) == (first, 0)
    wild.noise(77).save(moved / "0.png")
    (moved / "1.png").write_bytes((moved / "2.png").read_bytes())
    second, decoded = look(moved)
    assert decoded == 1  # 1.png now has the bytes of 2.png, which are known
    assert second["0.png"] != first["0.png"]
    assert second["1.png"] == first["2.png"]


def test_broken_images_are_refused_until_they_are_mended(folder: Path) -> None:
    def refused() -> tuple[list[str], int, int]:
        kinds = []
        with image_store(1) as images:
            for name in ("0.png", "cut.jpg", "none.png", "cut.jpg"):
                try:
                    images.require_image(str(folder / name))
                except RowError as error:
                    kinds.append(error.kind)
            return kinds, images.decoded, images.asked

    assert refused() == (["image truncated", "image missing", "image truncated"], 2, 3)
    assert refused() == (["image truncated", "image missing", "image truncated"], 0, 3)
    (folder / "cut.jpg").write_bytes((folder / "1.png").read_bytes())
    assert refused() == (["image missing"], 1, 3)


def test_the_first_images_are_decoded_in_this_process(folder: Path) -> None:
    class CountingPool:
        asked = 0

        def submit(self, look: Callable[[Sequence[str]], Any], paths: Sequence[str]) -> Future:
            self.asked += len(paths)
            future: Future = Future()
            future.set_result(look(paths))
            return future

    pool = CountingPool()
    with image_cache(writable=True) as opened:
        store = ImageStore(opened, pool, alone=3)  # type: ignore[arg-type]
        for number in range(4):
            store.facts(str(folder / f"{number}.png"))
    assert (store.decoded, pool.asked) == (4, 1)


def test_a_broken_cache_is_named(folder: Path, cache: Path) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_bytes(b"no database at all, but long enough to be taken for one" * 100)
    with pytest.raises(InputError, match="delete this file"):
        look(folder)
    cache.unlink()
    cache.parent.rmdir()
    cache.parent.write_text("a file where the folder should be")
    with pytest.raises(InputError, match="XDG_CACHE_HOME"):
        look(folder)


def test_what_goes_wrong_elsewhere_is_not_blamed_on_the_cache(folder: Path) -> None:
    with pytest.raises(PermissionError, match="elsewhere"), image_store(1):
        raise PermissionError("elsewhere")


def test_a_worker_that_dies_is_an_error_that_names_the_image(folder: Path, tmp_path: Path) -> None:
    class DyingPool:
        def submit(self, *_: object) -> Future:
            future: Future = Future()
            future.set_exception(BrokenProcessPool("killed"))
            return future

    with image_cache(writable=True) as opened:
        store = ImageStore(opened, DyingPool())  # type: ignore[arg-type]
        with pytest.raises(RunError, match=r"0\.png.*--workers 1"):
            store.facts(str(folder / "0.png"))


def test_names_that_are_no_text_are_files_like_others(folder: Path) -> None:
    odd = os.fsdecode(b"caf\xe9.png")
    wild.plain(folder / "p.png")
    (folder / "p.png").rename(folder / odd)
    found, _ = look(folder)
    assert found[odd].problem is None
    assert look(folder) == (found, 0)


def test_ctrl_c_is_left_to_the_main_process() -> None:
    """A terminal sends it to the workers too, and each would print a traceback."""
    with image_store(2) as store:
        assert store._pool is not None
        assert store._pool.submit(signal.raise_signal, signal.SIGINT).result(timeout=60) is None
