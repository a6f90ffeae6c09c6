"""Fixtures that all tests share; what they are made of is in `small.py`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.utils import logging as transformers_logging

from lorgnette.data.sample import IMAGE_TAG, Sample
from lorgnette.models.assembly import assemble
from lorgnette.models.loading import Llava
from small import conversation, make_language_model, make_tower

transformers_logging.disable_progress_bar()
# `make test` shares two cores between two workers
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is remembered from start to start is kept here, not in the home of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache-of-the-tests")))
        yield


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], tuple[str, str]]:
    """(tower kind, language model kind) -> folders of both."""
    root = tmp_path_factory.mktemp("parts")

    def made(tower: str, language_model: str) -> tuple[str, str]:
        if not (root / tower).exists():
            make_tower(root / tower, tower)
        if not (root / language_model).exists():
            make_language_model(root / language_model, language_model)
        return str(root / tower), str(root / language_model)

    return made


@pytest.fixture
def llava(parts: Callable[[str, str], tuple[str, str]]) -> Llava:
    """A small LLaVA in float32: CLIP + Llama with grouped key-value heads, 4 tokens an image."""
    return assemble(*parts("clip", "llama"), seed=3)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Four pictures of noise."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    paths = []
    for number in range(4):
        path = folder / f"{number}.png"
        Image.fromarray(random.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)
        paths.append(str(path))
    return paths


@pytest.fixture
def samples(pictures: list[str]) -> list[Sample]:
    """Shared images, one turn and several, tag at start, middle and end, two images, none."""
    a, b, c, d = pictures
    return [
        conversation("a1", [a], "what color is the shape?", "blue"),
        conversation("a2", [a], "is there a circle?", "no"),
        conversation("b1", [b], "What is this?", "A cat.", "Where?", "On the table."),
        conversation("a3", [a], "what is the shape?", "rectangle"),
        conversation("b2", [b], "What is this?", "A cat.", "Where?", "red"),
        conversation("c1", [c], f"What {IMAGE_TAG} is this?", "a triangle"),
        conversation("c2", [c], f"what color?\n{IMAGE_TAG}", "teal"),
        conversation("cd", [c, d], "where is the cat?", "Красная чашка"),
        conversation("text", [], "is there a table?", "yes"),
    ]
