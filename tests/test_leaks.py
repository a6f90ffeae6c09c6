"""A benchmark that stands in the training data is noticed, whatever its images are called there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from rich.progress import Progress

from lorgnette.leaks import Leak, find_leaks
from lorgnette.recipe.reading import read_recipe

RECIPE = """
model: {build: {vision_tower: "starter:vision-tower", language_model: "starter:language-model"}}
stages:
  - name: first
    data: [{path: first.json, format: llava, images: pictures}]
    train: {projector: full}
  - name: second
    data: [{path: second.json, format: llava, images: pictures}]
    train: {projector: full}
evaluation: {tasks: [{name: vqa, path: test.json, images: others}]}
"""


def test_questions_and_images_are_found_by_content(tmp_path: Path, pictures: list[str], monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("pictures", "others"):
        Path(folder).mkdir()
    for number, path in enumerate(pictures):
        shutil.copy(path, f"pictures/{number}.png")
        shutil.copy(path, f"others/test-{number}.png")

    def row(image: int, *turns: str) -> dict:
        said = [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(turns)]
        said[0]["value"] = "<image>\n" + said[0]["value"]
        return {"id": f"{image}", "image": f"{image}.png", "conversations": said}

    Path("first.json").write_text(json.dumps([row(0, "What color is it?", "red", "Where IS it?", "here")]))
    Path("second.json").write_text(json.dumps([row(1, "What color is it?", "red"), {"id": "broken"}]))
    questions = [
        (0, "where is  it?"),  # asked in a later turn, in other letters
        (0, "Is it big?"),  # about a picture that is trained on
        (1, "What color is it?"),
        (2, "What color is it?"),
        (3, "Is it red?"),
    ]
    rows = [{"image": f"test-{n}.png", "question": text, "answer": "yes"} for n, text in questions]
    Path("test.json").write_text(json.dumps(rows))
    Path("recipe.yaml").write_text(RECIPE)
    with Progress(disable=True) as progress:
        assert find_leaks(read_recipe(Path("recipe.yaml")), progress) == {"vqa": Leak(5, 2, 1)}


def test_what_was_found_is_said() -> None:
    assert Leak(5, 0, 0).warnings == []
    assert [line.split(":")[0] for line in Leak(5_000, 2_000, 1).warnings] == [
        "2,000 of 5,000 questions stand in the training data too",
        "1 of 5,000 questions are about an image that is in the training data too, where other things "
        "are asked, or the same in other words",
    ]
