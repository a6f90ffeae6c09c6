"""Readers: easy-VQA's splits and captions, LLaVA files with their variants and mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lorgnette.data.readers import read_samples
from lorgnette.data.readers.easy_vqa import easy_vqa_questions
from lorgnette.data.sample import Sample
from lorgnette.errors import DataError


def test_easy_vqa_splits_share_no_image() -> None:
    images = {
        split: {row.image for row in easy_vqa_questions(split=split)} for split in ("train", "validation", "test")
    }
    assert {split: len(found) for split, found in images.items()} == {"train": 3600, "validation": 400, "test": 1000}
    assert not images["train"] & images["validation"]
    assert len(easy_vqa_questions(split="test")) == 9673
    assert len(easy_vqa_questions(split="train")) + len(easy_vqa_questions(split="validation")) == 38575


def small_easy_vqa(folder: Path, rows: list) -> str:
    (folder / "train").mkdir(parents=True)
    (folder / "train" / "questions.json").write_text(json.dumps(rows))
    return str(folder)


def test_a_small_folder_says_that_all_of_it_is_validation(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="last 400 images"):
        list(read_samples(small_easy_vqa(tmp_path, [["what is it?", "circle", 3]]), "easy-vqa", "train"))


def test_captions_say_what_the_answers_tell(tmp_path: Path) -> None:
    rows = [
        ["what is the blue shape?", "rectangle", 0],
        ["what color is the triangle?", "red", 1],
        ["is there a circle?", "yes", 2],
        ["is there not a teal shape?", "no", 2],
        ["is a green shape present?", "no", 3],
        ["does the image not contain a gray shape?", "yes", 3],
        ["what color is the shape?", "brown", 4],
        ["is there a red shape?", "no", 1000],
    ]
    samples = list(read_samples(small_easy_vqa(tmp_path, rows), "easy-vqa-captions", "train"))
    assert [sample.turns[1].text for sample in samples] == [
        "a blue rectangle",
        "a red triangle",
        "a teal circle",
        "a brown shape",
    ]
    assert samples[2].origin.row == 2


def test_captions_of_the_package_agree_with_all_its_answers() -> None:
    captions = {
        sample.images[0]: sample.turns[1].text for sample in read_samples("easy-vqa", "easy-vqa-captions", "train")
    }
    assert len(captions) > 3500
    for row in easy_vqa_questions(split="train"):
        if row.kind != "yes/no" and row.image in captions:
            assert row.answer in captions[row.image].split()


def write(file: Path, rows: object) -> str:
    file.write_text(json.dumps(rows))
    return str(file)


def test_llava_rows_become_samples(tmp_path: Path) -> None:
    rows = [
        {
            "id": 7,
            "image": "a.jpg",
            "conversations": [{"from": "human", "value": "Что <image>?"}, {"from": "gpt", "value": "Чашка"}],
        },
        {
            "image": ["a.jpg", "b.jpg"],
            "messages": [{"role": "user", "content": "Compare."}, {"role": "assistant", "content": "Same."}],
        },
        {
            "conversations": [
                {"from": "system", "value": "Be brief."},
                {"from": "human", "value": "Hi"},
                {"from": "gpt", "value": "Hello"},
            ]
        },
    ]
    (tmp_path / "pictures").mkdir()
    first, second, third = read_samples(write(tmp_path / "x.json", rows), "llava", images=str(tmp_path / "pictures"))
    assert isinstance(first, Sample)
    assert (first.id, first.images) == ("7", (str(tmp_path / "pictures" / "a.jpg"),))
    assert second.turns[0].text == "<image>\n<image>\nCompare."
    assert [turn.role for turn in third.turns] == ["system", "user", "assistant"]
    lines = tmp_path / "x.jsonl"
    lines.write_text("\n".join(json.dumps(row) for row in rows))
    assert [sample.turns for sample in read_samples(str(lines), "llava")] == [first.turns, second.turns, third.turns]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("text", "a str"),
        ({}, "no `conversations` list"),
        ({"conversations": [{"from": "bird", "value": "x"}]}, "unknown role"),
        ({"conversations": [{"from": "human", "value": None}]}, "the text of a turn is a NoneType"),
        ({"conversations": ["x"]}, "a turn is a str"),
        ({"image": 3, "conversations": [{"from": "human", "value": "x"}]}, "`image` is 3"),
        ({"image": [""], "conversations": [{"from": "human", "value": "x"}]}, "`image` is ''"),
        ({"image": False, "conversations": [{"from": "human", "value": "x"}]}, "`image` is False"),
        ({"image": "a\0b.png", "conversations": [{"from": "human", "value": "x"}]}, "no usable image path"),
        ({"conversations": [{"from": "human", "value": "\ud800"}]}, "surrogate"),
        ({"image": "../../etc/passwd", "conversations": [{"from": "human", "value": "x"}]}, "leaves the images folder"),
    ],
)
def test_bad_llava_rows_are_yielded_as_errors_with_their_row(tmp_path: Path, row: object, says: str) -> None:
    good = {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}
    found = list(read_samples(write(tmp_path / "x.json", [good, row]), "llava"))
    assert isinstance(found[0], Sample)
    assert isinstance(found[1], DataError)
    assert "row 1" in str(found[1])
    assert says in str(found[1])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"[{", "no valid JSON"),
        (b"\xff\xfe\x00", "UTF-8"),
        (b'{"a": 1}\n{"b"', "line 2"),
        (b"[" * 100_000, "no valid JSON"),
    ],
)
def test_broken_files_are_errors(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "x.json"
    file.write_bytes(content)
    with pytest.raises(DataError, match=says):
        list(read_samples(str(file), "llava"))
    with pytest.raises(DataError, match=r"Did you mean 'x.json'"):
        list(read_samples(str(tmp_path / "xx.json"), "llava"))


@pytest.mark.parametrize(
    "content",
    ["[[1, 2]]", "{", "[]x", '[["q", "a", "image"]]', '[["q", "a", 1e999]]', '[["q", "a", "3"]]', "[" * 100_000],
)
def test_broken_easy_vqa_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "questions.json").write_text(content)
    with pytest.raises(DataError, match="cannot be read"):
        list(read_samples(str(tmp_path), "easy-vqa", "train"))
