"""Samples back to LLaVA files: what is read back is what was written, image paths start below one folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lorgnette.data.readers import read_samples
from lorgnette.data.sample import Origin, Sample, Turn
from lorgnette.data.writing import images_root, llava_list, llava_row, row_json


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
    text = llava_list(row_json(llava_row(sample, tmp_path)) for sample in samples)
    (tmp_path / "x.json").write_text(text, encoding="utf-8")
    assert [each.get("image") for each in json.loads(text)] == [["a.png", "b c.png"], "b c.png", None]
    assert list(read_samples(str(tmp_path / "x.json"), "llava")) == samples


@pytest.mark.parametrize(
    ("given", "images", "root"),
    [
        ("/d/pictures", ["/d/pictures/a/1.png"], "/d/pictures"),
        (None, ["/d/pictures/a/1.png", "/d/2.png"], "/d"),
        (None, ["/cache/aa/1", "/cache/bb/2"], "/cache"),
        ("/d/pictures", ["/d/others/1.png", "/d/pictures/2.png"], "/d"),
        ("coco:/d/coco", ["/d/coco/train2014/1.jpg", "/d/coco/val2014/2.jpg"], "/d/coco"),
        (None, [], "/d"),
    ],
)
def test_the_images_folder_holds_all_images(given: str | None, images: list[str], root: str) -> None:
    assert images_root(given, "/d/data.json", images) == Path(root)
