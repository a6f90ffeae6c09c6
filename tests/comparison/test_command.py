"""`lorgnette compare` as it is typed: what it prints, writes and exits with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorgnette import cli
from lorgnette.run import read_json

Make = Callable[..., Any]  # the fixtures of conftest.py


@pytest.fixture
def folders(make_folder: Make, row: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three models on two tasks: `good` is better on one, `bad` worse on two, neither shows anything else."""
    monkeypatch.chdir(tmp_path)
    rights = {"base": (10, 20), "good": (30, 21), "bad": (10, 2)}
    for name, (one, two) in rights.items():
        make_folder(f"{name}/one", [row(n, float(n < one)) for n in range(40)], task="one")
        make_folder(f"{name}/two", [row(n, float(n < two)) for n in range(40)], task="two")


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch, folders: None, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """`compare(words)` -> exit code, stdout, stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["lorgnette", "compare", *words])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        shown = capsys.readouterr()
        return int(stop.value.code or 0), shown.out, " ".join(shown.err.split())

    return run


def test_without_output_it_prints_and_writes_nothing(compare: Make, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    code, out, _ = compare("base", "good", "bad", "--samples", "1")
    assert code == 0
    assert "good against base: better on one: +50.0 points, 95 % 35.0 to 65.0; no difference shown on two" in out
    assert "bad against base: worse on two: −45.0 points, 95 % −60.0 to −30.0; no difference shown on one" in out
    assert "bad on two: 1 of 18 losses" in out
    assert out.rstrip().endswith("Next: add --output FOLDER for tables, every changed answer and report.html")
    assert sorted(tmp_path.rglob("*")) == before


def test_with_output_everything_is_in_one_folder(compare: Make, tmp_path: Path) -> None:
    code, out, _ = compare("base", "good", "--output", "out")
    assert code == 0
    assert "Next: open out/report.html" in out
    names = {"comparison.json", "comparison.csv", "comparison.md", "changes.jsonl", "report.html", "plots"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    tasks = read_json(tmp_path / "out" / "comparison.json")["tasks"]
    assert [(task["task"], task["verdict"]) for task in tasks] == [("one", "better"), ("two", "no difference shown")]
    assert "<title>good against base</title>" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["base", "good"], 0, ""),
        (["base", "bad"], 1, "significantly worse: bad on two"),
        (["base", "good", "bad"], 1, "significantly worse: bad on two"),
        (["bad", "base"], 0, ""),
        (["base/one", "bad/one"], 0, ""),
    ],
)
def test_the_gate_closes_only_where_something_is_significantly_worse(
    compare: Make, words: list[str], code: int, said: str
) -> None:
    got, out, err = compare(*words, "--fail-if-worse")
    assert (got, err) == (code, said)
    assert "against" in out  # the table is printed before the gate closes
    assert compare(*words)[0] == 0


def test_the_gate_writes_its_report_before_it_closes(compare: Make, tmp_path: Path) -> None:
    assert compare("base", "bad", "--fail-if-worse", "--output", "out")[0] == 1
    assert (tmp_path / "out" / "report.html").is_file()


def test_intersect_is_said_aloud(compare: Make, make_folder: Make, row: Make, tmp_path: Path) -> None:
    make_folder("short/one", [row(n, float(n < 25)) for n in range(30)], task="one", prompt="Say: {question}")
    code, _, err = compare("base", "short")
    assert code == 2
    assert "task two: only in base" in err
    code, _, err = compare("base/one", "short/one")
    assert code == 2
    assert "prompt: '{question}' in base, 'Say: {question}' in short" in err
    assert "documents: 10 only in base" in err
    code, out, _ = compare("base", "short", "--intersect", "--output", "out")
    assert code == 0
    for where in (out, (tmp_path / "out/comparison.md").read_text(), (tmp_path / "out/report.html").read_text()):
        assert "(allowed by --intersect)" in where
        assert "compared on the 30 documents that are equal in both" in where


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["base", "nothing"], "nothing: there is no such folder"),
        (["base"], "one folder alone can only be a run folder"),
        (["base", "./base"], "is given twice"),
        (["base", "good", "--output", "good/one/result.json"], "is a file, and --output is a folder"),
    ],
)
def test_wrong_input_exits_with_2(compare: Make, words: list[str], said: str) -> None:
    code, _, err = compare(*words)
    assert code == 2
    assert said in err
