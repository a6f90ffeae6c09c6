"""One task on one model: answers streamed and resumed, then scored, and a result that says what made it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from lorgnette.errors import DataError, InputError
from lorgnette.evaluation.asking import Asker
from lorgnette.evaluation.results import fingerprint_of, write_result
from lorgnette.evaluation.schema import PREDICTIONS, RESULT
from lorgnette.evaluation.scoring import score_answers
from lorgnette.evaluation.sharing import gather, keep, share
from lorgnette.evaluation.tasks import options_of, read_documents
from lorgnette.evaluation.tasks.task import ChoiceTask, Document, Task
from lorgnette.inference.engine import batches
from lorgnette.models.learner import Learner
from lorgnette.processes import is_main, processes
from lorgnette.progress import progress_bar
from lorgnette.run import file_hash, read_json, read_json_lines, write_json

SETTINGS = "settings.json"
LONGEST_VALUE = 60
"""Characters of a setting that are shown where it differs."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a task is asked. None takes the task's own value."""

    split: str | None = None
    limit: int | None = None
    max_new_tokens: int | None = None
    prompt: str | None = None
    batch_size: int = 256


def evaluate(
    learner: Learner,
    task: Task,
    folder: Path,
    settings: Settings,
    *,
    model: Mapping[str, Any],
    versions: Mapping[str, Any],
    console: Console,
    label: str,
    name: str | None = None,
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """Answer every document of a task, score the answers, and return what `result.json` holds.

    Answers are kept as they come; those that are already there are not made again, and several processes share what
    is left. The scores join them at the end, because a score may depend on the other documents.

    Args:
        folder: for predictions.jsonl and result.json.
        model: what names the model in the result (path and fingerprint).
        label: what the progress bar says.
        name: what the result is called where one task is measured on several sets; it decides no answer.
        warnings: what else must be known before the scores are believed.

    Raises:
        DataError: if documents or images cannot be read, or the task cannot score them.
        InputError: if the folder holds predictions that were made otherwise, or a setting does not go with the task.
    """
    documents, unusable = read_documents(task, settings.split, settings.limit)
    score_answers(task, documents, [""] * len(documents))  # what scoring lacks shows before the hours of answering
    made_by = _made_by(learner, task, settings, documents, unusable, model)
    asker = Asker(learner, made_by["prompt"], made_by["decoding"].get("max_new_tokens"))
    questions = {document.id: asker.question(document) for document in documents}
    with processes().main_process_first():
        _require_same(folder, made_by)  # writes the first file, so after all that may be refused
    names = list(questions)
    prompts = [question.prompt for question in questions.values()]
    asked = [[names[index] for index in batch] for batch in batches(prompts, settings.batch_size)]
    done = gather(folder, asked)
    left = share([batch for batch in asked if batch[0] not in done])
    learner.module.to(processes().device)  # a soft prompt stands beside the model
    with progress_bar(console) as progress:
        bar = progress.add_task(label, total=len(done) + sum(map(len, left)), completed=len(done))
        for batch in left:
            began = time.perf_counter()
            answers = asker.answers([questions[name] for name in batch])
            seconds = round((time.perf_counter() - began) / len(batch), 4)
            told = zip(batch, answers, strict=True)
            keep(folder, [{"id": n, "prompt": questions[n].text, **answer, "seconds": seconds} for n, answer in told])
            progress.advance(bar, len(batch))
    gather(folder, asked)
    with processes().main_process_first():
        if is_main():
            rows = read_json_lines(folder / PREDICTIONS)
            answered = [questions[row["id"]].document for row in rows]  # in the order of the file, that of the images
            about = {"name": name, "versions": dict(versions), "warnings": warnings}
            write_result(folder, task, answered, rows, made_by | about)
        result: dict[str, Any] = read_json(folder / RESULT)
        return result


def _made_by(
    learner: Learner,
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
        "chat_template": learner.template_text(),
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
        if settings.max_new_tokens is not None:
            raise InputError(f"task {task.name}: nothing is generated by likelihood. Next: leave max_new_tokens out.")
        return {"method": "likelihood"}
    return {"method": "greedy", "max_new_tokens": settings.max_new_tokens or task.max_new_tokens}


def _content_hash(image: str) -> str:
    try:
        return file_hash(Path(image))
    except (OSError, ValueError) as error:
        raise DataError(f"{image[:200]}: the image cannot be read ({error}). Next: check the task's images.") from error


def has_answers(folder: Path) -> bool:
    """Tell whether a result folder holds an answer, or a result."""
    file = folder / PREDICTIONS
    return (folder / RESULT).exists() or (file.exists() and file.stat().st_size > 0)


def _decides(made_by: Mapping[str, Any]) -> dict[str, Any]:
    """Return of all that made answers what decides them: not how many were made at once, nor where the model lay."""
    model = made_by.get("model")
    named = {name: value for name, value in model.items() if name != "path"} if isinstance(model, dict) else model
    return {name: value for name, value in made_by.items() if name != "batch_size"} | {"model": named}


def _differing(name: str, old: object, new: object) -> list[str]:
    """Return what two values differ in, `name: old -> new`; names inside mappings with a dot."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = dict.fromkeys([*old, *new])
        return [told for key in keys for told in _differing(f"{name}.{key}", old.get(key), new.get(key))]
    return [] if old == new else [f"{name}: {_brief(old)} -> {_brief(new)}"]


def _brief(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."


def _require_same(folder: Path, made_by: Mapping[str, Any]) -> None:
    """Refuse to go on with predictions that another model or other settings made."""
    file = folder / SETTINGS
    remedy = "They are left as they are. Next: choose another --output, or delete the folder."
    if not file.exists() or not has_answers(folder):
        if has_answers(folder):
            raise InputError(f"{folder}: holds predictions but not what made them ({SETTINGS} is missing). {remedy}")
        write_json(file, made_by)
        return
    try:
        before = read_json(file)
    except DataError as error:
        raise InputError(f"{error} So what made the predictions beside it is unknown. {remedy}") from error
    if not isinstance(before, dict):
        raise InputError(f"{file}: is no record of what made the predictions beside it. {remedy}")
    old, new = _decides(before), _decides(made_by)
    different = [told for name, value in new.items() for told in _differing(name, old.get(name), value)]
    if different:
        told = "\n  ".join(different)
        raise InputError(f"{folder}: holds predictions that were made otherwise:\n  {told}\n{remedy}")
