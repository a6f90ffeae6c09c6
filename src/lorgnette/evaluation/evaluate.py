"""One task on one model: answers streamed and resumed, then scored, and a result that says what made it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from lorgnette.errors import DataError, InputError
from lorgnette.evaluation.asking import Asker, Question
from lorgnette.evaluation.results import PREDICTIONS, fingerprint_of, write_result
from lorgnette.evaluation.scoring import score_answers
from lorgnette.evaluation.tasks import options_of, read_documents
from lorgnette.evaluation.tasks.task import ChoiceTask, Document, Task
from lorgnette.inference.engine import batches
from lorgnette.models.loading import Llava
from lorgnette.progress import progress_bar
from lorgnette.run import append_json_line, read_json, read_json_lines, write_json, write_json_lines

SETTINGS = "settings.json"


@dataclass(frozen=True, slots=True)
class Settings:
    """How a task is asked. None takes the task's own value."""

    split: str | None = None
    limit: int | None = None
    max_new_tokens: int | None = None
    prompt: str | None = None
    batch_size: int = 256


def evaluate(
    llava: Llava,
    task: Task,
    folder: Path,
    settings: Settings,
    *,
    model: Mapping[str, Any],
    versions: Mapping[str, Any],
    console: Console,
    label: str,
) -> dict[str, Any]:
    """Answer every document of a task, score the answers, and return what `result.json` holds.

    Answers are appended to predictions.jsonl as they come; those that are already there are not made again. The scores
    join them at the end, because a score may depend on the other documents.

    Args:
        folder: for predictions.jsonl and result.json.
        model: what names the model in the result (path and fingerprint).
        label: what the progress bar says.

    Raises:
        DataError: if documents or images cannot be read, or the task cannot score them.
        InputError: if the folder holds predictions that were made otherwise.
    """
    documents, unusable = read_documents(task, settings.split, settings.limit)
    score_answers(task, documents, [""] * len(documents))  # what scoring lacks shows before the hours of answering
    made_by = _made_by(llava, task, settings, documents, unusable, model)
    _require_same(folder, made_by)
    asker = Asker(llava, made_by["prompt"], made_by["decoding"].get("max_new_tokens"))
    questions = [asker.question(document) for document in documents]
    done = _resume(folder, questions, settings.batch_size)
    with progress_bar(console) as progress:
        bar = progress.add_task(label, total=len(documents), completed=len(done))
        for batch in batches([question.prompt for question in questions], settings.batch_size):
            asked = [questions[index] for index in batch]
            if asked[0].document.id in done:
                continue
            began = time.perf_counter()
            answers = asker.answers(asked)
            seconds = round((time.perf_counter() - began) / len(asked), 4)
            for question, answer in zip(asked, answers, strict=True):
                row = {"id": question.document.id, "prompt": question.text, **answer, "seconds": seconds}
                append_json_line(folder / PREDICTIONS, row)
            progress.advance(bar, len(asked))
    rows = read_json_lines(folder / PREDICTIONS)
    by_id = {document.id: document for document in documents}
    answered = [by_id[row["id"]] for row in rows]  # in the order of the file, which is that of the images
    return write_result(folder, task, answered, rows, made_by | {"versions": dict(versions)})


def _made_by(
    llava: Llava,
    task: Task,
    settings: Settings,
    documents: Sequence[Document],
    unusable: Mapping[str, int],
    model: Mapping[str, Any],
) -> dict[str, Any]:
    images = dict.fromkeys(path for document in documents for path in document.images)
    return {
        "task": task.name,
        "metric": task.metric,
        "options": options_of(task),
        "prompt": settings.prompt or task.prompt,
        "chat_template": llava.template().jinja,
        "decoding": _decoding(task, settings),
        "data": {
            "split": settings.split or task.split,
            "limit": settings.limit,
            "documents": len(documents),
            "unusable": dict(unusable),
            "fingerprint": fingerprint_of(documents, {path: _content_hash(path) for path in images}),
        },
        "batch_size": settings.batch_size,
        "model": dict(model),
    }


def _decoding(task: Task, settings: Settings) -> dict[str, Any]:
    if isinstance(task, ChoiceTask) and task.by_likelihood:
        return {"method": "likelihood"}
    return {"method": "greedy", "max_new_tokens": settings.max_new_tokens or task.max_new_tokens}


def _content_hash(image: str) -> str:
    try:
        return hashlib.sha256(Path(image).read_bytes()).hexdigest()
    except (OSError, ValueError) as error:
        raise DataError(f"{image[:200]}: the image cannot be read ({error}). Next: check the task's images.") from error


def _require_same(folder: Path, made_by: Mapping[str, Any]) -> None:
    """Refuse to go on with predictions that another model or other settings made."""
    file = folder / SETTINGS
    remedy = "They are left as they are. Next: choose another --output, or delete the folder."
    if not file.exists():
        if (folder / PREDICTIONS).exists():
            raise InputError(f"{folder}: holds predictions but not what made them ({SETTINGS} is missing). {remedy}")
        write_json(file, made_by)
        return
    try:
        before = read_json(file)
    except DataError as error:
        raise InputError(f"{error} So what made the predictions beside it is unknown. {remedy}") from error
    different = [name for name, value in made_by.items() if not isinstance(before, dict) or before.get(name) != value]
    if different:
        raise InputError(f"{folder}: holds predictions that were made with another {', '.join(different)}. {remedy}")


def _resume(folder: Path, questions: Sequence[Question], batch_size: int) -> set[str]:
    """Keep the predictions of whole batches, so that every batch is computed as in a run without interruption."""
    rows = {row.get("id"): row for row in read_json_lines(folder / PREDICTIONS)}
    kept: list[dict[str, Any]] = []
    for batch in batches([question.prompt for question in questions], batch_size):
        ids = [questions[index].document.id for index in batch]
        if all(name in rows for name in ids):
            kept.extend(rows[name] for name in ids)
    write_json_lines(folder / PREDICTIONS, kept)
    return {row["id"] for row in kept}
