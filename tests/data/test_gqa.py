"""GQA: instructions joined to images as far as they are asked for; the original JSON; what is wrong names its row."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import datasets
import pytest

from lorgnette.data.readers import read_samples
from lorgnette.data.readers.gqa import GQAQuestion, gqa_questions
from lorgnette.data.sample import Origin, Sample, Turn
from lorgnette.errors import DataError, RowError
from small_sets import GQA_IMAGES, GQA_ORIGINAL, GQA_QUESTIONS, gqa_row, image_rows, picture, write_gqa, write_parquet


def test_questions_are_joined_to_their_images(tmp_path: Path, image_cache: Path) -> None:
    first, second, third = gqa_questions(write_gqa(tmp_path, GQA_QUESTIONS, GQA_IMAGES), "testdev", None)
    assert isinstance(first, GQAQuestion)
    file = str(tmp_path / "testdev_balanced_instructions" / "testdev-00000-of-00002.parquet")
    assert first == GQAQuestion(
        id="201307251",
        image_id="n161313",
        image=first.image,
        question="Что слева от дивана?",
        answer="лампа",
        full_answer="Это лампа.",
        types={"structural": "query", "semantic": "rel", "detailed": "relS"},
        groups={"local": "06-person_in"},
        origin=Origin(file, 0),
    )
    assert Path(first.image).read_bytes() == picture(0)
    assert Path(first.image).is_relative_to(image_cache)
    assert isinstance(second, GQAQuestion)
    assert (second.full_answer, second.groups, second.origin) == (
        "",
        {"global": "animal", "local": "x"},
        Origin(file, 1),
    )
    assert Path(second.image).read_bytes() == picture(1)
    assert isinstance(third, GQAQuestion)
    assert (third.image, third.types) == (first.image, {})
    assert third.origin == Origin(file.replace("-00000-", "-00001-"), 0)


def test_a_sample_asks_the_question_about_the_image(tmp_path: Path) -> None:
    first = next(read_samples(write_gqa(tmp_path, GQA_QUESTIONS, GQA_IMAGES), "gqa", "testdev"))
    assert isinstance(first, Sample)
    assert first.turns == (Turn("user", "<image>\nЧто слева от дивана?"), Turn("assistant", "лампа"))
    assert first.id == "201307251"
    assert len(first.images) == 1


def test_a_prompt_stands_around_the_question(tmp_path: Path) -> None:
    path = write_gqa(tmp_path, GQA_QUESTIONS, GQA_IMAGES)
    first = next(read_samples(path, "gqa", "testdev", options={"prompt": "{question}\nОтветь одним словом."}))
    assert isinstance(first, Sample)
    assert first.turns[0].text == "<image>\nЧто слева от дивана?\nОтветь одним словом."
    with pytest.raises(DataError, match="follow from its split"):
        list(read_samples(path, "gqa", "testdev", options={"config": "default"}))


def test_the_hub_gives_the_same_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` is sent to a folder in place of the hub; it reads both alike."""
    path = write_gqa(tmp_path / "local", GQA_QUESTIONS, GQA_IMAGES)
    configs = "".join(
        f"- config_name: {name}\n  data_files: [{{split: testdev, path: {name}/testdev-*}}]\n"
        for name in ("testdev_balanced_images", "testdev_balanced_instructions")
    )
    (tmp_path / "local" / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    asked: list[object] = []
    load = datasets.load_dataset

    def load_from_folder(name: str, config: str, **more: object) -> object:
        asked.append((name, config, more))
        return load(path, config, **more)

    monkeypatch.setattr(datasets, "load_dataset", load_from_folder)
    found = list(gqa_questions("deepvk/GQA-ru", "testdev", None))
    local = list(gqa_questions(path, "testdev", None))
    assert [row.origin for row in found if isinstance(row, GQAQuestion)] == [
        Origin("deepvk/GQA-ru/testdev_balanced_instructions/testdev", number) for number in range(3)
    ]
    same = Origin("", 0)
    assert [replace(row, origin=same) for row in found if isinstance(row, GQAQuestion)] == [
        replace(row, origin=same) for row in local if isinstance(row, GQAQuestion)
    ]
    assert asked == [
        ("deepvk/GQA-ru", f"testdev_balanced_{kind}", {"split": "testdev", "streaming": True})
        for kind in ("instructions", "images")
    ]


def test_images_are_read_only_as_far_as_they_are_asked_for(tmp_path: Path, image_cache: Path) -> None:
    path = write_gqa(tmp_path, GQA_QUESTIONS, [*GQA_IMAGES, *image_rows(*(f"other{n}" for n in range(200)))])
    assert len(list(islice(gqa_questions(path, "testdev", None), 1))) == 1
    assert len([file for file in image_cache.rglob("*") if file.is_file()]) == 1


def test_images_may_lie_in_a_folder(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train_all_instructions" / "train-00000-of-00001.parquet", GQA_QUESTIONS)
    found = list(gqa_questions(str(tmp_path), "train_all", "/pictures"))
    assert [row.image for row in found if isinstance(row, GQAQuestion)] == [
        "/pictures/n161313.jpg",
        "/pictures/n235859.jpg",
        "/pictures/n161313.jpg",
    ]


@pytest.mark.parametrize("how", ["file", "folder"])
def test_the_original_json(tmp_path: Path, how: str) -> None:
    file = tmp_path / "testdev_balanced_questions.json"
    file.write_text(json.dumps(GQA_ORIGINAL))
    path, split = (str(file), None) if how == "file" else (str(tmp_path), "testdev")
    first, second = gqa_questions(path, split, None)
    assert first == GQAQuestion(
        id="02930152",
        image_id="2354786",
        image=str(tmp_path / "images" / "2354786.jpg"),
        question="Is the sky dark?",
        answer="yes",
        full_answer="Yes, the sky is dark.",
        types={"detailed": "verifyAttr", "semantic": "attr", "structural": "verify"},
        groups={"local": "06-sky_dark"},
        origin=Origin(str(file), 0),
    )
    assert isinstance(second, GQAQuestion)
    assert (second.id, second.types, second.groups, second.origin.row) == ("07333408", {}, {}, 1)


def test_bad_rows_are_errors_with_their_row(tmp_path: Path) -> None:
    rows = [
        *GQA_QUESTIONS,
        gqa_row("4", "n1", "Что это?", "дом"),
        gqa_row("5", "n235859", "  ", "дом"),
        gqa_row("6", "n235859", "Что на <image>?", "дом"),
    ]
    pictures = [
        *GQA_IMAGES,
        {"id": "n7", "image": None},
        {"id": "n161313", "image": {"bytes": picture(9), "path": None}},
    ]
    found = list(gqa_questions(write_gqa(tmp_path, rows, pictures), "testdev", None))
    errors = [(row.kind, row.where) for row in found if isinstance(row, RowError)]
    shard = str(tmp_path / "testdev_balanced_instructions" / "testdev-00001-of-00002.parquet")
    images = str(tmp_path / "testdev_balanced_images" / "testdev-00000-of-00001.parquet")
    assert errors == [
        ("image missing", f"{shard}, row 0 (id 4)"),
        ("no image", f"{images}, row 2 (id n7)"),
        ("two images of one id", f"{images}, row 3"),
        ("no question", f"{shard}, row 1 (id 5)"),
        ("image tag in the text", f"{shard}, row 2 (id 6)"),
    ]
    assert len(found) == 3 + 5


@pytest.mark.parametrize(
    ("questions", "says"),
    [
        ("[]", "no GQA questions"),
        ("{}", "no GQA questions"),
        ('{"1": {"question"', "no valid JSON"),
        ("", "the file is empty"),
    ],
)
def test_broken_originals_are_errors(tmp_path: Path, questions: str, says: str) -> None:
    (tmp_path / "val_balanced_questions.json").write_text(questions)
    with pytest.raises(DataError, match=says) as error:
        list(gqa_questions(str(tmp_path / "val_balanced_questions.json"), None, None))
    assert "val_balanced_questions.json" in str(error.value)


def test_what_is_asked_for_must_be_there(tmp_path: Path) -> None:
    path = write_gqa(tmp_path, GQA_QUESTIONS, GQA_IMAGES)
    with pytest.raises(DataError, match="read by split"):
        list(gqa_questions(path, None, None))
    with pytest.raises(DataError, match=r"train_balanced_instructions: no data file.*testdev_balanced_images"):
        list(gqa_questions(path, "train", None))
    with pytest.raises(DataError, match="has no splits"):
        list(gqa_questions(f"{path}/x.json", "testdev", None))
    with pytest.raises(DataError, match="no such file"):
        list(gqa_questions(f"{path}/x.json", None, None))
    shard = tmp_path / "testdev_balanced_instructions" / "testdev-00000-of-00002.parquet"
    with pytest.raises(DataError, match=r"questions without their images.*give the folder"):
        list(gqa_questions(str(shard), "testdev", None))
    assert len(list(gqa_questions(str(shard), "testdev", str(tmp_path)))) == 2
    shard.unlink()
    with pytest.raises(DataError, match="1 of 2 shards are there"):
        list(gqa_questions(path, "testdev", None))
