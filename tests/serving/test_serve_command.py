"""`lorgnette serve` as it is typed, in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from lorgnette.cli import app, serving
from lorgnette.errors import InputError, MissingExtra
from lorgnette.models.assembly import assemble
from lorgnette.models.saving import save_llava
from trained import trained_on


def test_what_a_stage_left_is_served_until_ctrl_c(parts: Callable[[str, str], tuple[str, str]], tmp_path: Path) -> None:
    save_llava(assemble(*parts("clip", "llama"), seed=3), tmp_path / "base", {"kind": "base"})
    trained_on(tmp_path / "base", tmp_path / "stage")
    trained = str(tmp_path / "stage" / "trained")
    command = [sys.executable, "-m", "lorgnette", "serve", trained, "--port", "0", "--name", "mine"]
    server = subprocess.Popen(
        [*command, "--max-new-tokens", "5"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"LORGNETTE_API_KEY": "secret"},
    )
    try:
        first = server.stdout.readline()
        address = re.search(r"answers at (http://127\.0\.0\.1:\d+)/v1 as 'mine'", first).group(1)
        assert "Next: curl" in server.stdout.readline()
        asked = {"messages": [{"role": "user", "content": "What is this?"}]}
        assert httpx.post(f"{address}/v1/chat/completions", json=asked, timeout=60).status_code == 401
        key = {"Authorization": "Bearer secret"}
        made = httpx.post(f"{address}/v1/chat/completions", json=asked, headers=key, timeout=60).json()
        assert made["model"] == "mine"
        assert made["usage"]["completion_tokens"] <= 5
        assert made["system_fingerprint"].startswith("sha256:")
        server.send_signal(signal.SIGINT)
        left, _ = server.communicate(timeout=30)
        assert "401" in left
        assert left.endswith("Stopped.\n")
        assert server.returncode == 0
    finally:
        server.kill()
        server.wait()


def test_a_port_that_is_taken_is_told_before_the_model_is_looked_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        failed = CliRunner().invoke(app, ["serve", "nowhere", "--port", str(port)])
    assert isinstance(failed.exception, InputError)
    assert "another --port" in str(failed.exception)
    for host in ("no.such.host.invalid", "\udc80", "x" * 300):
        failed = CliRunner().invoke(app, ["serve", "nowhere", "--host", host])
        assert isinstance(failed.exception, InputError), host


def test_a_model_that_is_not_there_is_told() -> None:
    failed = CliRunner().invoke(app, ["serve", "/nowhere/at/all", "--port", "0"])
    assert isinstance(failed.exception, InputError)


def test_a_missing_library_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving.importlib.util, "find_spec", lambda name: None)
    failed = CliRunner().invoke(app, ["serve", "nowhere"])
    assert isinstance(failed.exception, MissingExtra)
    assert "lorgnette[serve]" in str(failed.exception)
