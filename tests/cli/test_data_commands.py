"""`lorgnette data check` and `data split` as a user types them."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from typer.testing import CliRunner

import wild_images as wild
from lorgnette.cli import app
from lorgnette.data.readers.source import SourceSpec
from lorgnette.data.used_source import recipe_entry, used_source, words_of
from lorgnette.errors import InputError
from lorgnette.recipe.yaml_text import parse_yaml
from wild_rows import make_wild_rows, row, write_rows

STARTER = "starter:language-model"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def call(*words: str | Path) -> tuple[str, BaseException | None]:
    typed = ["data", *map(str, words)]
    with patch.object(sys, "argv", ["lorgnette", *typed]):
        done = CliRunner().invoke(app, typed, catch_exceptions=True)
    return done.output, done.exception


def good_rows(folder: Path, count: int = 30) -> Path:
    (folder / "pictures").mkdir(parents=True)
    rows = []
    for number in range(count):
        wild.scene(number, side=32).save(folder / "pictures" / f"{number}.png")
        rows += [row(f"{number}-{q}", f"pictures/{number}.png", f"what is {q}?", "yes") for q in range(2)]
    return write_rows(folder / "data.json", rows)


def test_a_good_file_exits_with_0_and_says_what_is_next(tmp_path: Path) -> None:
    file = good_rows(tmp_path / "d")
    output, error = call("check", file, "--workers", "1")
    assert error is None, output
    assert "read as llava" in output
    assert "No --model" in output
    assert "60 of 60 rows can be used; 30 images" in output
    assert "Next: lorgnette data split" in output
    assert (tmp_path / "checks" / "d-data.html").is_file()
    assert json.loads((tmp_path / "checks" / "d-data.json").read_text())["parts"][0]["kept"] == 60


def test_files_of_one_name_have_pages_of_their_own(tmp_path: Path) -> None:
    """Every split leaves a train.json."""
    for folder, count in (("ru", 3), ("rs/split", 5)):
        good_rows(tmp_path / folder, count)
        assert call("check", f"{folder}/data.json", "--workers", "1")[1] is None
    kept = {
        file.name: json.loads(file.read_text())["parts"][0]["kept"] for file in (tmp_path / "checks").glob("*.json")
    }
    assert kept == {"ru-data.json": 6, "rs-split-data.json": 10}


def test_a_bad_file_exits_with_2_after_everything_is_written(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "d" / "train.json", make_wild_rows(tmp_path / "d"))
    words = ("check", file, "--model", STARTER, "--fix", "fixed", "--report", "my/page.html", "--workers", "1")
    output, error = call(*words)
    assert error is None, output  # what can be used is there
    assert "Allowed: max_bad_share 1.00%" in " ".join(output.split())
    assert "rows are left out; they are in fixed/rejected.jsonl, with reasons" in output
    assert f"Next: lorgnette data split fixed/train.json splits --images {tmp_path / 'd'}" in output
    assert "image truncated" in output
    assert "supervised" in output
    for name in ("my/page.html", "my/page.json", "fixed/train.json", "fixed/rejected.jsonl"):
        assert (tmp_path / name).is_file(), name
    output, error = call("check", "fixed/train.json", "--images", tmp_path / "d", "--model", STARTER, "--workers", "1")
    assert error is None, output
    output, error = call(*words)
    assert "not empty" in str(error)
    _, error = call("check", file, "--max-bad-share", "0.9", "--workers", "1")
    assert error is None


def test_a_report_never_overwrites_the_data(tmp_path: Path) -> None:
    """The numbers lie beside the page under its name: in `checks/`, and with some --report, that is where data lies."""
    data = good_rows(tmp_path / "checks", 2)
    before = data.read_bytes()
    for words in (("--report", "checks/data.html"), ("--report", data), ("--report", "checks"), ("--report", "")):
        output, error = call("check", data, *words, "--workers", "1")
        assert isinstance(error, InputError), (words, output)
        assert "--report" in str(error)
        assert data.read_bytes() == before
    for _ in range(2):  # those of a check may be written anew
        assert call("check", data, "--report", "page.html", "--workers", "1")[1] is None


def test_a_shown_row_is_marked_and_has_a_page(tmp_path: Path) -> None:
    file = good_rows(tmp_path / "d", 3)
    output, error = call("check", file, "--show", "2-1", "--model", STARTER, "--workers", "1")
    assert error is None, output
    assert "⟦yes<|im_end|>⟧" in output or "⟦ yes" in output or "⟦yes" in output
    page = (tmp_path / "checks" / "d-data-2-1.html").read_text()
    assert "data:image/" in page
    assert "<mark>" in page


def test_a_split_has_no_leaks(tmp_path: Path) -> None:
    file = good_rows(tmp_path / "d")
    output, error = call("split", file, "out", "--workers", "1")
    assert error is None, output
    assert "train: 42 rows (70.00%)" in output
    words = ("--images", tmp_path / "d", "--held-out", "out/val.json", "--held-out", "out/test.json", "--workers", "1")
    output, error = call("check", "out/train.json", *words)
    assert error is None
    assert "also in" not in output
    output, error = call("check", file, *words)
    assert "row also in validation" in output
    assert "already" in call("split", file, "out", "--workers", "1")[0]
    assert "holds another split" in str(call("split", file, "out", "--seed", "1", "--workers", "1")[1])
    assert "add up to 110" in str(call("split", file, "other", "--shares", "70/20/20", "--workers", "1")[1])


def test_what_is_next_works_as_it_is_shown(tmp_path: Path) -> None:
    file = good_rows(tmp_path / "d")
    moved = file.rename(tmp_path / "moved.json")
    output, error = call("check", moved, "--images", tmp_path / "d", "--workers", "1")
    assert error is None, output
    words = output.rpartition("Next: lorgnette data ")[2].split()
    output, error = call(*words, "--workers", "1")
    assert error is None, output


def test_a_part_of_the_data_is_split(tmp_path: Path) -> None:
    good_rows(tmp_path / "d")
    images = [
        {
            "filename": f"pictures/{number}.png",
            "imgid": number,
            "split": "train" if number < 20 else "test",
            "sentences": [{"raw": f"shape {number}"}, {"raw": "a shape"}],
        }
        for number in range(30)
    ]
    (tmp_path / "d" / "captions.json").write_text(json.dumps({"images": images}))
    output, error = call("split", "d/captions.json", "out", "--split", "train", "--workers", "1")
    assert error is None, output
    assert "captions.json: 40 of 40 rows" in output
    words = ("split", "d/captions.json", "no", "--format", "captions", "--split", "dev", "--workers", "1")
    assert "no split 'dev'" in str(call(*words)[1])


def test_options_of_files_and_of_recipes_are_told_apart(tmp_path: Path) -> None:
    file = good_rows(tmp_path / "d", 3)
    assert "is a recipe" in str(call("check", "recipe.yaml", "--format", "llava")[1])
    assert "--model" in str(call("check", file, "--chat-template", "vicuna_v1")[1])
    assert "there is no option 'role_'. Did you mean" in str(
        call("check", file, "--format", "llava", "--option", "role_=x")[1]
    )
    assert "NAME=VALUE" in str(call("check", file, "--option", "x")[1])
    assert "no such file" in str(call("check", "d/dta.json")[1])


def test_a_recipe_is_checked_whole(tmp_path: Path, parts: Any) -> None:
    train, held = good_rows(tmp_path / "d", 4), tmp_path / "d" / "val.json"
    rows = json.loads(train.read_text())
    write_rows(held, rows[:1])
    write_rows(train, [*rows, {"id": "bad"}])
    tower, words = parts("clip", "llama")
    (tmp_path / "r.yaml").write_text(
        f"""
model: {{build: {{vision_tower: {tower}, language_model: {words}}}}}
stages:
  - name: tune
    data: [{{path: {train}, format: llava}}]
    validation: [{{path: {held}, format: llava}}]
    train: {{projector: full}}
evaluation: {{tasks: [{{name: easy-vqa, limit: 3}}]}}
max_bad_share: 0.2
"""
    )
    output, error = call("check", "r.yaml", "--workers", "1")
    assert error is None, output
    assert "tune train" in output
    assert "row also in validation" in output
    assert "benchmark easy-vqa" in output
    assert "Next: lorgnette run r.yaml" in output
    found = {each["name"]: each for each in json.loads((tmp_path / "checks" / "r.json").read_text())["parts"]}
    assert found["tune train"]["kept"] == 8
    assert found["tune train"]["image_tokens"] == 8 * 4
    assert found["benchmark easy-vqa"]["images"] == 1
    _, error = call("check", "r.yaml", "--set", "max_bad_share=0.0", "--workers", "1")
    assert "1 of 9 rows" in str(error)


def test_the_real_command_exits_with_2_and_one_message(tmp_path: Path) -> None:
    write_rows(tmp_path / "x.json", [row("a", "none.png", "What?", "cat")])
    words = [sys.executable, "-m", "lorgnette", "data", "check", "x.json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "1 of 1 rows" in done.stderr.replace("\n", " ")


def dirty_rows(folder: Path) -> Path:
    """Write 60 good rows and two whose image is not there, and their pictures elsewhere."""
    file = good_rows(folder)
    rows = json.loads(file.read_text()) + [row(f"x{n}", f"pictures/x{n}.png", "what?", "yes") for n in range(2)]
    return write_rows(folder.parent / "rows here.json", rows)


def test_a_refused_file_is_fixed_as_the_message_says(tmp_path: Path) -> None:
    file = dirty_rows(tmp_path / "d")
    words = (file, "--images", tmp_path / "d", "--workers", "1")
    for command in (("check", *words), ("split", file, "out", *words[1:])):
        output, error = call(*command)
        assert isinstance(error, InputError), output
        options = "--format llava " if command[0] == "split" else ""
        said = f"lorgnette data check '{file}' {options}--images {tmp_path / 'd'} --fix fixed"
        if command[0] == "check":  # as it was typed, with all options
            said = f"lorgnette data check --fix fixed '{file}' --images {tmp_path / 'd'} --workers 1"
        assert said in str(error)
        assert str(error).count("Next:") == 1
    suggested = shlex.split(said)[2:]
    output, error = call(*suggested, "--workers", "1")
    assert error is None, output
    assert "2 rows are left out" in output
    following = shlex.split(output.rpartition("Next: lorgnette data ")[2])
    assert following[:2] == ["split", "fixed/rows here.json"]
    output, error = call(*following, "--workers", "1")
    assert error is None, output
    assert "fixed/rows" not in output.partition("train:")[0] or "60 of 60 rows" in output


def test_after_a_check_against_held_out_rows_comes_training(tmp_path: Path) -> None:
    file = good_rows(tmp_path / "d")
    _, error = call("split", file, "out", "--workers", "1")
    assert error is None
    words = ("check", "out/train.json", "--images", "d", "--held-out", "out/test.json", "--workers", "1")
    output, error = call(*words)
    assert error is None, output
    following = output.rpartition("Next: ")[2]
    assert following.startswith("train on it: in a recipe, data: [{path: out/train.json, format: llava, images: d}]")
    output, error = call(*words, "--fix", "fixed")
    assert error is None, output
    assert f"data: [{{path: fixed/data-train.json, format: llava, images: {tmp_path / 'd'}}}]" in output


def test_a_fix_that_leaves_nothing_exits_with_2(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "x.json", [row("1", "none.png", "what?", "yes")])
    output, error = call("check", file, "--fix", "fixed", "--workers", "1")
    assert isinstance(error, InputError), output
    assert "--fix" not in str(error)


def test_a_fixed_recipe_is_told_where_the_fixed_files_go(tmp_path: Path) -> None:
    file = dirty_rows(tmp_path / "d").rename(tmp_path / "dirty.json")
    Path("r.yaml").write_text(
        f"""
model: {{build: {{vision_tower: "starter:vision-tower", language_model: "{STARTER}"}}}}
stages:
  - name: tune
    data: [{{path: {file}, format: llava, images: {tmp_path / "d"}}}]
    train: {{projector: full}}
"""
    )
    _, error = call("check", "r.yaml", "--workers", "1")
    assert str(error).endswith(
        "Next: lorgnette data check --fix fixed r.yaml --workers 1 writes the usable rows; or raise max_bad_share."
    )
    output, error = call("check", "r.yaml", "--fix", "fixed", "--workers", "1", "--set", "seed=7")
    assert error is None, output
    following = output.rpartition("Next: ")[2]
    assert f"{{path: fixed/dirty.json, format: llava, images: {tmp_path / 'd'}}} in place of {file}" in following
    assert following.endswith("and then: lorgnette run r.yaml --set seed=7\n")


def test_a_fixed_file_without_a_row_is_nothing_to_train_on(tmp_path: Path) -> None:
    """All of it is held out: the file as it was must not be recommended."""
    file = good_rows(tmp_path / "d", 3)
    words = ("check", file, "--images", tmp_path / "d", "--held-out", file, "--workers", "1", "--fix", "fixed")
    output, error = call(*words)
    assert isinstance(error, InputError), output
    assert "no row is left to be used" in str(error)
    assert "train on it" not in output


@pytest.mark.parametrize(
    "value", ["123", "1e3", "true", "null", "@x", "a: b", "", " y", "#c", "+1", "0x1F", "имя.json"]
)
def test_what_is_suggested_reads_back(value: str) -> None:
    spec = SourceSpec(value, None, None, {"column": value})
    source = used_source("data", "train", spec, "llava", None, None)
    (entry,) = parse_yaml(f"[{recipe_entry(source)}]").data
    assert entry.get("path", "") == value
    assert entry["options"] == {"column": value}
    assert words_of(source)[-2] == "--option"
    assert parse_yaml(words_of(source)[-1].partition("=")[2]).data == value


def test_an_unknown_role_is_told_with_the_option_that_knows_it(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "<image>\nКто?"}, {"from": "ассистент", "value": "Кот."}]
    file = good_rows(tmp_path / "d", 1)
    file.write_text(json.dumps([{"id": "1", "image": "pictures/0.png", "conversations": turns}]))
    output, error = call("check", file, "--format", "llava", "--workers", "1")
    assert isinstance(error, InputError)
    option = "--option 'roles={ассистент: assistant}'"
    assert option in " ".join(
        json.loads(Path("checks/d-data.json").read_text())["parts"][0]["findings"][0]["examples"][0].values()
    )
    assert "roles={ассистент" in output  # on the terminal as well
    assert call("check", file, *shlex.split(option), "--workers", "1")[1] is None
    _, error = call("split", file, "out", "--format", "llava", "--workers", "1")
    assert option in str(error)


def test_all_kinds_of_bad_rows_are_counted(tmp_path: Path) -> None:
    kinds: list[Any] = [1, {"image": 1}, {"conversations": []}, {"conversations": 1}, {"conversations": [1]}]
    kinds += [{"conversations": [{"from": "human", "value": 1}]}]
    kinds += [{"id": [], "conversations": []}, {"conversations": [{"from": "x", "value": "y"}]}]
    file = tmp_path / "x.json"
    file.write_text(json.dumps(kinds))
    _, error = call("split", file, "out", "--format", "llava", "--workers", "1")
    found = re.search(r"8 of 8 rows cannot be used \((.*?)\), such as", str(error))
    assert found is not None, error
    assert found[1].endswith(" and 1 more kind")
    assert str(error).count("Allowed:") == str(error).count("Next:") == 1
