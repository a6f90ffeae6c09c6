"""A hub that cannot be reached is told at once, and only where it would be asked."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from huggingface_hub import constants

from lorgnette.errors import ModelError
from lorgnette.models import hub
from lorgnette.models.loading import load_config

NOBODY = "http://127.0.0.1:9"


def test_a_name_that_nobody_can_be_asked_for_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "internlm2-llama").mkdir()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", NOBODY)
    monkeypatch.setattr(hub, "getproxies", dict)
    began = time.monotonic()
    with pytest.raises(ModelError, match=rf"no such folder, and {NOBODY} cannot be .*Did you mean 'internlm2-llama'"):
        load_config("internlm2-lama")
    assert time.monotonic() - began < 4  # the library's own tries take 23 s
    assert "Retrying" not in caplog.text


def test_what_was_downloaded_before_needs_no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", NOBODY)
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *_: "/cache/config.json")
    hub.require_reachable("someone/model")
