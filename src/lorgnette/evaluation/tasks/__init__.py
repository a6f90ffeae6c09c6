"""What a benchmark is, and the table of those that come with Lorgnette; one file a benchmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module

from lorgnette.errors import DataError, LorgnetteError, nearest
from lorgnette.evaluation.tasks.easy_vqa import EasyVQA
from lorgnette.evaluation.tasks.task import Document, Task

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
    except (Exception, SystemExit) as error:  # whatever the user's own module does when it is imported
        raise DataError(
            f"task '{name}': cannot be imported ({type(error).__name__}: {error}). Next: check that {module} is on the "
            f"Python path and that {attribute}() makes a task."
        ) from error
    if not isinstance(made, Task):
        raise DataError(f"task '{name}': has not all that a task has; see docs/own-task.md.")
    texts = (made.name, made.metric, made.split, made.prompt)
    if not all(isinstance(text, str) for text in texts) or not isinstance(made.max_new_tokens, int):
        raise DataError(f"task '{name}': name, metric, split and prompt are texts, max_new_tokens is a whole number.")
    return made


def read_documents(task: Task, split: str | None) -> list[Document]:
    """Read a task's documents, its own split where none is given.

    Raises:
        DataError: if they cannot be read, or are no documents.
    """
    try:
        documents = list(task.documents(split or task.split))
    except LorgnetteError:
        raise
    except Exception as error:  # a task is the user's own code
        raise DataError(f"task {task.name}: documents() raised {error!r}.") from error
    for number, document in enumerate(documents):
        texts = (
            (document.id, document.question, document.reference, document.kind, *document.images)
            if isinstance(document, Document)
            else (None,)
        )
        if not all(isinstance(text, str) for text in texts):
            raise DataError(f"task {task.name}: document {number} is {document!r:.200}. Allowed: a Document of texts.")
    return documents
