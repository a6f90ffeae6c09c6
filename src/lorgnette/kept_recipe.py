"""The recipe in a run folder: what was made stays true to it, what is not made yet may still be changed."""

from __future__ import annotations

from pathlib import Path

from lorgnette.comparison.folders import AFTER, BEFORE
from lorgnette.errors import InputError
from lorgnette.evaluation.evaluate import has_answers
from lorgnette.recipe.reading import differences, read_recipe, resolved_yaml
from lorgnette.recipe.sections import Evaluation, Recipe, Stage
from lorgnette.run import is_whole, read_json_lines, write_json_lines, write_text
from lorgnette.training.trained import is_trained

RECIPE = "recipe.yaml"


def keep_recipe(recipe: Recipe, output: Path) -> list[str]:
    """Write the resolved recipe into the run folder; over another one only where nothing was made by what differs.

    Returns:
        what differs from the recipe that was there, a line a field; nothing for a new run.

    Raises:
        InputError: if something was made by what differs, naming it, or the folder holds something else than a run.
    """
    file = output / RECIPE
    if not file.exists():
        foreign = [path.name for path in output.iterdir() if path.name not in (".lock", f"{RECIPE}.unfinished")]
        if foreign:  # a `base` or `merged` among them would be taken for the run's own
            raise InputError(
                f"{output}: holds other things than a run ({', '.join(sorted(foreign)[:5])}). They are left as they "
                "are. Next: choose another --output."
            )
        write_text(file, resolved_yaml(recipe))
        return []
    before = read_recipe(file)
    refused = differences(_changed_where_free(before, recipe, output), recipe)
    if refused:
        raise InputError(
            f"{output}: holds a run of another recipe. It is left as it is. What differs, and was used already:\n  "
            + "\n  ".join(refused)
            + "\nNext: choose another --output, or delete the folder."
        )
    changed = differences(before, recipe)
    if changed:
        write_text(file, resolved_yaml(recipe))
        _forget_losses(recipe, output / "metrics.jsonl")
    return changed


def _forget_losses(recipe: Recipe, metrics: Path) -> None:
    """Drop from metrics.jsonl what belongs to stages that the recipe no longer has."""
    rows = read_json_lines(metrics)
    kept = [row for row in rows if row.get("stage") in {stage.name for stage in recipe.stages}]
    if len(kept) < len(rows):
        write_json_lines(metrics, kept)


def _changed_where_free(before: Recipe, after: Recipe, output: Path) -> Recipe:
    """Return the recipe before, with everything of the one after by which nothing was made yet."""
    asked = _asked(before, output, BEFORE, AFTER)
    begun = max((number for number, s in enumerate(before.stages, start=1) if _is_begun(s, output)), default=0)
    if not asked and not begun and not any((output / made).exists() for made in ("base", "merged")):
        return after
    stages = before.stages
    if not (output / "merged").exists() and not _asked(before, output, AFTER):
        stages = (*before.stages[:begun], *after.stages[begun:])
    return before.model_copy(
        update={
            "stages": stages,
            "evaluation": _evaluation(before.evaluation, after.evaluation, asked),
            "max_bad_share": after.max_bad_share,  # what is bad is left out in any case
            "output": after.output,  # where a run lies is no part of what it does
        }
    )


def _is_begun(stage: Stage, output: Path) -> bool:
    folder = output / "stages" / stage.name
    return is_trained(folder) or (folder / "start").exists() or any(map(is_whole, folder.glob("checkpoint-*")))


def _asked(recipe: Recipe, output: Path, *sides: str) -> set[str]:
    """Return the tasks of a recipe that have answers."""
    return {
        task.name
        for task in (recipe.evaluation.tasks if recipe.evaluation else ())
        for side in sides
        if has_answers(output / "evaluation" / side / task.name)
    }


def _evaluation(before: Evaluation | None, after: Evaluation | None, asked: set[str]) -> Evaluation | None:
    """Return what is measured after the change, but every task that has answers as it was, and none of them lost."""
    if before is None or not asked:
        return after
    fixed = {task.name: task for task in before.tasks if task.name in asked}
    new = after.tasks if after else ()
    lost = [task for name, task in fixed.items() if name not in {task.name for task in new}]
    tasks = (*(fixed.get(task.name, task) for task in new), *lost)
    return (after or before).model_copy(update={"tasks": tasks})
