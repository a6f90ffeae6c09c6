"""Score the answers of any tool as an evaluation would: no model, no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lorgnette.errors import DataError, InputError
from lorgnette.evaluation.answers_file import IMAGE_NAMES, AnswersFile, key_of, read_answers, read_references
from lorgnette.evaluation.results import fingerprint_of, write_result
from lorgnette.evaluation.schema import PREDICTIONS, RESULT
from lorgnette.evaluation.tasks import options_of, read_documents
from lorgnette.evaluation.tasks.task import Document, Task
from lorgnette.run import file_hash, library_versions, read_json_object

Unmatched = Literal["error", "wrong", "drop"]
ASKED = ("preset", "protocol")
"""Options that say how a model is asked: nobody knows how these answers were."""
NO_ANSWER = {"answer": "", "prompt": "", "raw": "", "seconds": None, "stopped_by": None}


def score_file(
    predictions: Path,
    task: Task,
    references: Path | None,
    folder: Path,
    *,
    split: str | None = None,
    limit: int | None = None,
    id_name: str | None = None,
    answer_name: str | None = None,
    unmatched: Unmatched = "error",
    name: str | None = None,
) -> dict[str, Any]:
    """Score a file of answers against a task's documents; write predictions.jsonl and result.json.

    Args:
        task: with its `path` set to `references`.
        references: read as the task reads its data; a table of ids and references where it cannot; None for a task
            that knows itself where its documents are.
        folder: for the two files.
        unmatched: what to do with documents that have no answer: refuse, count them as wrong, or leave them out. The
            last two also let answers go that belong to no document. Both are counted in the result.
        name: what the result is called where one task is measured on several sets.

    Raises:
        DataError: if a file cannot be read, or ids do not match.
        InputError: if the folder holds the predictions themselves, or the result of others.
    """
    if (folder / PREDICTIONS).resolve() == predictions.resolve():
        raise InputError(f"{predictions}: would be overwritten with its scores. Next: choose another --output.")
    answers = read_answers(predictions, id_name, answer_name)
    fingerprint = f"sha256:{file_hash(predictions)}"
    _require_own(folder, task, fingerprint)
    documents, unusable = _documents(task, references, split, limit)
    matched, counts = _match(documents, answers, unmatched, predictions)
    about = {
        "name": name,
        "options": {name: value for name, value in options_of(task).items() if name not in ASKED},
        "prompt": _only([row["prompt"] for _, row in matched]),
        "chat_template": None,
        "decoding": None,
        "data": {
            "split": split or task.split,
            "limit": limit,
            "documents": len(matched),
            "unusable": unusable,
            "fingerprint": fingerprint_of([document for document, _ in matched], {}),
        },
        "batch_size": None,
        "model": {"path": str(predictions), "fingerprint": fingerprint},
        "versions": library_versions(),
        "counts": counts,
    }
    return write_result(folder, task, [document for document, _ in matched], [row for _, row in matched], about)


def _require_own(folder: Path, task: Task, fingerprint: str) -> None:
    """Refuse a folder with another result than one of these answers; theirs is made again."""
    if not (folder / RESULT).exists() and not (folder / PREDICTIONS).exists():
        return
    try:
        before = read_json_object(folder / RESULT)
    except DataError:
        before = {}
    model = before.get("model")
    if before.get("task") != task.name or not isinstance(model, dict) or model.get("fingerprint") != fingerprint:
        raise InputError(
            f"{folder}: holds the result of other answers. It is left as it is. Next: choose another --output, or "
            "delete the folder."
        )


def _documents(
    task: Task, references: Path | None, split: str | None, limit: int | None
) -> tuple[list[Document], dict[str, int]]:
    try:
        return read_documents(task, split, limit)
    except DataError as error:
        if references is None or split is not None:  # a plain table has no splits, and reading another would go unseen
            raise
        try:
            documents = read_references(references)[:limit]
        except DataError:
            raise error from None
        return documents, {}


def _match(
    documents: Sequence[Document], answers: AnswersFile, unmatched: Unmatched, file: Path
) -> tuple[list[tuple[Document, Mapping[str, Any]]], dict[str, int]]:
    keys = [_key(document, answers.id_name) for document in documents]
    if len(set(keys)) != len(keys):
        raise DataError(
            f"{file}: answers are named by {answers.id_name}, which several documents share. Next: name another "
            "column with --id-field."
        )
    missing = [key for key in keys if key not in answers.rows]
    extra = len(answers.rows) - (len(keys) - len(missing))
    if (missing or extra) and unmatched == "error":
        unknown = [key for key in answers.rows if key not in set(keys)]
        raise DataError(
            f"{file}: {len(missing):,} of {len(keys):,} documents have no answer ({_few(missing)}), {extra:,} of "
            f"{len(answers.rows):,} answers belong to no document ({_few(unknown)}); ids are in '{answers.id_name}'. "
            "Next: check the files and --split, name the column with --id-field, or say --unmatched wrong or drop."
        )
    rows = [
        (document, answers.rows.get(key, NO_ANSWER))
        for document, key in zip(documents, keys, strict=True)
        if key in answers.rows or unmatched == "wrong"
    ]
    if not rows:
        raise DataError(
            f"{file}: no answer belongs to any document ({_few(missing)}). Next: check the files, --split and "
            "--id-field."
        )
    return rows, {"documents_without_answer": len(missing), "answers_without_document": extra}


def _key(document: Document, id_name: str) -> str:
    by_image = id_name in IMAGE_NAMES and document.images
    return key_of(id_name, document.images[0]) if by_image else document.id


def _few(keys: Sequence[str]) -> str:
    return ", ".join(f"{key:.60}" for key in keys[:3]) + (", ..." if len(keys) > 3 else "") if keys else "none"


def _only(prompts: Sequence[str]) -> str:
    """Return the prompt that made all answers; a file of filled prompts, or of none, does not say it."""
    return prompts[0] if len(set(prompts)) == 1 else ""
