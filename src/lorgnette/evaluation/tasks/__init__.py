"""What a benchmark is, and the table of those that come with Lorgnette; one file a benchmark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from lorgnette.by_name import find_by_name
from lorgnette.data.readers.image_lookup import require_folder
from lorgnette.errors import DataError, LeftOut, LorgnetteError, RowError, nearest
from lorgnette.evaluation.tasks.captions import Captions
from lorgnette.evaluation.tasks.easy_vqa import EasyVQA
from lorgnette.evaluation.tasks.gqa import GQA, GQARu
from lorgnette.evaluation.tasks.instruct import Instruct
from lorgnette.evaluation.tasks.mmbench import MMBench, MMBenchRu
from lorgnette.evaluation.tasks.task import Document, RowTask, SetTask, Task, is_unicode
from lorgnette.evaluation.tasks.vqa import VQA

TASKS: Mapping[str, Callable[..., Task]] = {
    made.name: made for made in (EasyVQA, GQA, GQARu, MMBench, MMBenchRu, VQA, Captions, Instruct)
}

GIVEN_BY = {"path": "--data (--references of `score`)", "images": "--images"}
"""Fields of tasks that options of the commands set."""
MAX_BAD_SHARE = 0.01
"""A benchmark of which more than this cannot be read is another benchmark."""


def find_task(name: str, options: Mapping[str, Any] | None = None) -> Task:
    """Return a benchmark by its name, or one of the user's by "package.module:Name".

    Args:
        options: values for the task's fields, such as `path`; a task that has fields is a dataclass.

    Raises:
        DataError: if there is none of that name, it cannot be imported, or it does not take these options.
    """
    made = _make(name, find_by_name("task", name, TASKS), options or {})
    if not isinstance(made, RowTask | SetTask):
        raise DataError(f"task '{name}': has not all that a task has; see docs/own-task.md.")
    texts = (made.name, made.metric, made.split, made.prompt)
    if not all(isinstance(text, str) for text in texts) or not isinstance(made.max_new_tokens, int):
        raise DataError(f"task '{name}': name, metric, split and prompt are texts, max_new_tokens is a whole number.")
    return made


def options_of(task: Task) -> dict[str, Any]:
    """Return the fields of a task with their values: what makes it differ from another of the same name."""
    return {field.name: vars(task)[field.name] for field in fields(task)} if is_dataclass(task) else {}


def read_documents(task: Task, split: str | None, limit: int | None = None) -> tuple[list[Document], dict[str, int]]:
    """Read a task's documents, its own split where none is given, and no more rows than `limit` documents need.

    Returns:
        the documents, and how many of the rows read could not be used, by reason.

    Raises:
        DataError: if they cannot be read, are no documents, share an id, or too many rows cannot be used.
    """
    if type(task) in TASKS.values():
        require_folder(options_of(task).get("images"))
    read, bad = 0, 0
    documents: list[Document] = []
    errors: list[DataError] = []
    try:
        for row in task.documents(split or task.split):
            read += not isinstance(row, LeftOut)
            if isinstance(row, DataError):
                errors.append(row)
                bad += not isinstance(row, LeftOut)
            elif limit is None or len(documents) < limit:
                documents.append(row)
            if len(documents) == limit and bad <= MAX_BAD_SHARE * read:
                break  # a set on the hub may have gigabytes more
    except LorgnetteError:
        raise
    except (Exception, SystemExit) as error:  # a task is the user's own code
        raise DataError(f"task {task.name}: documents() raised {error!r}. Next: see docs/own-task.md.") from error
    if bad > MAX_BAD_SHARE * read:
        first = next(row for row in errors if not isinstance(row, LeftOut))
        raise DataError(
            f"task {task.name}: {bad:,} of {read:,} rows cannot be used, the first: {first} More than "
            f"{MAX_BAD_SHARE:.0%} of them is refused."
        )
    if not documents:
        raise DataError(f"task {task.name}: there are no documents. Next: check split and limit.")
    for number, document in enumerate(documents):
        if not _is_document(document):
            raise DataError(f"task {task.name}: document {number} is {document!r:.200}. Allowed: a Document of texts.")
    repeated = [name for name, times in Counter(document.id for document in documents).items() if times > 1]
    if repeated:
        raise DataError(
            f"task {task.name}: document ids are not unique: {', '.join(repeated[:3])}. Next: give each its own."
        )
    return documents, dict(Counter(row.kind if isinstance(row, RowError) else "unreadable" for row in errors))


def _is_document(row: Any) -> bool:
    if not isinstance(row, Document):
        return False
    more = (*row.groups.values(), *row.fields.values(), *row.choices.values())
    texts = (row.id, row.question, row.kind or "", *row.references, *row.images, *more)
    return all(isinstance(text, str) and is_unicode(text) for text in texts) and bool(row.references)


def _make(name: str, task: Any, options: Mapping[str, Any]) -> Any:
    allowed = [field.name for field in fields(task)] if is_dataclass(task) else []
    for option in options:
        if option not in allowed:
            given_by = GIVEN_BY.get(option)
            remedy = "" if given_by is None else f" Next: leave out {given_by}, or give the task a field of that name."
            raise DataError(
                f"task '{name}': there is no option '{option}'. Allowed: {', '.join(allowed) or 'none'}."
                f"{nearest(option, allowed)}{remedy}"
            )
    try:
        return TypeAdapter(task).validate_python(dict(options)) if options else task()
    except LorgnetteError:
        raise
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        said = "Allowed: true or false" if first["type"].startswith("bool") else first["msg"]
        raise DataError(
            f"task '{name}', option {where}: {said}. Got: {first['input']!r:.80}. Next: see docs/benchmarks.md."
        ) from error
    except (Exception, SystemExit) as error:  # a task is the user's own code
        raise DataError(
            f"task '{name}': cannot be made ({type(error).__name__}: {error}). Next: see to it that it can be made "
            "without arguments."
        ) from error
