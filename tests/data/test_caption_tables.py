"""Captions that come as rows: tables, folders, sets of the hub; and which file and rows a split means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from lorgnette.data.readers.caption_tables import CaptionedImage, captions_source
from lorgnette.data.readers.captions import captioned_images, captions_variants
from lorgnette.data.readers.source import SourceSpec
from lorgnette.errors import DataError, RowError
from small_sets import COCO, RSICD, picture, struct, write_parquet


def rows(path: Path | str, split: str | None = None) -> list[tuple[str, tuple[str, ...]]]:
    """Ids and captions."""
    found = list(captioned_images(str(path), split, None))
    assert all(isinstance(row, CaptionedImage) for row in found), found
    return [(row.id, row.references) for row in found]


TABLE = [
    {"filename": "a.jpg", "captions": ["a plane", "два самолёта"], "image": struct(1)},
    {"filename": "b.jpg", "captions": ["a field", "a field"], "image": struct(2)},
]
SAID = [("a.jpg", ("a plane", "два самолёта")), ("b.jpg", ("a field", "a field"))]


def test_a_set_of_the_hub_and_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split, some in (("train", TABLE[:1]), ("test", TABLE)):
        write_parquet(tmp_path / "data" / f"{split}-00000-of-00001.parquet", some)
    assert rows(tmp_path, "test") == SAID
    assert rows(tmp_path, "train") == SAID[:1]
    assert rows(tmp_path / "data" / "test-00000-of-00001.parquet") == SAID
    first = next(iter(captioned_images(str(tmp_path), "test", None)))
    assert isinstance(first, CaptionedImage)
    assert Path(first.image).read_bytes() == picture(1)
    assert list(captions_variants(SourceSpec(str(tmp_path), "test"))) == ["a table"] * 2
    load = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda _, *args, **more: load(str(tmp_path), *args, **more))
    assert rows("arampacha/rsicd", "test") == SAID


def test_one_caption_a_row_and_a_list_of_objects(tmp_path: Path) -> None:
    said: list[dict[str, Any]] = [
        {"image_id": 7, "image": "7.jpg", "caption": "a cat", "split": "val"},
        {"image_id": 8, "image": "8.jpg", "sentences": [{"raw": "a dog"}], "split": "test"},
        {"image_id": 7, "image": "7.jpg", "caption": "кот", "split": "val"},
    ]
    for name, text in (
        ("x.json", json.dumps(said)),
        ("x.jsonl", "".join(json.dumps(row) + "\n" for row in said)),
    ):
        file = tmp_path / name
        file.write_text(text)
        assert rows(file) == [("8", ("a dog",)), ("7", ("a cat", "кот"))]
        assert rows(file, "val") == [("7", ("a cat", "кот"))]
        with pytest.raises(DataError, match=r"no split 'tets'. The file has: test, val. Did you mean 'test'"):
            rows(file, "tets")
    file = tmp_path / "names.json"
    file.write_text(json.dumps([{"image": "a.png", "caption": text} for text in ("x", "y")]))
    assert rows(file) == [("a.png", ("x", "y"))]


def test_rows_that_cannot_be_used(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    bad = [
        {"id": 1, "image": "1.jpg", "caption": "x"},
        {"id": 1, "image": "2.jpg", "caption": "y"},
        {"id": 2, "image": "2.jpg", "captions": []},
        {"id": 3, "caption": "no image"},
        {"id": 4, "image": "4.jpg", "captions": ["z"]},
        {"id": 4, "image": "4.jpg", "captions": ["z"]},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in bad))
    found = [row.kind if isinstance(row, RowError) else row.references for row in captioned_images(str(file), None, "")]
    assert sorted(map(str, found)) == ["('x',)", "('z',)", "id twice", "id twice", "no caption", "no image"]


def test_the_file_that_a_folder_stands_for(tmp_path: Path) -> None:
    (tmp_path / "dataset_rsicd.json").write_text(json.dumps(RSICD))
    assert rows(tmp_path, "test") == [("1", ("a grey church .",))]
    coco = tmp_path / "coco" / "annotations"
    coco.mkdir(parents=True)
    for split in ("train2014", "val2014"):
        (coco / f"captions_{split}.json").write_text(json.dumps(COCO))
    assert [name for name, _ in rows(coco.parent, "val2014")] == ["391895", "522418"]
    assert rows(coco / "captions_val2014.json", "val2014") == rows(coco.parent, "val2014")
    for split in (None, "val", "test"):
        with pytest.raises(DataError, match=r"There are: captions_train2014.json, captions_val2014.json"):
            rows(coco.parent, split)


def test_folders_as_coco_and_llava_cc3m_are_published(tmp_path: Path) -> None:
    annotations = tmp_path / "coco" / "annotations"
    annotations.mkdir(parents=True)
    for name in ("captions_train2014", "captions_val2014", "instances_val2014", "person_keypoints_val2014"):
        (annotations / f"{name}.json").write_text("{}")
    assert captions_source(str(tmp_path / "coco"), "val2014") == str(annotations / "captions_val2014.json")
    with pytest.raises(DataError, match=r"captions_train2014\.json, captions_val2014\.json\. Next"):
        captions_source(str(tmp_path / "coco"), None)
    cc3m = tmp_path / "LLaVA-CC3M-Pretrain-595K"
    cc3m.mkdir()
    for name in ("chat.json", "metadata.json"):
        (cc3m / name).write_text("[]")
    assert captions_source(str(cc3m), "train") == str(cc3m / "chat.json")
