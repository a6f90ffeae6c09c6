"""The benchmarks that come with Lorgnette, on small sets in the layouts of the real ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scipy.stats import binomtest

import small_sets as sets
from lorgnette.cli.results import TASK_HELP
from lorgnette.errors import DataError
from lorgnette.evaluation.asking import fill
from lorgnette.evaluation.results import prediction, summarise
from lorgnette.evaluation.scoring import score_answers
from lorgnette.evaluation.tasks import TASKS, find_task, read_documents
from lorgnette.evaluation.tasks.task import Document


def summary(task, documents, answers) -> dict:
    """What result.json says of these answers."""
    scored = score_answers(task, documents, answers)
    asked = [{"prompt": "", "answer": a, "raw": a, "seconds": 0.0, "stopped_by": "end"} for a in answers]
    rows = [prediction(d, a, s, task.metric) for d, a, s in zip(documents, asked, scored.rows, strict=True)]
    return summarise(task.metric, rows, scored)


def values(result: dict) -> dict[str, float]:
    return {name: part["score"] for name, part in result["scores"].items()}


def test_the_table_of_tasks() -> None:
    assert list(TASKS) == ["easy-vqa", "gqa", "gqa-ru", "mmbench", "mmbench-ru", "vqa", "captions", "instruct"]
    page = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    for name in TASKS:
        assert name in TASK_HELP.replace(",", "").split()
        task = find_task(name)
        assert f"| `{name}` |" in page
        presets = vars(type(task)).get("presets", {})
        for preset, asked in presets.items():
            assert find_task(name, {"preset": preset}).prompt == asked.prompt
            assert f"`{preset}`" in page
    for name in ("mmbench", "vqa", "captions", "instruct"):
        with pytest.raises(DataError, match="Next: --data"):
            read_documents(find_task(name), None)
    with pytest.raises(DataError, match=r"no preset 'lmms'. Allowed: lmms-eval, russian-project"):
        find_task("gqa-ru", {"preset": "lmms"})


def test_presets_ask_as_the_harnesses_do(vectors) -> None:
    ru = find_task("gqa-ru")
    assert (ru.prompt, ru.max_new_tokens) == ("{question}\nОтветь одним словом.", 16)
    assert find_task("gqa-ru", {"preset": "russian-project"}).max_new_tokens == 10
    assert find_task("mmbench-ru", {"preset": "russian-project"}).max_new_tokens == 5
    options = vectors("vqa_and_choices")["mmbench_options_prompt"].partition("\n")[2]
    document = Document("1", (), "Кто?", "A", fields={"hint": "", "options": options})
    text = fill(find_task("mmbench-ru").prompt, document)
    head = vectors("vqa_and_choices")["mmbench_options_prompt"]
    assert text == f"Кто? {head}\n\nВыбери правильный вариант ответа буквой."
    hinted = Document("1", (), "Кто?", "A", fields={"hint": "Смотри.", "options": options})
    assert fill(find_task("mmbench-ru").prompt, hinted) == f"Смотри. {text}"


def test_gqa_ru_from_a_folder_of_parquet(tmp_path: Path) -> None:
    rows = [
        sets.gqa_row("1", "n1", "Какого цвета машина?", "красный"),
        sets.gqa_row("2", "n1", "Это кот?", "нет"),
        sets.gqa_row("3", "n2", "Где мяч?", "слева"),
    ]
    path = sets.write_gqa(tmp_path, rows, sets.image_rows("n1", "n2"))
    task = find_task("gqa-ru", {"path": path})
    documents, unusable = read_documents(task, None)
    assert ([d.id for d in documents], unusable) == (["1", "2", "3"], {})
    assert all(d.kind for d in documents)
    assert Path(documents[0].images[0]).is_file()
    result = summary(task, documents, ["Красная.", "Нет!", ""])
    assert values(result) == pytest.approx({"exact_match": 1 / 3, "exact_match_lemma": 2 / 3})
    assert (result["unread"], result["unread_share"]) == (1, pytest.approx(1 / 3))
    assert (result["stopped_by_length"], result["stopped_by_length_share"]) == (0, 0.0)
    assert "pymorphy3" in result["scores"]["exact_match_lemma"]["note"]


def mmbench(tmp_path: Path, **options):
    """Two questions: one with two rows, one of whose three rows is missing."""
    rows = [
        sets.mmbench_row(1, "A", ["кошка", "собака", None, None], sets.struct(1)),
        sets.mmbench_row(1_000_001, "B", ["собака", "кошка", None, None], sets.struct(1)),
        sets.mmbench_row(2, "C", ["лошадь", "корова", "коза", None], sets.struct(2)),
        sets.mmbench_row(1_000_002, "B", ["корова", "коза", "лошадь", None], sets.struct(2)),
    ]
    path = sets.write_parquet(tmp_path / "mmbench_ru_dev.parquet", rows)
    task = find_task("mmbench-ru", {"path": path, **options})
    return task, read_documents(task, None)[0]


def test_mmbench_ru_rows_groups_and_what_is_unread(tmp_path: Path) -> None:
    task, documents = mmbench(tmp_path)
    assert documents[0].choices == {"A": "кошка", "B": "собака"}
    result = summary(task, documents, ["A", "Ответ: B", "коза", "В"])  # the last one is Cyrillic
    assert values(result) == {"accuracy": 0.75, "circular_accuracy": 0.5}
    assert [result["scores"][name]["n"] for name in ("accuracy", "circular_accuracy")] == [4, 2]  # rows, questions
    low, high = result["scores"]["circular_accuracy"]["interval"]
    assert (low, high) == pytest.approx(tuple(binomtest(1, 2).proportion_ci(method="wilson")))
    assert result["unread"] == 1
    assert result["counts"] == {
        "circular_groups": 2,
        "circular_groups_incomplete": 1,
        "circular_groups_without_main_row": 0,
    }
    assert "1 answers are unread" in result["warnings"][0]
    assert "homoglyphs=fold" in result["warnings"][0]
    assert set(result["groups"]) == {"l2-category"}
    folding, _ = mmbench(tmp_path, homoglyphs="fold")
    result = summary(folding, documents, ["A", "Ответ: B", "коза", "В"])
    assert values(result) == {"accuracy": 1.0, "circular_accuracy": 1.0}
    assert result["warnings"] == []


def test_mmbench_with_cyrillic_letters(tmp_path: Path) -> None:
    task, documents = mmbench(tmp_path, letters="АБВГД", homoglyphs="fold")
    assert fill("{options}", documents[2]) == "А. лошадь\nБ. корова\nВ. коза"
    result = summary(task, documents, ["A", "Б", "В", "B"])  # Latin A is А, Latin B is В and so the third
    assert values(result) == {"accuracy": 0.75, "circular_accuracy": 0.5}
    with pytest.raises(DataError, match="Allowed: 5 that differ"):
        mmbench(tmp_path, letters="ABC")


def test_mmbench_from_the_official_tsv(tmp_path: Path) -> None:
    rows = [
        sets.official_row(1, sets.encoded(1)),
        *(sets.official_row(1 + turn * 1_000_000, "1") for turn in (1, 2, 3)),
    ]
    task = find_task("mmbench", {"path": sets.write_tsv(tmp_path / "mmbench_dev_en.tsv", rows)})
    documents, _ = read_documents(task, None)
    assert len({d.images for d in documents}) == 1
    result = summary(task, documents, [d.reference for d in documents])
    assert values(result) == {"accuracy": 1.0, "circular_accuracy": 1.0}
    assert result["counts"]["circular_groups_incomplete"] == 0


def test_vqa_of_a_table_with_several_answers(tmp_path: Path) -> None:
    file = tmp_path / "vqa.json"
    rows = [
        {"id": 1, "image": "a.png", "question": "How many?", "answers": ["2"] * 9 + ["3"], "type": "number"},
        {"id": 2, "image": "a.png", "question": "Is it red?", "answers": ["yes"] * 2 + ["no"] * 8, "type": "yes/no"},
        {"id": 3, "image": "a.png", "question": "Is it big?", "answers": ["yes"] * 10, "type": "yes/no"},
    ]
    file.write_text(json.dumps(rows))
    task = find_task("vqa", {"path": str(file)})
    documents, _ = read_documents(task, None)
    result = summary(task, documents, ["two", "Yes.", "yes"])
    assert values(result) == pytest.approx(
        {"vqa_accuracy": (1 + 0.6 + 1) / 3, "exact_match": 1 / 3, "evalai_match": 2 / 3, "average_accuracy": 0.9}
    )
    assert result["kinds"] == {"number": {"n": 1, "score": 1.0}, "yes/no": {"n": 2, "score": pytest.approx(0.8)}}


def test_rsvqa_counts_are_compared_by_range(tmp_path: Path) -> None:
    path = sets.write_rsvqa(tmp_path)
    answers = tmp_path / "LR_split_val_answers.json"
    answers.write_text(
        answers.read_text().replace('{"id": 29, "active": false}', '{"id": 29, "answer": "no", "active": true}')
    )
    task = find_task("vqa", {"path": path})
    documents, unusable = read_documents(task, "val")
    assert unusable == {"inactive": 2}
    assert [d.reference for d in documents] == ["rural", "between 11 and 100", "yes", "no"]
    assert values(summary(task, documents, ["rural", "70", "yes", "no"]))["exact_match"] == 1.0
    assert values(summary(task, documents, ["rural", "7", "yes", "no"]))["exact_match"] == 0.75


def karpathy(tmp_path: Path, count: int = 3) -> str:
    said = [["Many planes are parked."] * 5, ["A green field.", "A field, isn't it?"], ["Boats in a port."]]
    rows = [
        {"filename": f"{n}.tif", "imgid": n, "split": "test", "sentences": [{"raw": text} for text in said[n]]}
        for n in range(count)
    ]
    rows.append({"filename": "9.tif", "imgid": 9, "split": "train", "sentences": [{"raw": "no"}]})
    file = tmp_path / "dataset_rsicd.json"
    file.write_text(json.dumps({"dataset": "rsicd", "images": rows}))
    return str(file)


def test_captions_with_several_references(tmp_path: Path) -> None:
    task = find_task("captions", {"path": karpathy(tmp_path)})
    documents, _ = read_documents(task, None)
    assert [len(d.references) for d in documents] == [5, 2, 1]
    result = summary(task, documents, ["many planes are parked", "a green field", "boats in a port"])
    found = values(result)
    assert list(found) == ["cider_d", "cider", "rouge_l", "bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor"]
    assert found["bleu_4"] == pytest.approx(1.0, abs=1e-6)
    assert found["rouge_l"] == pytest.approx(1.0)
    assert found["cider_d"] > 5
    assert result["scores"]["bleu_4"]["aggregate"] == "bleu_4"
    assert "these 3 images" in result["scores"]["cider_d"]["note"]
    assert result["warnings"] == []


def test_captions_of_a_folder_and_of_a_table(tmp_path: Path) -> None:
    karpathy(tmp_path)
    ids = ["0", "1", "2"]
    assert [d.id for d in read_documents(find_task("captions", {"path": str(tmp_path)}), None)[0]] == ids
    table = tmp_path / "parquet"
    rows = [{"imgid": name, "captions": ["a", "b"], "image": sets.struct(1)} for name in ids]
    sets.write_parquet(table / "data" / "test-00000-of-00001.parquet", rows)
    sets.write_parquet(table / "data" / "train-00000-of-00001.parquet", rows[:1])
    for path in (table, table / "data" / "test-00000-of-00001.parquet"):
        assert [d.id for d in read_documents(find_task("captions", {"path": str(path)}), None)[0]] == ids
    assert len(read_documents(find_task("captions", {"path": str(table)}), "train")[0]) == 1
    with pytest.raises(DataError, match="no data file with 'val' in its name"):
        read_documents(find_task("captions", {"path": str(table)}), "val")


def test_easy_vqa_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "questions.json").write_text(json.dumps([["what color is the shape?", "red", 0]]))
    documents, _ = read_documents(find_task("easy-vqa", {"path": str(tmp_path)}), None)
    assert [(d.reference, d.kind, d.images) for d in documents] == [
        ("red", "color", (str(tmp_path / "test" / "images" / "0.png"),))
    ]


def test_one_image_has_no_cider(tmp_path: Path) -> None:
    task = find_task("captions", {"path": karpathy(tmp_path, 1)})
    documents, _ = read_documents(task, None)
    result = summary(task, documents, ["many planes are parked"])
    assert values(result)["cider_d"] == 0.0
    assert "With one image CIDEr is 0" in result["warnings"][0]


def test_captions_of_an_unknown_split_are_refused(tmp_path: Path) -> None:
    task = find_task("captions", {"path": karpathy(tmp_path)})
    assert len(read_documents(task, "train")[0]) == 1
    with pytest.raises(DataError, match=r"no split 'val'. The file has: test, train"):
        read_documents(task, "val")


def test_instructions_in_russian(tmp_path: Path) -> None:
    file = tmp_path / "held_out.jsonl"
    rows = [
        {"instruction": "Кто сидит на столе?", "input": "", "output": "Кот сидит на столе."},
        {"instruction": "Повтори", "input": "да", "output": "да"},
    ]
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    task = find_task("instruct", {"path": str(file), "format": "instruct", "legacy": "true"})
    documents, _ = read_documents(task, None)
    assert [fill(task.prompt, d) for d in documents] == ["Кто сидит на столе?", "Повтори\nда"]
    result = summary(task, documents, ["Кот сидит на столе.", "да"])
    found = values(result)
    assert (found["rouge_l"], found["rouge_1"], found["legacy_rouge1"]) == (1.0, 1.0, 0.0)
    assert found["sacrebleu"] == pytest.approx(100.0)
    assert found["chrf"] == pytest.approx(100.0)
    assert result["scores"]["legacy_rougeL"]["note"].startswith("WRONG")
    (warning,) = result["warnings"]
    assert warning.startswith("legacy_rouge1, legacy_rouge2, legacy_rougeL: WRONG on anything but ASCII")
    assert "nrefs:1|case:mixed" in result["scores"]["sacrebleu"]["note"]


def test_conversations_about_one_image_share_its_id(tmp_path: Path) -> None:
    spoken = [{"from": "human", "value": "<image>\nWho?"}, {"from": "gpt", "value": "A cat."}]
    more = [*spoken, {"from": "human", "value": "Where?"}, {"from": "gpt", "value": "There."}]
    file = tmp_path / "llava.json"
    file.write_text(json.dumps([{"id": "7", "image": "7.png", "conversations": turns} for turns in (spoken, more)]))
    documents, unusable = read_documents(find_task("instruct", {"path": str(file)}), None)
    assert unusable == {"later questions of conversations, not asked": 1}
    limited, counted = read_documents(find_task("instruct", {"path": str(file)}), None, 2)
    assert (limited, counted) == (documents, unusable)
    assert [(d.id, d.question, d.reference, len(d.images)) for d in documents] == [
        ("7", "Who?", "A cat.", 1),
        ("7#2", "Who?", "A cat.", 1),
    ]


def test_the_interval_of_graded_scores_stays_within_their_scale(tmp_path: Path) -> None:
    task = find_task("captions", {"path": karpathy(tmp_path)})
    documents, _ = read_documents(task, None)
    scores = summary(task, documents, ["many planes", "a green field", "boats in a port"])["scores"]
    low, high = scores["rouge_l"]["interval"]
    assert 0.0 <= low < scores["rouge_l"]["score"] < high <= 1.0  # by the normal approximation it would end at 1.12
    assert scores["rouge_l"]["stderr"] == pytest.approx((1 - 1.22 / 1.94) / 3)


def test_the_interval_of_graded_scores_that_are_all_0_has_the_width_of_their_scale(tmp_path: Path) -> None:
    task = find_task("captions", {"path": karpathy(tmp_path)})
    documents, _ = read_documents(task, None)
    scores = summary(task, documents, ["", "", ""])["scores"]
    upper = binomtest(0, 3).proportion_ci(method="wilson").high
    assert scores["cider_d"]["highest"] == scores["cider"]["highest"] == 10.0
    assert "highest" not in scores["rouge_l"]
    for name, highest in (("rouge_l", 1.0), ("cider_d", 10.0)):
        assert scores[name]["score"] == 0.0
        assert scores[name]["interval"] == pytest.approx([0.0, highest * upper])


def test_the_interval_of_a_corpus_metric_holds_it(tmp_path: Path) -> None:
    task = find_task("captions", {"path": karpathy(tmp_path)})
    documents, _ = read_documents(task, None)
    answers = ["many planes", "a red field", "boats in a port"]
    first, second = (summary(task, documents, answers)["scores"]["bleu_1"] for _ in range(2))
    assert first == second  # the bootstrap's seed is fixed
    low, high = first["interval"]
    assert low <= first["score"] <= high
    assert low < high
