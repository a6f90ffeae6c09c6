"""What a benchmark is, and the table of those that come with Lorgnette; one file a benchmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module

from lorgnette.errors import DataError, nearest
from lorgnette.evaluation.tasks.easy_vqa import EasyVQA
from lorgnette.evaluation.tasks.task import Task

TASKS: Mapping[str, Callable[[], Task]] = {"easy-vqa": EasyVQA}


def find_task(name: str) -> Task:
    """Return a benchmark by its name, or one of the user's by "package.module:Name".

    Raises:
        DataError: if there is none of that name, or it cannot be imported.
    """
    if name in TASKS:
        return TASKS[name]()
    module, colon, attribute = name.partition(":")
    if not colon:
        raise DataError(
            f"there is no task '{name}'. Allowed: {', '.join(TASKS)}, or your own as package.module:Name."
            f"{nearest(name, TASKS)}"
        )
    try:
        made = vars(import_module(module))[attribute]()
    except (ImportError, KeyError, TypeError) as error:
        raise DataError(
            f"task '{name}': cannot be imported ({type(error).__name__}: {error}). Next: check that {module} is on the "
            f"Python path and that {attribute}() makes a task."
        ) from error
    if not isinstance(made, Task):
        raise DataError(f"task '{name}': has not all that a task has; see lorgnette.evaluation.tasks.task.Task.")
    return made
