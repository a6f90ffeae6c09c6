"""A recipe may change where nothing was made by it yet, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lorgnette.errors import InputError
from lorgnette.kept_recipe import keep_recipe
from lorgnette.recipe.reading import read_recipe
from lorgnette.recipe.sections import Recipe
from lorgnette.run import read_json_lines, write_json, write_json_lines


def stage(name: str, rate: float = 1e-3) -> dict[str, Any]:
    data = [{"path": "easy-vqa", "format": "easy-vqa", "split": "train"}]
    return {"name": name, "data": data, "train": {"projector": "full"}, "training": {"learning_rate": rate}}


def task(name: str, **settings: object) -> dict[str, Any]:
    return {"name": name, **settings}


def recipe(**sections: Any) -> Recipe:
    evaluation = {"tasks": [task("easy-vqa"), task("vqa", path="a.json")]}
    first = {"model": {"base": "b"}, "stages": [stage("one"), stage("two")], "evaluation": evaluation}
    return Recipe.model_validate(first | sections)


def make(output: Path, *made: str) -> None:
    """Make files in a run folder: a checkpoint with its seal, others empty."""
    for name in made:
        place = output / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.name == "whole.json":
            write_json(place, {})
        else:
            place.write_text("{}\n")


STARTED = "stages/one/checkpoint-5/whole.json"
ASKED = "evaluation/before/easy-vqa/predictions.jsonl"
OTHER_TASK = {"tasks": [task("easy-vqa"), task("vqa", path="b.json"), task("captions", path="c.json")]}


@pytest.mark.parametrize(
    ("made", "changes", "says"),
    [
        ((), {"model": {"base": "c"}, "seed": 1, "stages": []}, "model.base: 'b' -> 'c'"),
        ((), {"evaluation": None}, "evaluation"),
        ((STARTED,), {"stages": [stage("one"), stage("two", 1e-2)]}, "stages.1.training.learning_rate: 0.001 -> 0.01"),
        ((STARTED,), {"stages": [stage("one"), stage("two"), stage("three")]}, "stages.2"),
        ((STARTED,), {"max_bad_share": 0.5, "output": "x"}, "max_bad_share: 0.01 -> 0.5"),
        ((STARTED,), {"evaluation": None}, "evaluation"),
        (("evaluation/before/easy-vqa/settings.json",), {"evaluation": {"tasks": ["vqa"]}}, "evaluation.tasks.0.name"),
        ((ASKED,), {"evaluation": {"tasks": [task("easy-vqa")], "batch_size": 8}}, "batch_size: 256 -> 8"),
        ((STARTED, "merged/config.json", ASKED), {"evaluation": OTHER_TASK}, "evaluation.tasks.1.path: 'a.json'"),
        (("stages/two/stage.json",), {"stages": [stage("two", 1e-2)]}, "stages.0"),
        (("stages/one/checkpoint-5/optimizer.pt",), {"seed": 1}, "seed: 42 -> 1"),
    ],
)
def test_what_nothing_was_made_by_may_change(
    tmp_path: Path, made: tuple[str, ...], changes: dict[str, Any], says: str
) -> None:
    assert keep_recipe(recipe(), tmp_path) == []
    make(tmp_path, *made)
    changed = keep_recipe(recipe(**changes), tmp_path)
    assert says in "\n".join(changed)
    assert read_recipe(tmp_path / "recipe.yaml") == recipe(**changes)
    assert keep_recipe(recipe(**changes), tmp_path) == []


@pytest.mark.parametrize(
    ("made", "changes", "says", "not_said"),
    [
        ((STARTED,), {"stages": [stage("one", 1e-2), stage("two", 1e-2)]}, "stages.0.training.learning_rate", "s.1"),
        ((STARTED,), {"stages": [stage("new"), stage("one"), stage("two")]}, "stages.0.name: 'one' -> 'new'", "s.2"),
        ((STARTED,), {"stages": []}, "stages.0.name: 'one' -> absent", "s.1"),
        ((STARTED,), {"seed": 1, "max_bad_share": 0.5}, "seed: 42 -> 1", "max_bad"),
        (("stages/two/trained/lorgnette.json",), {"stages": [stage("one", 1), stage("two")]}, "stages.0", "seed"),
        (("stages/two/start/config.json",), {"stages": [stage("one"), stage("two", 1)]}, "stages.1.training", "seed"),
        (("base/config.json",), {"model": {"base": "c"}, "stages": []}, "model.base: 'b' -> 'c'", "stages"),
        (("merged/config.json",), {"stages": [stage("one"), stage("two"), stage("three")]}, "stages.2", "seed"),
        ((ASKED,), {"evaluation": {"tasks": [task("easy-vqa", limit=5)]}}, "evaluation.tasks.0.limit", "tasks.1"),
        ((ASKED,), {"evaluation": {"tasks": [task("captions", path="c")]}}, "evaluation.tasks.1.name", "tasks.0"),
        (("evaluation/after/vqa/result.json",), {"stages": [stage("one")]}, "stages.1.name", "tasks"),
        (("evaluation/after/vqa/result.json",), {"evaluation": None}, "evaluation.tasks.0.name: 'vqa'", "easy"),
    ],
)
def test_what_was_used_is_held_fast_and_named(
    tmp_path: Path, made: tuple[str, ...], changes: dict[str, Any], says: str, not_said: str
) -> None:
    keep_recipe(recipe(), tmp_path)
    make(tmp_path, *made)
    with pytest.raises(InputError, match="another recipe") as refused:
        keep_recipe(recipe(**changes), tmp_path)
    assert says in str(refused.value)
    assert not_said not in str(refused.value)
    assert read_recipe(tmp_path / "recipe.yaml") == recipe()


def test_losses_of_a_stage_that_is_no_more_are_forgotten(tmp_path: Path) -> None:
    keep_recipe(recipe(), tmp_path)
    rows = [{"stage": name, "step": 1, "loss": 1.0} for name in ("one", "two")]
    write_json_lines(tmp_path / "metrics.jsonl", rows)
    keep_recipe(recipe(stages=[stage("one"), stage("three")]), tmp_path)
    assert read_json_lines(tmp_path / "metrics.jsonl") == rows[:1]
