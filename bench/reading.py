#!/usr/bin/env python3
"""How long a large LLaVA file takes to be read and rendered, the first time and the second, and in how much memory.

    python bench/reading.py --rows 600000

writes a file of so many rows (600,000 are 200 MB) about small pictures, starts a process that does what a stage does
before step 1, twice, and prints seconds and the most memory each took beyond what the libraries take.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from rich.progress import Progress
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from lorgnette.data.dataset import RenderedDataset, SharedImageSampler, render_all, weighted
from lorgnette.data.encodings import Encodings, cache_file
from lorgnette.data.readers import read_samples
from lorgnette.data.reading_ahead import read_ahead
from lorgnette.data.rendering import Renderer
from lorgnette.data.templates import chat_template
from lorgnette.images.store import cores, image_store

TEXT = "a the dog cat on under table red blue кот собака стоит лежит рядом красный стол окно what is there where"
WORDS = TEXT.split()


def write_rows(folder: Path, rows: int, images: int) -> Path:
    """Write the data file and its images; every conversation is different."""
    pick = random.Random(0)
    (folder / "images").mkdir()
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "JPEG")
    for number in range(images):
        (folder / "images" / f"{number:012}.jpg").write_bytes(picture.getvalue())
    file = folder / "train.json"
    with file.open("w", encoding="utf-8") as stream:
        stream.write("[")
        for number in range(rows):
            question = " ".join(pick.choices(WORDS, k=8))
            answer = " ".join(pick.choices(WORDS, k=18))
            turns = [{"from": "human", "value": f"<image>\n{question} {number}?"}, {"from": "gpt", "value": answer}]
            row = {"id": str(number), "image": f"{number % images:012}.jpg", "conversations": turns}
            stream.write(("," if number else "") + json.dumps(row, ensure_ascii=False) + "\n")
        stream.write("]")
    return file


def read(file: Path) -> None:
    """Do what a stage does before step 1, and print seconds and memory as JSON."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<|im_start|>", "<|im_end|>", "<image>"]
    made.train_from_iterator(
        [TEXT],
        trainers.BpeTrainer(
            vocab_size=600,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|im_end|>", extra_special_tokens=special)
    renderer = Renderer(chat_template(tokenizer, "chatml"), tokenizer.convert_tokens_to_ids("<image>"), 576)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    encodings = Encodings(cache_file(renderer, str(file), "llava", None))
    known = encodings.known
    samples = read_samples(str(file), "llava", images=str(file.parent / "images"))
    with image_store(cores(), alone=256) as store:
        shown = Progress(disable=True).track(read_ahead(samples, store), total=None)
        rendered, judged = render_all(shown, renderer, 0.0, encodings, store.require_image)
    rendering = time.perf_counter() - start
    dataset = RenderedDataset([(rendered, weighted(len(rendered), 1.0, 0))])
    content = dataset.content_hash()
    next(iter(SharedImageSampler(dataset.images(), 0, share_images=True)))
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        json.dumps(
            {
                "samples": judged.kept,
                "from_cache": known,
                "tokens": judged.tokens,
                "seconds_reading_and_rendering": round(rendering, 1),
                "seconds_until_step_1": round(seconds, 1),
                "memory_mib": round((peak - before) / 1024),
                "content": content[:20],
            }
        )
    )


def main() -> None:
    """Measure, in processes of their own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=600_000)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--read", type=Path)
    given = parser.parse_args()
    if given.read is not None:
        read(given.read)
        return
    with tempfile.TemporaryDirectory() as folder:
        file = write_rows(Path(folder), given.rows, given.images)
        print(f"{given.rows:,} rows, {file.stat().st_size / 1e6:.0f} MB, {given.images:,} images")
        for title in ("first time ", "second time"):
            done = subprocess.run(
                [sys.executable, __file__, "--read", str(file)],
                env=os.environ | {"XDG_CACHE_HOME": str(Path(folder, "cache"))},
                capture_output=True,
                text=True,
                check=True,
            )
            print(title, done.stdout.strip())
        cached = sum(file.stat().st_size for file in Path(folder, "cache").rglob("*") if file.is_file())
        print(f"the cache is {cached / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
