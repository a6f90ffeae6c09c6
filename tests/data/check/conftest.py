"""A data set with one row of every kind of finding, and a tokenizer to render it with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lorgnette.data.rendering import Renderer
from lorgnette.data.templates import chat_template
from small import make_tokenizer
from wild_rows import IMAGE_TOKENS, make_wild_rows, write_rows


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = make_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    made.add_special_tokens({"additional_special_tokens": ["<image>"]}, replace_extra_special_tokens=False)
    return made


@pytest.fixture
def renderer(tokenizer: Any) -> Renderer:
    image_id = tokenizer.convert_tokens_to_ids("<image>")
    return Renderer(chat_template(tokenizer), image_id, IMAGE_TOKENS, max_text_tokens=60)


@pytest.fixture
def wild_rows(tmp_path: Path) -> list[Any]:
    return make_wild_rows(tmp_path / "data")


@pytest.fixture
def wild_file(tmp_path: Path, wild_rows: list[Any]) -> Path:
    return write_rows(tmp_path / "data" / "train.json", wild_rows)
