"""From names of images to paths: never out of the folder unless allowed, COCO's pictures by any of their names."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from lorgnette.data.readers import read_samples
from lorgnette.data.readers.image_lookup import CocoFolder, ImageFolder, image_folder
from lorgnette.data.readers.source import SourceSpec
from lorgnette.data.sample import Sample
from lorgnette.data.used_source import detect_format
from lorgnette.errors import DataError, RowError
from lorgnette.evaluation.tasks import find_task, read_documents

SEVERAL = "in several folders, the first taken"


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """An images folder with links out of it, and a file beside it."""
    root = tmp_path / "images"
    touch(root / "a.jpg", root / "sub" / "b.jpg", tmp_path / "secret.jpg", tmp_path / "other" / "c.jpg")
    (root / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (root / "inner.jpg").symlink_to(root / "a.jpg")
    (root / "out").symlink_to(tmp_path / "other")
    (root / "loop").symlink_to(root / "loop")
    return tmp_path


@pytest.mark.parametrize("name", ["a.jpg", "sub/b.jpg", "./sub/../a.jpg", "inner.jpg", "none.jpg", "sub/none/x.jpg"])
def test_names_inside_are_joined(folders: Path, name: str) -> None:
    root = folders / "images"
    assert ImageFolder(str(root)).find(name, "here") == (str(Path(root, name)), None)


@pytest.mark.parametrize(
    "name",
    ["../secret.jpg", "sub/../../secret.jpg", "/etc/passwd", "link.jpg", "out/c.jpg", "out/../secret.jpg", ".."],
)
def test_names_that_lead_out_are_refused_unless_allowed(folders: Path, name: str) -> None:
    root = folders / "images"
    with pytest.raises(RowError, match="leaves the images folder") as caught:
        ImageFolder(str(root)).find(name, "x.json, row 3")
    assert caught.value.kind == "image path leaves its folder"
    assert str(caught.value).startswith("x.json, row 3: ")
    assert ImageFolder(str(root), outside=True).find(name, "here").path == str(Path(root, name))


@pytest.mark.parametrize("name", ["a\0.jpg", "\ud800.jpg", "a\0/b.jpg"])
def test_names_that_no_file_has_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RowError, match="no usable image path"):
        ImageFolder(str(tmp_path)).find(name, "here")
    with pytest.raises(RowError, match="no usable image path"):
        ImageFolder(str(tmp_path), outside=True).find(name, "here")


def test_long_names_and_loops_are_only_missing(folders: Path) -> None:
    for name in ("x" * 5000 + ".jpg", "x/" * 3000 + "a.jpg", "loop/a.jpg", "loop"):
        path = ImageFolder(str(folders / "images")).find(name, "here").path
        assert not os.path.isfile(path)


def test_the_option_reaches_the_readers(folders: Path) -> None:
    row = {"image": "link.jpg", "conversations": [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}]}
    (folders / "x.json").write_text(json.dumps([row]))
    [refused] = read_samples(str(folders / "x.json"), "llava", images=str(folders / "images"))
    assert isinstance(refused, RowError)
    assert "set the option outside_images: true" in str(refused)
    options = {"outside_images": True}
    [allowed] = read_samples(str(folders / "x.json"), "llava", images=str(folders / "images"), options=options)
    assert isinstance(allowed, Sample)


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    root = tmp_path / "coco"
    touch(
        root / "train2014" / "COCO_train2014_000000000001.jpg",
        root / "train2017" / "000000000002.jpg",
        root / "val2014" / "COCO_val2014_000000000003.jpg",
        root / "train2017" / "000000000003.jpg",
        root / "val2017" / "000000000004.jpg",
        root / "train2014" / "COCO_train2014_000000000004.jpg",
        root / "flat.jpg",
        root / "train2017" / "same.jpg",
        root / "val2017" / "same.jpg",
    )
    return root


@pytest.mark.parametrize(
    ("name", "path", "mended"),
    [
        ("coco/train2014/COCO_train2014_000000000001.jpg", "train2014/COCO_train2014_000000000001.jpg", None),
        ("train2014/COCO_train2014_000000000001.jpg", "train2014/COCO_train2014_000000000001.jpg", None),
        ("COCO_train2014_000000000001.jpg", "train2014/COCO_train2014_000000000001.jpg", "by its file name"),
        ("000000000001.jpg", "train2014/COCO_train2014_000000000001.jpg", "by its COCO id"),
        ("coco/train2017/000000000001.jpg", "train2014/COCO_train2014_000000000001.jpg", "by its COCO id"),
        ("coco/train2014/COCO_train2014_000000000002.jpg", "train2017/000000000002.jpg", "by its COCO id"),
        ("000000000003.jpg", "train2017/000000000003.jpg", "by its file name"),
        ("x/COCO_train2014_000000000003.jpg", "train2017/000000000003.jpg", f"by its COCO id {SEVERAL}"),
        ("x/COCO_val2014_000000000004.png", "train2014/COCO_train2014_000000000004.jpg", f"by its COCO id {SEVERAL}"),
        ("elsewhere/flat.jpg", "flat.jpg", "by its file name"),
        ("elsewhere/same.jpg", "train2017/same.jpg", f"by its file name {SEVERAL}"),
    ],
)
def test_coco_pictures_are_found_by_all_their_names(coco: Path, name: str, path: str, mended: str | None) -> None:
    lookup = CocoFolder(str(coco))
    for _ in range(2):  # the second is remembered
        found = lookup.find(name, "here")
        assert found == (str(coco / path), mended and f"image found {mended}")


def test_coco_misses_and_escapes_are_errors(coco: Path) -> None:
    lookup = CocoFolder(str(coco))
    for _ in range(2):
        with pytest.raises(RowError, match="nor by its id in train2017, val2014, train2014, val2017") as caught:
            lookup.find("coco/train2014/COCO_train2014_000000000009.jpg", "here")
        assert caught.value.kind == "image missing"
    with pytest.raises(RowError, match="leaves the images folder"):
        lookup.find("../000000000002.jpg", "here")
    (coco / "val2014" / "COCO_val2014_000000000008.jpg").symlink_to("/etc/passwd")
    with pytest.raises(RowError, match="leaves the images folder"):
        lookup.find("000000000008.jpg", "here")


def test_what_images_of_a_source_means(coco: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(coco.parent)
    by_name = image_folder("coco", "data")
    assert isinstance(by_name, CocoFolder)
    assert by_name.root == "coco"
    by_folder = image_folder(f"coco:{coco}", "data")
    assert isinstance(by_folder, CocoFolder)
    assert by_folder.root == str(coco)
    for images, expected in (("./coco", "./coco"), ("pictures", "pictures"), (None, "data"), ("coconut", "coconut")):
        found = image_folder(images, "data")
        assert isinstance(found, ImageFolder)
        assert found.root == expected
    with pytest.raises(DataError, match=r"there is no folder nowhere .* Next: give `images: coco:FOLDER`"):
        image_folder("coco:nowhere", "data")
    with pytest.raises(RowError, match="Next: give the source `images: FOLDER`"):
        image_folder(None, None).find("a.jpg", "here")


def test_a_recipe_like_that_of_llava_instruct_ru(coco: Path) -> None:
    turns = [{"from": "human", "value": "<image>\nЧто?"}, {"from": "gpt", "value": "Кот."}]
    rows = [
        {"id": "1", "image": "coco/train2014/COCO_train2014_000000000001.jpg", "conversations": turns},
        {"id": "2", "image": "coco/train2014/COCO_train2014_000000000003.jpg", "conversations": turns},
        {"id": "9", "image": "coco/train2014/COCO_train2014_000000000009.jpg", "conversations": turns},
    ]
    for name in ("llava_instruct_ru_train.json", "llava_instruct_ru_val.json", "conversation_prompt.json"):
        (coco.parent / name).write_text(json.dumps(rows))
    found = list(read_samples(str(coco.parent), "llava", split="train", images=f"coco:{coco}"))
    assert [getattr(each, "mended", None) for each in found] == [(), (f"image found by its COCO id {SEVERAL}",), None]
    assert found[2].origin.row == 2 if isinstance(found[2], Sample) else "row 2 (id 9)" in str(found[2])
    with pytest.raises(DataError, match=r"conversation_prompt.json"):
        list(read_samples(str(coco.parent), "llava", images=f"coco:{coco}"))
    with pytest.raises(DataError, match="in its name"):
        list(read_samples(str(coco.parent), "llava", split="test", images=f"coco:{coco}"))


def test_a_folder_that_is_not_there_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "pics").mkdir()
    data = tmp_path / "data.json"
    data.write_text(json.dumps([{"instruction": "?", "output": "!", "image": "1.png", "id": n} for n in range(3)]))
    absent = str(tmp_path / "nopics")
    said = "images: there is no folder '.*nopics'. Did you mean 'pics'\\? Next: give the folder"
    with pytest.raises(DataError, match=said):
        list(read_samples(str(data), "instruct", images=absent))
    with pytest.raises(DataError, match=said) as told:
        detect_format(SourceSpec(str(data), images=absent))
    assert "--format" not in str(told.value)
    with pytest.raises(DataError, match=said):
        read_documents(find_task("captions", {"path": str(data), "images": absent}), None)
    with pytest.raises(DataError, match=r"data\.json is a file, no folder"):
        read_samples(str(data), "instruct", images=str(data))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "WEBP"])
def test_an_image_in_place_of_a_data_file_is_told(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "picture"
    Image.new("RGB", (8, 8), "red").save(file, kind)
    with pytest.raises(DataError, match=r"picture: is an image\. Allowed: a file with rows") as told:
        detect_format(SourceSpec(str(file)))
    assert "UTF-8" not in str(told.value)
