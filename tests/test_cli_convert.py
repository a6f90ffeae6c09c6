"""`lorgnette model convert` as a user types it: what it says, what it writes, how it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lorgnette import cli


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.model, "settle", lambda: None)  # it changes filters of warnings for the whole process


def lorgnette(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """Run a command as the shell would; return its exit code."""
    monkeypatch.setattr("sys.argv", ["lorgnette", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


@pytest.fixture
def projector(tmp_path: Path) -> Path:
    names = {"0.weight": (8, 4), "0.bias": (8,), "2.weight": (8, 8), "2.bias": (8,)}
    torch.save({f"model.mm_projector.{n}": torch.ones(s) for n, s in names.items()}, tmp_path / "p.bin")
    return tmp_path / "p.bin"


def test_it_says_what_it_saw_and_what_to_type_next(
    projector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lorgnette(monkeypatch, "model", "convert", projector, tmp_path / "out", "--to", "hf") == 0
    shown = capsys.readouterr().out
    assert "a projector of the original LLaVA" in shown
    assert "a projector of mlp2x_gelu, 4 to 8" in shown
    assert f"Next: init_projector: {tmp_path / 'out'} in a stage of a recipe" in shown
    assert (tmp_path / "out" / "trained.safetensors").is_file()
    before = (tmp_path / "out" / "trained.safetensors").read_bytes()
    assert lorgnette(monkeypatch, "model", "convert", projector, tmp_path / "out", "--to", "xtuner") == 2
    assert (tmp_path / "out" / "trained.safetensors").read_bytes() == before


def test_what_another_project_goes_on_with_has_no_next_step(
    projector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lorgnette(monkeypatch, "model", "convert", projector, tmp_path / "out", "--to", "xtuner") == 0
    shown = capsys.readouterr().out
    assert f"Written to {tmp_path / 'out'}" in shown
    assert "Next:" not in shown


def test_the_dtype_that_was_asked_for(projector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("model", "convert", projector, tmp_path / "out", "--to", "llava", "--dtype", "bfloat16")
    assert lorgnette(monkeypatch, *words) == 0
    found = torch.load(tmp_path / "out" / "mm_projector.bin", weights_only=True)
    assert {tensor.dtype for tensor in found.values()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nothing.bin", "out", "--to", "hf"], "There is no such folder"),
        (["p.bin", "out", "--to", "hf", "--template", "vicuna"], "no template 'vicuna'"),
        (["p.bin", "out", "--to", "hf", "--base", "x"], "--base has no effect here"),
        (["p.bin", "out", "--to", "hf", "--template", "chatml"], "--template has no effect here"),
        (["junk", "out", "--to", "hf"], "neither safetensors nor torch's"),
    ],
)
def test_wrong_input_has_exit_code_2_and_leaves_nothing(
    projector: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("junk").write_text("junk")
    assert lorgnette(monkeypatch, "model", "convert", *words) == 2
    assert says in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.glob("out*"))
