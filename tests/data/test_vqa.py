"""VQA: RSVQA with its stubs, VQA v2 with ten answers, plain tables."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lorgnette.data.dataset import render_all
from lorgnette.data.readers import read_samples
from lorgnette.data.readers.source import SourceSpec
from lorgnette.data.readers.vqa import VQAQuestion, count_range, vqa_questions, vqa_variants
from lorgnette.data.rendering import Renderer
from lorgnette.data.sample import Origin, Sample, Turn
from lorgnette.data.templates import chat_template
from lorgnette.errors import DataError, LeftOut, RowError
from small import make_tokenizer
from small_sets import VQA_ROWS, picture, write_parquet, write_rsvqa, write_vqa_v2


def test_rsvqa(tmp_path: Path) -> None:
    (tmp_path / "Images_LR").mkdir()
    path = str(Path(write_rsvqa(tmp_path)) / "LR_split_val_questions.json")
    found = list(vqa_questions(str(tmp_path), "val", None))
    assert found[1:4] == [
        VQAQuestion(
            id="26",
            image=str(tmp_path / "Images_LR" / "1.tif"),
            question="Is it a rural or an urban area",
            answer="rural",
            answers=("rural",),
            raw_answer="rural",
            kind="rural_urban",
            question_type="",
            origin=Origin(path, 1),
        ),
        VQAQuestion(
            id="27",
            image=str(tmp_path / "Images_LR" / "1.tif"),
            question="How many roads?",
            answer="between 11 and 100",
            answers=("between 11 and 100",),
            raw_answer="12",
            kind="count",
            question_type="",
            origin=Origin(path, 2),
            mended=("count given as a range",),
        ),
        VQAQuestion(
            id="28",
            image=str(tmp_path / "Images_LR" / "2.tif"),
            question="Is a road there?",
            answer="yes",
            answers=("yes",),
            raw_answer="yes",
            kind="presence",
            question_type="",
            origin=Origin(path, 3),
        ),
    ]
    assert [(type(row), row.kind, row.where) for row in found if isinstance(row, RowError)] == [
        (LeftOut, "inactive", f"{path}, row 0 (id 0)"),
        (RowError, "no answer", f"{path}, row 4 (id 29)"),
        (LeftOut, "inactive", f"{path}, row 5 (id 30)"),
    ]
    assert [row for row in vqa_questions(path, None, None) if isinstance(row, VQAQuestion)] == found[1:4]


def test_samples_say_that_a_count_became_a_range(tmp_path: Path) -> None:
    found = [
        row for row in read_samples(write_rsvqa(tmp_path), "vqa", "train", str(tmp_path)) if isinstance(row, Sample)
    ]
    assert [(sample.turns[1].text, sample.mended) for sample in found] == [
        ("rural", ()),
        ("between 11 and 100", ("count given as a range",)),
        ("yes", ()),
    ]
    assert found[0].turns[0] == Turn("user", "<image>\nIs it a rural or an urban area")
    assert found[0].images == (str(tmp_path / "1.tif"),)


def test_only_the_low_resolution_set_has_ranges(tmp_path: Path) -> None:
    found = [row for row in vqa_questions(write_rsvqa(tmp_path, "USGS"), "val", "/x") if isinstance(row, VQAQuestion)]
    assert [row.answer for row in found] == ["rural", "12", "yes"]


def test_counts_may_be_chosen(tmp_path: Path) -> None:
    for name, counts, expected in (("LR", "numbers", "12"), ("USGS", "ranges", "between 11 and 100")):
        (tmp_path / name).mkdir()
        found = read_samples(
            write_rsvqa(tmp_path / name, name), "vqa", "val", str(tmp_path), options={"counts": counts}
        )
        assert [row.turns[1].text for row in found if isinstance(row, Sample)] == ["rural", expected, "yes"]


def test_a_prompt_stands_around_the_question(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps(VQA_ROWS))
    prompt = "{question}\nОтветь одним словом {x}."
    (first, _) = read_samples(str(tmp_path / "x.json"), "vqa", options={"prompt": prompt})
    assert isinstance(first, Sample)
    assert first.turns[0].text == "<image>\nЧто это?\nОтветь одним словом {x}."
    for wrong in ("Ответь.", "{question} {question}", "<image> {question}"):
        with pytest.raises(DataError, match=r"prompt: .*must hold \{question\} once"):
            list(read_samples(str(tmp_path / "x.json"), "vqa", options={"prompt": wrong}))
    with pytest.raises(DataError, match=r"no option 'promt'\. Did you mean 'prompt'"):
        list(read_samples(str(tmp_path / "x.json"), "vqa", options={"promt": prompt}))


def test_stubs_are_counted_and_are_no_bad_rows(tmp_path: Path) -> None:
    """Half of the rows are stubs or unusable; of those that count one in four is bad."""
    for number in (1, 2):
        (tmp_path / f"{number}.tif").write_bytes(picture(number))
    samples = list(read_samples(write_rsvqa(tmp_path), "vqa", "val"))
    assert Counter(type(sample).__name__ for sample in samples) == {"Sample": 3, "LeftOut": 2, "RowError": 1}
    tokenizer = make_tokenizer(tmp_path / "tokenizer")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]}, replace_extra_special_tokens=False)
    renderer = Renderer(chat_template(tokenizer, "chatml"), tokenizer.convert_tokens_to_ids("<image>"), 2)
    _, judged = render_all(samples, renderer, max_bad_share=0.25)
    assert (judged.read, judged.kept) == (4, 3)
    assert judged.counts("leave out") == {"inactive": 2}
    assert judged.counts("drop") == {"no answer": 1}
    assert judged.counts("mend") == {"count given as a range": 1}


@pytest.mark.parametrize("content", ["rsvqa", "vqa v2", "table"])
def test_the_layout_is_told(tmp_path: Path, content: str) -> None:
    if content == "table":
        (tmp_path / "x.json").write_text(json.dumps(VQA_ROWS))
        assert list(vqa_variants(SourceSpec(str(tmp_path / "x.json")))) == ["table", "table"]
    elif content == "rsvqa":
        assert list(vqa_variants(SourceSpec(write_rsvqa(tmp_path), "val"))) == ["RSVQA"] * 6
    else:
        assert list(vqa_variants(SourceSpec(write_vqa_v2(tmp_path), "val"))) == ["VQA v2"] * 3


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("0", "0"),
        ("1", "between 1 and 10"),
        ("10", "between 1 and 10"),
        ("11", "between 11 and 100"),
        ("100", "between 11 and 100"),
        ("101", "between 101 and 1000"),
        ("1000", "between 101 and 1000"),
        ("1001", "more than 1000"),
        ("yes", "yes"),
        ("between 1 and 10", "between 1 and 10"),
        ("-1", "-1"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_ranges_of_counts(answer: str, expected: str) -> None:
    assert count_range(answer) == expected


@pytest.mark.parametrize("split", ["val", "val2014", None])
def test_vqa_v2(tmp_path: Path, split: str | None) -> None:
    file = Path(write_vqa_v2(tmp_path)) / "v2_OpenEnded_mscoco_val2014_questions.json"
    first, second, third = vqa_questions(str(tmp_path if split else file), split, "/coco")
    assert first == VQAQuestion(
        id="458752000",
        image="/coco/COCO_val2014_000000458752.jpg",
        question="What is this photo taken looking through?",
        answer="net",
        answers=("netting", *["net"] * 9),
        raw_answer="net",
        kind="other",
        question_type="what is this",
        origin=Origin(str(file), 0),
    )
    assert isinstance(second, VQAQuestion)
    assert (second.kind, second.answers) == ("yes/no", ("yes",))
    assert isinstance(third, RowError)
    assert (third.kind, third.where) == ("no answer", f"{file}, row 2 (id 262146000)")


def test_images_of_vqa_v2_are_found_by_coco_names(tmp_path: Path) -> None:
    for name in ("val2017/000000458752.jpg", "coco.txt"):
        (tmp_path / "coco" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "coco" / name).write_bytes(picture(1))
    found = list(read_samples(write_vqa_v2(tmp_path), "vqa", "val", f"coco:{tmp_path / 'coco'}"))
    first, second, third = found
    assert isinstance(first, Sample)
    assert first.images == (str(tmp_path / "coco" / "val2017" / "000000458752.jpg"),)
    assert first.mended == ("image found by its COCO id",)
    assert isinstance(second, Sample)
    assert isinstance(third, RowError)


def test_images_of_vqa_v2_may_lie_in_a_folder_a_split(tmp_path: Path) -> None:
    (tmp_path / "coco" / "val2014").mkdir(parents=True)
    first = next(vqa_questions(write_vqa_v2(tmp_path), "val", str(tmp_path / "coco")))
    assert isinstance(first, VQAQuestion)
    assert first.image == str(tmp_path / "coco" / "val2014" / "COCO_val2014_000000458752.jpg")


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".tsv", ".parquet"])
def test_plain_tables(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"x{suffix}"
    mark = "\t" if suffix == ".tsv" else ","
    if suffix == ".parquet":
        write_parquet(file, VQA_ROWS)
    elif suffix in {".json", ".jsonl"}:
        file.write_text(json.dumps(VQA_ROWS) if suffix == ".json" else "\n".join(map(json.dumps, VQA_ROWS)))
    else:
        file.write_text("\n".join([mark.join(VQA_ROWS[0]), *(mark.join(row.values()) for row in VQA_ROWS)]))
    assert list(vqa_questions(str(file), None, "/x")) == [
        VQAQuestion("a", "/x/1.jpg", "Что это?", "кот", ("кот",), "кот", "object", "", Origin(str(file), 0)),
        VQAQuestion("b", "/x/2.jpg", "Сколько?", "2", ("2",), "2", "count", "", Origin(str(file), 1)),
    ]


def test_a_set_of_the_hub_with_its_images(tmp_path: Path) -> None:
    rows = [
        {
            "question_id": "5",
            "question": "What?",
            "multiple_choice_answer": "net",
            "answers": [{"answer": "net", "answer_confidence": "yes", "answer_id": 1}],
            "answer_type": "other",
            "question_type": "what",
            "image": {"bytes": picture(5), "path": "x.jpg"},
        }
    ]
    write_parquet(tmp_path / "data" / "validation-00000-of-00001.parquet", rows)
    (found,) = vqa_questions(str(tmp_path), "validation", None)
    assert isinstance(found, VQAQuestion)
    assert (found.id, found.answer, found.answers, found.kind, found.question_type) == (
        "5",
        "net",
        ("net",),
        "other",
        "what",
    )
    assert Path(found.image).read_bytes() == picture(5)


def test_the_most_frequent_of_several_answers_is_learned(tmp_path: Path) -> None:
    rows = [
        {"question": "?", "answers": ["b", "a", "a"], "image": "x"},
        {"question": "?", "answers": ["b", "a"], "image": "x"},
    ]
    (tmp_path / "x.json").write_text(json.dumps(rows))
    found = list(vqa_questions(str(tmp_path / "x.json"), None, None))
    assert [row.answer for row in found if isinstance(row, VQAQuestion)] == ["a", "b"]
    assert [row.id for row in found if isinstance(row, VQAQuestion)] == ["x.json-0", "x.json-1"]


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"question": None}, "no question"),
        ({"question": ["x"]}, "question is no text"),
        ({"answer": None}, "no answer"),
        ({"answer": True}, "answer is no text"),
        ({"answers": "x"}, "answers is no list"),
        ({"answers": []}, "answers is no list"),
        ({"answers": [None]}, "no answers"),
        ({"image": None}, "no image"),
        ({"image": ["1.jpg", "2.jpg"]}, "several images"),
        ({"image": 3}, "image cell"),
        ({"image": {"bytes": ""}}, "empty image"),
        ({"image": "https://x.org/a.jpg"}, "image is a web address"),
        ({"image": "/etc/passwd"}, "image path leaves its folder"),
        ({"image": "a\0b"}, "image path"),
        ({"question": "\ud800"}, "broken text"),
        ({"id": {}}, "id is no text"),
    ],
)
def test_bad_rows_are_errors_with_their_row(tmp_path: Path, row: dict[str, Any], kind: str) -> None:
    file = tmp_path / "x.json"
    file.write_text(json.dumps([VQA_ROWS[0], VQA_ROWS[1] | row]))
    good, bad = vqa_questions(str(file), None, None)
    assert isinstance(good, VQAQuestion)
    assert isinstance(bad, RowError)
    assert bad.kind == kind
    assert bad.where.startswith(f"{file}, row 1")


def test_links_out_of_the_images_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "secret.jpg").write_bytes(picture(1))
    (tmp_path / "pictures" / "1.jpg").symlink_to(tmp_path / "secret.jpg")
    (tmp_path / "x.json").write_text(json.dumps(VQA_ROWS))
    bad, good = vqa_questions(str(tmp_path / "x.json"), None, str(tmp_path / "pictures"))
    assert isinstance(bad, RowError)
    assert bad.kind == "image path leaves its folder"
    assert isinstance(good, VQAQuestion)
    options = {"outside_images": True}
    allowed = list(read_samples(str(tmp_path / "x.json"), "vqa", images=str(tmp_path / "pictures"), options=options))
    assert [type(sample) for sample in allowed] == [Sample, Sample]


def test_files_that_are_not_there_or_no_questions(tmp_path: Path) -> None:
    write_rsvqa(tmp_path)
    with pytest.raises(DataError, match="0 files of questions are of split 'test'"):
        list(vqa_questions(str(tmp_path), "test", None))
    with pytest.raises(DataError, match="0 files of questions are of split 'None'"):
        list(vqa_questions(str(tmp_path), None, None))
    (tmp_path / "LR_split_val_answers.json").write_text('{"answers": {}}')
    with pytest.raises(DataError, match=r"LR_split_val_answers\.json: there is no list `answers`"):
        list(vqa_questions(str(tmp_path), "val", None))
    (tmp_path / "LR_split_val_answers.json").unlink()
    with pytest.raises(DataError, match=r"LR_split_val_answers\.json: there is no such file"):
        list(vqa_questions(str(tmp_path), "val", None))
    for content in ("3", "{}", '{"questions": []}', '{"questions": {}}'):
        (tmp_path / "x.json").write_text(content)
        with pytest.raises(DataError, match="no questions that we know"):
            list(vqa_questions(str(tmp_path / "x.json"), None, None))
    (tmp_path / "x.json").write_text('{"questions": [{"id": 1}]}')
    with pytest.raises(DataError, match="found by its name"):
        list(vqa_questions(str(tmp_path / "x.json"), None, None))
    with pytest.raises(DataError, match="a file has no splits"):
        list(vqa_questions(str(tmp_path / "x.json"), "val", None))
