"""What every command does when it is stopped, runs out of memory, or cannot write a letter."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text
from safetensors import SafetensorError

from lorgnette import cli
from lorgnette.cli.terminal import as_typed
from lorgnette.errors import InputError
from lorgnette.progress import counted, print_table, progress_bar


def ended(monkeypatch: pytest.MonkeyPatch, command: object) -> int:
    """Run the program with another command in place of all; return its exit code."""
    monkeypatch.setattr(cli, "app", command)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as stop:
            cli.main()
    finally:
        signal.signal(signal.SIGTERM, before)
    return int(stop.value.code or 0)


def raising(error: BaseException) -> object:
    def command() -> None:
        raise error

    return command


def test_ctrl_c_is_answered_calmly(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def settle() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.model, "settle", settle)
    monkeypatch.setattr(sys, "argv", ["lorgnette", "model", "inspect", "somewhere"])
    assert ended(monkeypatch, cli.app) == 130
    assert capsys.readouterr().err == "\ninterrupted. Call the same command again: it goes on from here.\n"


def test_a_scheduler_s_sigterm_is_answered_like_ctrl_c(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cleaned = []

    def settle() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("it goes on")
        finally:
            cleaned.append(True)

    monkeypatch.setattr(cli.model, "settle", settle)
    monkeypatch.setattr(sys, "argv", ["lorgnette", "model", "inspect", "somewhere"])
    assert ended(monkeypatch, cli.app) == 143
    assert cleaned
    assert "terminated. Call the same command again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "remedy"),
    [
        (OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), "x.json"), 2, "Next: give another path"),
        (OSError(errno.EROFS, os.strerror(errno.EROFS), "x.json"), 2, "Next: give another path"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x.json"), 1, "Next: free space"),
        (SafetensorError("x.json: I/O error: No space left on device (os error 28)"), 1, "Next: free space"),
        (OSError(errno.EIO, os.strerror(errno.EIO), "x.json"), 1, "x.json"),
    ],
)
def test_a_path_that_cannot_be_used_is_wrong_input_and_a_full_disk_is_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, code: int, remedy: str
) -> None:
    assert ended(monkeypatch, raising(error)) == code
    said = capsys.readouterr().err
    assert "x.json" in said
    assert remedy in said
    assert said.count("Next:") == remedy.count("Next:")


def test_what_a_reader_of_the_user_exits_with_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "app", raising(SystemExit({"not": "a number"})))
    with pytest.raises(SystemExit, match="not"):
        cli.main()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: 3 bytes"),
    ],
)
def test_too_little_memory_is_said_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    assert ended(monkeypatch, raising(error)) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: out of memory: ")
    assert "Next: a smaller batch" in said


def test_our_own_mistakes_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "app", raising(RuntimeError("shapes do not fit")))
    with pytest.raises(RuntimeError, match="shapes"):
        cli.main()


def test_a_terminal_without_cyrillic_gets_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)

    def command() -> None:
        cli.console.print("мир \udcff", markup=False)
        sys.exit(0)

    assert ended(monkeypatch, command) == 0
    stream.flush()
    assert stream.buffer.getvalue() == b"\\u043c\\u0438\\u0440 \\udcff\n"  # type: ignore[attr-defined]


def test_a_message_does_not_drive_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(monkeypatch, raising(InputError("\x1b[2J[/red].json: no such file.\nNext: \udcff"))) == 2
    assert capsys.readouterr().err == "error: \\x1b[2J[/red].json: no such file.\nNext: \\udcff\n"


def test_brackets_in_a_name_are_no_markup_of_a_bar() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80, color_system=None)
    with progress_bar(console) as progress:
        list(progress.track([1], description="reading [/red]a[b].json"))
    assert "reading [/red]a[b].json" in out.getvalue()


@pytest.mark.parametrize("width", [40, 80])
def test_a_bar_keeps_its_numbers_where_a_terminal_is_narrow(width: int) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=width, color_system=None)
    with progress_bar(console) as progress:
        list(counted(progress, range(24), f"reading /a/long/{'path/' * 20}data.json"))
    last = out.getvalue().splitlines()[-2]
    assert "reading /" in last
    assert "24/24 00:00" in last


def test_no_number_of_a_table_is_cut_where_a_terminal_is_narrow() -> None:
    table = Table("part", "mode", "parameters", title="stage one")
    table.add_row("language_model", "lora", "1,234,567,890")
    table.add_row(Text("[b]"), "", "")
    shown = {}
    for width in (30, 80):
        out = io.StringIO()
        print_table(table, Console(file=out, width=width))
        shown[width] = out.getvalue()
    assert " ".join(shown[30].split()) == "stage one language_model: mode lora, parameters 1,234,567,890 [b]"
    assert "│ language_model │ lora │ 1,234,567,890 │" in shown[80]


@pytest.mark.parametrize(
    ("called", "found", "begins"),
    [
        (".venv/bin/lorgnette", None, ".venv/bin/lorgnette run"),
        (".venv/bin/lorgnette", "/usr/bin/lorgnette", "lorgnette run"),
        ("/src/lorgnette/__main__.py", None, "python -m lorgnette run"),
        ("/lib/pytest/__main__.py", None, "lorgnette run"),
    ],
)
def test_next_commands_begin_with_what_the_shell_finds(
    monkeypatch: pytest.MonkeyPatch, called: str, found: str | None, begins: str
) -> None:
    monkeypatch.setattr("sys.argv", [called])
    monkeypatch.setattr("shutil.which", lambda _: found)
    assert as_typed("Next: lorgnette run my.yaml, or lorgnette's own") == f"Next: {begins} my.yaml, or lorgnette's own"
