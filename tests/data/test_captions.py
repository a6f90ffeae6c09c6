"""Captions: four layouts of JSON, told apart by what is in them, to records and samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lorgnette.data.readers import read_samples
from lorgnette.data.readers.captions import CaptionedImage, captioned_images, captions_variants
from lorgnette.data.readers.source import SourceSpec
from lorgnette.data.sample import Origin, Sample, Turn
from lorgnette.errors import DataError, RowError
from small_sets import CHAT, COCO, NWPU, RSICD


def write(folder: Path, content: Any, name: str = "x.json") -> str:
    (folder / name).write_text(json.dumps(content))
    return str(folder / name)


def test_coco(tmp_path: Path) -> None:
    path = write(tmp_path, COCO)
    first, second = captioned_images(path, None, None)
    assert first == CaptionedImage(
        id="391895",
        image=str(tmp_path / "COCO_val2014_000000391895.jpg"),
        references=("A man on a motor bike.", "Мужчина на мотоцикле."),
        prompt="",
        split="",
        category="",
        origin=Origin(path, 0),
    )
    assert isinstance(second, CaptionedImage)
    assert (second.references, second.origin.row) == (("A woman cuts a cake. ",), 1)


def test_karpathy(tmp_path: Path) -> None:
    path = write(tmp_path, RSICD)
    first, second = captioned_images(path, None, "/RSICD_images")
    assert first == CaptionedImage(
        id="0",
        image="/RSICD_images/airport_1.jpg",
        references=("many planes are parked .", "many planes are parked ."),
        prompt="",
        split="train",
        category="",
        origin=Origin(path, 0),
    )
    assert list(captioned_images(path, "test", "/RSICD_images")) == [second]
    of_coco = {"images": [{**RSICD["images"][1], "filepath": "val2014", "filename": "y.jpg"}]}
    (coco,) = captioned_images(write(tmp_path, of_coco), None, "/coco")
    assert isinstance(coco, CaptionedImage)
    assert coco.image == "/coco/val2014/y.jpg"


def test_nwpu(tmp_path: Path) -> None:
    path = write(tmp_path, NWPU)
    first, second = captioned_images(path, None, None)
    assert first == CaptionedImage(
        id="0",
        image=str(tmp_path / "airplane" / "airplane_001.jpg"),
        references=("c0", "c1", "c2", "c3", "c4"),
        prompt="",
        split="train",
        category="airplane",
        origin=Origin(path, 0),
    )
    assert isinstance(second, CaptionedImage)
    assert (second.category, second.references, second.origin.row) == ("bridge", ("d0", "d1"), 1)
    assert list(captioned_images(path, "val", None)) == [second]


def test_cc3m(tmp_path: Path) -> None:
    path = write(tmp_path, CHAT, "chat.json")
    (found,) = captioned_images(path, None, None)
    assert found == CaptionedImage(
        id="GCC_train_002582585",
        image=str(tmp_path / "images_dl" / "GCC_train_002582585.jpg"),
        references=("olive oil is a healthy ingredient used liberally.",),
        prompt="Provide a brief description of the given image.\n<image>",
        split="",
        category="",
        origin=Origin(path, 0),
    )


def test_samples_are_one_a_caption(tmp_path: Path) -> None:
    path = write(tmp_path, COCO)
    found = list(read_samples(path, "captions", images=str(tmp_path)))
    asked = Turn("user", "<image>\nDescribe the image.")
    image = (str(tmp_path / "COCO_val2014_000000391895.jpg"),)
    assert found == [
        Sample("391895-0", image, (asked, Turn("assistant", "A man on a motor bike.")), Origin(path, 0)),
        Sample("391895-1", image, (asked, Turn("assistant", "Мужчина на мотоцикле.")), Origin(path, 0)),
        Sample(
            "522418",
            (str(tmp_path) + "/COCO_val2014_000000522418.jpg",),
            (asked, Turn("assistant", "A woman cuts a cake. ")),
            Origin(path, 1),
        ),
    ]
    (chat,) = read_samples(write(tmp_path, CHAT), "captions")
    assert isinstance(chat, Sample)
    assert chat.turns[0].text == "Provide a brief description of the given image.\n<image>"


def test_the_question_may_be_chosen(tmp_path: Path) -> None:
    for content in (COCO, CHAT):
        options = {"prompt": "Опиши картинку."}
        found = list(read_samples(write(tmp_path, content), "captions", options=options))
        assert {sample.turns[0].text for sample in found if isinstance(sample, Sample)} == {"<image>\nОпиши картинку."}
    for wrong in ({"prompt": " "}, {"prompt": "<image> x"}, {"config": "x"}):
        with pytest.raises(DataError, match="options: "):
            list(read_samples(write(tmp_path, COCO), "captions", options=wrong))


@pytest.mark.parametrize(
    ("content", "layout"),
    [
        (COCO, "COCO captions"),
        (RSICD, "Karpathy's captions"),
        (NWPU, "NWPU-Captions"),
        (CHAT, "chat.json of LLaVA-CC3M"),
    ],
)
def test_the_layout_is_told(tmp_path: Path, content: Any, layout: str) -> None:
    assert set(captions_variants(SourceSpec(write(tmp_path, content)))) == {layout}


def test_a_bad_caption_leaves_the_others_of_its_image(tmp_path: Path) -> None:
    images = [
        {"filename": "a.jpg", "imgid": 7, "sentences": [{"raw": "good"}, {"raw": " "}, "text", {"raw": 3}]},
        {"filename": "b.jpg", "imgid": 8, "sentences": []},
        {"filename": "c.jpg", "imgid": 9, "sentences": [{"raw": "a <image>"}]},
        {"filename": "../../etc/passwd", "imgid": 10, "sentences": [{"raw": "good"}]},
        {"imgid": 11, "sentences": [{"raw": "good"}]},
        {"filename": "d.jpg", "imgid": 12},
        "row",
    ]
    path = write(tmp_path, {"images": images})
    found = list(captioned_images(path, None, None))
    assert [row.references for row in found if isinstance(row, CaptionedImage)] == [("good", "3")]
    assert [(row.kind, row.where) for row in found if isinstance(row, RowError)] == [
        ("no caption", f"{path}, row 0 (id 7), caption 1"),
        ("no caption", f"{path}, row 0 (id 7), caption 2"),
        ("no caption", f"{path}, row 1 (id 8)"),
        ("image tag in the text", f"{path}, row 2 (id 9), caption 0"),
        ("image path leaves its folder", f"{path}, row 3 (id 10)"),
        ("no image", f"{path}, row 4 (id 11)"),
        ("no caption", f"{path}, row 5"),
        ("row is no object", f"{path}, row 6"),
    ]


def test_captions_of_coco_without_an_image_and_images_without_an_id_are_errors(tmp_path: Path) -> None:
    annotations = [*COCO["annotations"], {"image_id": 5, "caption": "lost"}, {"caption": "x"}]
    images = [*COCO["images"], COCO["images"][0], {"file_name": "x.jpg"}]
    content = {"images": images, "annotations": annotations}
    path = write(tmp_path, content)
    errors = [row for row in captioned_images(path, None, None) if isinstance(row, RowError)]
    assert [(error.kind, error.where) for error in errors] == [
        ("caption of no image", f"{path}, annotations, row 3"),
        ("caption of no image", f"{path}, annotations, row 4"),
        ("id twice", f"{path}, images, row 2"),
        ("no id", f"{path}, images, row 3"),
    ]


@pytest.mark.parametrize(
    ("turns", "kind"),
    [
        ([("human", "<image>"), ("gpt", "x"), ("human", "y"), ("gpt", "z")], "no exchange"),
        ([("gpt", "x"), ("human", "<image>")], "no exchange"),
        ([("human", "What?"), ("gpt", "x")], "no image tag"),
        ([("human", "<image> <image>"), ("gpt", "x")], "image tag in the text"),
        ([("human", "<image>"), ("gpt", "")], "no caption"),
    ],
)
def test_rows_of_chat_json_are_one_exchange(tmp_path: Path, turns: list[tuple[str, str]], kind: str) -> None:
    row = {"id": 1, "image": "a.jpg", "conversations": [{"from": role, "value": text} for role, text in turns]}
    path = write(tmp_path, [row])
    (error,) = captioned_images(path, None, None)
    assert isinstance(error, RowError)
    assert error.kind == kind
    assert error.where.startswith(f"{path}, row 0")


@pytest.mark.parametrize("content", [{}, 3, {"a": 3}, {"images": {}}, {"annotations": []} | {"a": "b"}])
def test_other_files_are_no_captions(tmp_path: Path, content: Any) -> None:
    with pytest.raises(DataError, match=r"x\.json: no captions that we know"):
        list(captioned_images(write(tmp_path, content), None, None))


def test_splits_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no split 'tets'. The file has: test, train. Did you mean 'test'"):
        list(captioned_images(write(tmp_path, RSICD), "tets", None))
    with pytest.raises(DataError, match="The file has: no splits; leave `split` out"):
        list(captioned_images(write(tmp_path, COCO), "val", None))
