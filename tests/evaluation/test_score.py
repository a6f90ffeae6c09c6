"""`lorgnette score`: answers of any tool get the numbers that an evaluation gives, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import small_sets as sets
from lorgnette import cli
from lorgnette.cli.results import result_name
from lorgnette.run import read_json, read_json_lines


@pytest.fixture
def rsicd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [
        {"filename": f"{n}.tif", "imgid": n, "split": "test", "sentences": [{"raw": text}, {"raw": "a place"}]}
        for n, text in enumerate(["many planes are parked", "a green field", "boats in a port"])
    ]
    file = tmp_path / "dataset_rsicd.json"
    file.write_text(json.dumps({"images": rows}))
    return file


def score(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr("sys.argv", ["lorgnette", "score", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


ANSWERS = {"0": "many planes", "1": "a green field", "2": "a river"}
SHAPES = {
    "list.json": [{"image_id": int(key), "caption": text} for key, text in ANSWERS.items()],
    "map.json": ANSWERS,
    "rows.json": {key: {"prediction": [text], "answer": "gold"} for key, text in ANSWERS.items()},
    "nested.json": {"model": "x", "predictions": [{"id": key, "response": text} for key, text in ANSWERS.items()]},
    "images.json": [{"image": f"RSICD/images/{key}.tif", "answer": text} for key, text in ANSWERS.items()],
    "lines.jsonl": "".join(json.dumps({"question_id": int(k), "text": t}) + "\n" for k, t in ANSWERS.items()),
}


@pytest.mark.parametrize("name", SHAPES)
def test_every_usual_shape_gives_the_same_scores(
    rsicd: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    content = SHAPES[name]
    Path(name).write_text(content if isinstance(content, str) else json.dumps(content))
    assert score(monkeypatch, name, "--task", "captions", "--references", rsicd, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["n"] == 3
    assert result["scores"]["rouge_l"]["score"] == pytest.approx((1.22 / 1.94 + 1.0 + 0.5) / 3)
    folder = Path("results") / name / "captions"
    assert read_json(folder / "result.json") == result
    rows = read_json_lines(folder / "predictions.jsonl")
    assert [row["answer"] for row in rows] == list(ANSWERS.values())
    assert rows[1]["scores"]["rouge_l"] == 1.0
    assert rows[0]["reference"] == ["many planes are parked", "a place"]
    assert (rows[0]["stopped_by"], rows[0]["seconds"]) == (None, None)


def test_ids_that_do_not_match(
    rsicd: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("some.json").write_text(json.dumps({"0": "many planes", "1": "a green field", "7": "x", "8": "y"}))
    words = ("some.json", "--task", "captions", "--references", rsicd)
    assert score(monkeypatch, *words) == 2
    assert not Path("results").exists()
    said = " ".join(capsys.readouterr().err.split())
    assert "1 of 3 documents have no answer (2), 2 of 4 answers belong to no document (7, 8)" in said
    assert "--unmatched" in said
    for policy, n in (("wrong", 3), ("drop", 2)):
        assert score(monkeypatch, *words, "--unmatched", policy, "--output", policy) == 0
        result = read_json(Path(policy) / "result.json")
        assert result["n"] == n
        assert result["counts"] == {"documents_without_answer": 1, "answers_without_document": 2}
    assert read_json(Path("wrong/result.json"))["unread"] == 1
    Path("none.json").write_text(json.dumps({"70": "x"}))
    assert score(monkeypatch, "none.json", *words[1:], "--unmatched", "drop") == 2


def test_references_may_be_a_plain_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("test.json").write_text(
        json.dumps([{"id": 5, "answer": "красный", "type": "color"}, {"id": 6, "answer": "да"}])
    )
    Path("final.json").write_text(json.dumps([{"id": 5, "answer": "Красная"}, {"id": 6, "answer": "Да."}]))
    assert score(monkeypatch, "final.json", "--task", "gqa-ru", "--references", "test.json", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert {name: part["score"] for name, part in result["scores"].items()} == {
        "exact_match": 0.5,
        "exact_match_lemma": 1.0,
    }
    assert result["kinds"] == {"color": {"n": 1, "score": 0.0}}


def test_a_split_that_the_references_do_not_have_is_refused(
    rsicd: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("list.json").write_text(json.dumps(SHAPES["list.json"]))
    assert score(monkeypatch, "list.json", "--task", "captions", "--references", rsicd, "--split", "tets") == 2
    assert "Did you mean 'test'" in capsys.readouterr().err
    Path("plain.json").write_text(json.dumps(ANSWERS))
    assert score(monkeypatch, "list.json", "--task", "gqa-ru", "--references", "plain.json", "--split", "train") == 2
    assert "has no splits" in " ".join(capsys.readouterr().err.split())
    assert not Path("results").exists()


def test_what_is_shown_of_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """How it was asked and read, groups, shares, and what is wrong on purpose."""
    monkeypatch.chdir(tmp_path)
    rows = [sets.mmbench_row(n, "A", ["да", "нет", None, None], sets.struct(n)) for n in (1, 2, 3, 4)]
    sets.write_parquet(Path("dev.parquet"), rows)
    Path("mine.json").write_text(json.dumps({"1": "A", "2": "В", "3": "B.", "4": "A"}))
    assert score(monkeypatch, "mine.json", "--task", "mmbench-ru", "--references", "dev.parquet") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "by l2-category finegrained_perception: 0.500 on 4 unread: 1 (25.0%)" in shown
    assert "with path dev.parquet, letters ABCDE, homoglyphs keep" in shown  # how it was asked is unknown
    Path("held_out.json").write_text(json.dumps([{"instruction": "Кто?", "output": "Кот", "id": 1}]))
    Path("said.json").write_text(json.dumps({"1": "Кот"}))
    words = ("said.json", "--task", "instruct", "--references", "held_out.json", "--option", "format=instruct")
    assert score(monkeypatch, *words, "--option", "legacy=true") == 0
    assert "warning: legacy_rouge1, legacy_rouge2, legacy_rougeL: WRONG" in capsys.readouterr().out


def test_named_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("test.json").write_text(json.dumps({"1": "да", "2": "нет"}))
    Path("mine.json").write_text(json.dumps([{"nr": 1, "ответ": "да"}, {"nr": 2, "ответ": None}]))
    words = ("mine.json", "--task", "gqa-ru", "--references", "test.json")
    assert score(monkeypatch, *words) == 2
    assert "The rows have: nr, ответ" in " ".join(capsys.readouterr().err.split())
    assert score(monkeypatch, *words, "--id-field", "nr", "--answer-field", "ответ") == 0
    shown = capsys.readouterr().out
    assert "exact_match 0.500 on 2 documents" in shown
    assert "unread: 1" in shown
    assert "Next: lorgnette compare results/mine.json/gqa-ru OTHER-RESULT" in shown


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "the file is empty"),
        ('[{"id": 1, "answer": "x"}', "Is it cut off?"),
        ('{"id": 1, "answer": "x"}\n{"id": 2', "line 2"),
        ("[]", "no list of objects"),
        ("[1]", "no list of objects"),
        ('[{"id": 1, "answer": "x"}, {"id": "1", "answer": "y"}]', "was there before"),
        ('[{"id": 1, "answer": {"a": 1}}]', "Allowed: a text"),
        ('[{"id": 1, "answers": "x"}]', "for the answer"),
        ("[" * 100_000, "neither JSON nor JSON lines"),
    ],
)
def test_broken_files_are_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("test.json").write_text(json.dumps({"1": "да"}))
    Path("mine.json").write_text(content)
    assert score(monkeypatch, "mine.json", "--task", "gqa-ru", "--references", "test.json") == 2
    captured = capsys.readouterr()
    assert says in " ".join(captured.err.split())
    assert not Path("results/mine.json/gqa-ru/result.json").exists()


def test_own_predictions_are_never_overwritten(
    rsicd: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("list.json").write_text(json.dumps(SHAPES["list.json"]))
    assert score(monkeypatch, "list.json", "--task", "captions", "--references", rsicd, "--output", "a") == 0
    words = ("a/predictions.jsonl", "--task", "captions", "--references", rsicd)
    before = Path("a/predictions.jsonl").read_bytes()
    assert score(monkeypatch, *words, "--output", "a") == 2
    assert Path("a/predictions.jsonl").read_bytes() == before
    assert score(monkeypatch, *words, "--output", "b") == 0  # our own lines are read, too
    assert read_json(Path("a/result.json"))["scores"] == read_json(Path("b/result.json"))["scores"]


def test_the_result_of_other_answers_is_left_alone(
    rsicd: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, answers in (("base", ANSWERS), ("tuned", ANSWERS | {"2": "boats in a port"})):
        Path(folder).mkdir()
        Path(folder, "final.json").write_text(json.dumps(answers))
    words = ("--task", "captions", "--references", rsicd)
    result = Path("results/final.json/captions/result.json")
    assert score(monkeypatch, "base/final.json", *words) == 0
    before = result.read_bytes()
    assert score(monkeypatch, "tuned/final.json", *words) == 2  # the same folder by default
    assert "holds the result of other answers" in capsys.readouterr().err
    assert result.read_bytes() == before
    assert score(monkeypatch, "base/final.json", *words) == 0
    assert score(monkeypatch, "tuned/final.json", *words, "--output", "other") == 0
    Path("other/result.json").unlink()  # whose predictions these are is then unknown
    assert score(monkeypatch, "tuned/final.json", *words, "--output", "other") == 2


def test_what_no_result_can_hold_is_found_before_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("test.json").write_text(json.dumps([{"id": "\ud800", "answer": "да"}]))
    row = {"id": "\ud800", "answer": "да", "prompt": "\udfff", "seconds": float("nan")}
    Path("mine.json").write_text(json.dumps([row]))
    assert score(monkeypatch, "mine.json", "--task", "gqa-ru", "--references", "test.json") == 0
    (written,) = read_json_lines(Path("results/mine.json/gqa-ru/predictions.jsonl"))
    assert (written["id"], written["prompt"], written["seconds"]) == ("?", "?", None)


def test_gqa_ru_against_its_parquet_and_no_torch(tmp_path: Path) -> None:
    rows = [sets.gqa_row("1", "n1", "Какого цвета?", "красный"), sets.gqa_row("2", "n1", "Это кот?", "нет")]
    references = sets.write_gqa(tmp_path / "gqa", rows, sets.image_rows("n1"))
    (tmp_path / "mine.json").write_text(json.dumps({"1": "красный", "2": "да"}))
    code = (
        "import sys; from lorgnette import cli\n"
        f"sys.argv = ['lorgnette', 'score', 'mine.json', '--task', 'gqa-ru', '--references', {references!r}]\n"
        "try: cli.main()\nexcept SystemExit as stop: assert not stop.code, stop.code\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "exact_match 0.500 on 2 documents" in done.stdout


OWN_TASK = """
from lorgnette.evaluation.tasks.task import Document

class Birds:
    name, metric, split, prompt, max_new_tokens = "birds", "exact", "test", "{question}", 8

    def documents(self, split):
        return [Document("1", (), "Who sings?", "a robin"), Document("2", (), "Who swims?", "a duck")]

    def score(self, document, answer):
        return float(answer == document.reference)
"""


def test_a_task_without_a_path_needs_no_references(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("tasks_of_birds.py").write_text(OWN_TASK)
    Path("mine.json").write_text(json.dumps({"1": "a robin", "2": "a swan"}))
    words = ("mine.json", "--task", "tasks_of_birds:Birds")
    assert score(monkeypatch, *words) == 0
    assert "exact 0.500 on 2 documents" in capsys.readouterr().out
    assert Path("results/mine.json/tasks_of_birds.Birds/result.json").exists()
    assert score(monkeypatch, *words, "--references", "x.json") == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert "there is no option 'path'. Allowed: none. Next: leave out --data (--references of `score`)" in shown
    assert score(monkeypatch, "mine.json", "--task", "captions") == 2
    assert "with `lorgnette score` it is called --references" in " ".join(capsys.readouterr().err.split())


def test_a_task_that_its_module_does_not_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("more_of_birds.py").write_text(OWN_TASK)
    Path("mine.json").write_text("{}")
    assert score(monkeypatch, "mine.json", "--task", "more_of_birds:Brids") == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert "more_of_birds has no 'Brids'. It has: Birds. Did you mean 'Birds'?" in shown


def test_a_table_of_answers_is_refused_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("test.json").write_text(json.dumps({"1": "да"}))
    Path("mine.csv").write_text("id,answer\n1,да\n")
    assert score(monkeypatch, "mine.csv", "--task", "gqa-ru", "--references", "test.json") == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert "CSV and other tables are not read. Next: write one JSON object a line" in shown
    assert "cut off" not in shown


def test_answers_of_one_stem_have_results_of_their_own(rsicd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("ans.json").write_text(json.dumps(ANSWERS))
    Path("ans.jsonl").write_text(str(SHAPES["lines.jsonl"]) + "\n")
    for name in ("ans.json", "ans.jsonl"):
        assert score(monkeypatch, name, "--task", "captions", "--references", rsicd) == 0
        assert Path("results", name, "captions", "result.json").exists()


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("runs/quickstart/merged", "quickstart-merged"),
        ("./runs/quickstart/merged/", "quickstart-merged"),
        ("runs/a/stages/finetune/trained", "a-finetune-trained"),
        ("/work/runs/a/stages/finetune/trained", "a-finetune-trained"),
        ("/models/of/mine/merged", "mine-merged"),
        ("org/name", "org-name"),
        ("llava-7b", "llava-7b"),
        ("/models", "models"),
        ("/work/runs", "work-runs"),
        ("starter:vision-tower", "starter.vision-tower"),
    ],
)
def test_results_are_named_so_that_models_differ(model: str, name: str) -> None:
    assert result_name(model) == name


def test_the_result_name_of_a_place_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "runs" / "b")
    assert result_name("../a/merged") == "a-merged"
    assert result_name(".") == "b"
    assert result_name("~nobody-of-this-name/x") == "~nobody-of-this-name-x"


@pytest.mark.parametrize("row", ['{"id": 1, "answer": "да"}', '{"id": "1", "answer": "да"}'])
def test_one_line_is_json_lines_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("test.json").write_text(json.dumps({"1": "да"}))
    Path("mine.jsonl").write_text(f"{row}\n")
    assert score(monkeypatch, "mine.jsonl", "--task", "gqa-ru", "--references", "test.json") == 0
    assert read_json(Path("results/mine.jsonl/gqa-ru/result.json"))["score"] == 1.0


def test_an_id_twice_and_what_is_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("test.json").write_text(json.dumps({"1": "да", "2": "нет"}))
    words = ("mine.json", "--task", "gqa-ru", "--references", "test.json")
    for content, says in (
        ('{"1": "да", "2": "нет", "1": "нет"}', "the key '1' stands twice"),
        ('[{"id": 1, "answer": NaN}, {"id": 2, "answer": "нет"}]', "Allowed: a text"),
    ):
        Path("mine.json").write_text(content)
        assert score(monkeypatch, *words) == 2
        assert says in " ".join(capsys.readouterr().err.split())
    Path("mine.json").write_text('{"1": "да", "2": null}')
    assert score(monkeypatch, *words) == 0
    assert read_json(Path("results/mine.json/gqa-ru/result.json"))["score"] == 0.5
