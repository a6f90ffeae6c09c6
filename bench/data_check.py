"""How long `lorgnette data check` takes: 10,000 rows about 1,000 photographs, rendered; first and second time.

    python bench/data_check.py [--rows 10000] [--images 1000] [--workers N]

Wanted: the first check within 60 s on 2 cores. The photographs are made here: smooth noise of 640 x 480, as JPEG.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

QUESTIONS = (
    "What are the colors of the bus in the image?",
    "How many people can be seen on the platform, and what are they doing?",
    "Describe the scene in detail.",
    "Что изображено на переднем плане?",
)
ANSWER = "The bus in the image is white and red, it stands beside the platform where several people are waiting. "


def make_set(folder: Path, rows: int, images: int) -> Path:
    """Write photographs, and conversations of two questions about them."""
    (folder / "pictures").mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(images):
        coarse = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        grain = random.integers(-12, 12, (480, 640, 3))
        smooth = np.asarray(coarse.resize((640, 480), Image.Resampling.BICUBIC), dtype=np.int64)
        photograph = Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8))
        photograph.save(folder / "pictures" / f"{number}.jpg", quality=88)
    made = []
    for number in range(rows):
        turns = [
            {"from": "human", "value": f"<image>\n{QUESTIONS[number % 4]}"},
            {"from": "gpt", "value": ANSWER * (1 + number % 3) + f"({number})"},
            {"from": "human", "value": QUESTIONS[(number + 1) % 4]},
            {"from": "gpt", "value": f"{number}. {ANSWER}"},
        ]
        made.append({"id": str(number), "image": f"pictures/{number % images}.jpg", "conversations": turns})
    file = folder / "data.json"
    file.write_text(json.dumps(made, ensure_ascii=False), encoding="utf-8")
    return file


def main() -> None:
    """Make the set, check it twice, print the seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--images", type=int, default=1_000)
    parser.add_argument("--workers", type=int, default=2)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        os.environ["XDG_CACHE_HOME"] = f"{name}/cache"
        file = make_set(Path(name) / "set", wanted.rows, wanted.images)
        megabytes = sum(each.stat().st_size for each in (file.parent / "pictures").iterdir()) / 1e6
        print(f"{wanted.rows:,} rows, {wanted.images:,} images, {megabytes:.0f} MB, {wanted.workers} workers")
        for time_ in ("first", "second"):
            start = time.perf_counter()
            check(file, wanted.workers, Path(name) / f"{time_}.html")
            print(f"{time_} check: {time.perf_counter() - start:.1f} s")


def check(file: Path, workers: int, page: Path) -> None:
    """Check the set as the command does, loading of libraries included the first time."""
    from lorgnette.data.check.files import write_check  # noqa: PLC0415
    from lorgnette.data.check.sources import check_sources  # noqa: PLC0415
    from lorgnette.data.readers.source import SourceSpec  # noqa: PLC0415
    from lorgnette.data.used_source import used_source  # noqa: PLC0415
    from lorgnette.images.store import image_store  # noqa: PLC0415
    from lorgnette.recipe_data import renderer_for  # noqa: PLC0415

    renderer = renderer_for("starter:language-model", None, 512)
    source = used_source("data", "train", SourceSpec(str(file)), "llava", None, renderer)
    with image_store(workers) as store:
        checked = check_sources([source], store, 0.01)
        write_check(page, "benchmark", checked, store)
    assert checked[0].judged.kept == checked[0].judged.read


if __name__ == "__main__":
    main()
