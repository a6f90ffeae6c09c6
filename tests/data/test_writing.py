"""Samples back to LLaVA files: what is read back is what was written, image paths start below one folder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from lorgnette.data.readers import read_samples
from lorgnette.data.sample import Origin, Sample, Turn
from lorgnette.data.writing import ImageNames, image_names, images_root, llava_list, llava_row, row_json
from lorgnette.images.opening import keep_image


def test_a_written_sample_reads_back(tmp_path: Path) -> None:
    for name in ("a.png", "b c.png"):
        (tmp_path / name).touch()
    images = (str(tmp_path / "a.png"), str(tmp_path / "b c.png"))
    origin = Origin(str(tmp_path / "x.json"), 0)
    spoken = (Turn("system", "Будь краток"), Turn("user", "<image><image>Что?"), Turn("assistant", 'Кот "и" пёс\u2028'))
    samples = [
        Sample("1", images, spoken, origin),
        Sample("2", images[1:], (Turn("user", "<image>\nA?"), Turn("assistant", "b")), Origin(origin.file, 1)),
        Sample("3", (), (*spoken[:1], Turn("user", "Hi"), Turn("assistant", "Hello")), Origin(origin.file, 2)),
    ]
    names = ImageNames(tmp_path, copied=False)
    text = llava_list(row_json(llava_row(sample, names)) for sample in samples)
    (tmp_path / "x.json").write_text(text, encoding="utf-8")
    assert [each.get("image") for each in json.loads(text)] == [["a.png", "b c.png"], "b c.png", None]
    assert list(read_samples(str(tmp_path / "x.json"), "llava")) == samples


@pytest.mark.parametrize(
    ("given", "images", "root"),
    [
        ("/d/pictures", ["/d/pictures/a/1.png"], "/d/pictures"),
        (None, ["/d/pictures/a/1.png", "/d/2.png"], "/d"),
        ("/d/pictures", ["/d/others/1.png", "/d/pictures/2.png"], "/d"),
        ("coco:/d/coco", ["/d/coco/train2014/1.jpg", "/d/coco/val2014/2.jpg"], "/d/coco"),
        (None, [], "/d"),
    ],
)
def test_the_images_folder_holds_all_images(given: str | None, images: list[str], root: str) -> None:
    assert images_root(given, "/d/data.json", images) == Path(root)


def test_images_that_came_inside_the_data_are_called_the_same_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for cache in ("one", "two/deeper"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / cache))
        inside = keep_image(b"picture")
        names = image_names(None, "/d/data.json", [inside, "/d/pictures/1.png"])
        assert names.copied
        digest = hashlib.sha256(b"picture").hexdigest()
        assert [names.name(inside), names.name("/d/pictures/1.png")] == [f"{digest[:2]}/{digest}", "pictures/1.png"]
    assert not image_names(None, "/d/data.json", ["/d/pictures/1.png"]).copied
