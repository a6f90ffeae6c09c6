"""One task on one model: predictions streamed and resumed, and a result that says what made it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from lorgnette.data.images import read_pixels
from lorgnette.data.rendering import Rendered, Renderer
from lorgnette.data.sample import IMAGE_TAG, Turn
from lorgnette.data.templates import stop_ids
from lorgnette.errors import DataError, InputError
from lorgnette.evaluation.results import summarise
from lorgnette.evaluation.tasks import read_documents
from lorgnette.evaluation.tasks.task import Document, Task
from lorgnette.inference.engine import Generation, batches, generate
from lorgnette.models.llava import Llava
from lorgnette.progress import progress_bar
from lorgnette.run import append_json_line, read_json, read_json_lines, write_json, write_json_lines

PREDICTIONS = "predictions.jsonl"
RESULT = "result.json"
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
    """Answer every document of a task and score the answers; return what `result.json` holds.

    Args:
        folder: for predictions.jsonl and result.json; predictions that are already there are not made again.
        model: what names the model in the result (path and fingerprint).
        label: what the progress bar says.

    Raises:
        DataError: if documents or images cannot be read.
        InputError: if the folder holds predictions that were made otherwise.
    """
    documents = _documents(task, settings)
    made_by = _made_by(llava, task, settings, documents, model)
    _require_same(folder, made_by)
    renderer = Renderer(
        llava.template(), llava.core.config.image_token_id, llava.image_tokens, soft_prompt=llava.prompt_ids
    )
    prompts = [_prompt(renderer, document, made_by["prompt"]) for document in documents]
    done = _resume(folder, prompts, documents, settings.batch_size)
    with progress_bar(console) as progress:
        bar = progress.add_task(label, total=len(documents), completed=len(done))
        for batch in batches(prompts, settings.batch_size):
            if documents[batch[0]].id in done:
                continue
            answers = generate(
                llava,
                [prompts[index] for index in batch],
                lambda path: read_pixels(llava.processor.image_processor, path),
                made_by["decoding"]["max_new_tokens"],
                stop_ids(llava.template()),
            )
            for index, answer in zip(batch, answers, strict=True):
                append_json_line(folder / PREDICTIONS, _prediction(llava, task, documents[index], answer))
            progress.advance(bar, len(batch))
    result = summarise(task.metric, read_json_lines(folder / PREDICTIONS)) | made_by | {"versions": dict(versions)}
    write_json(folder / RESULT, result)
    return result


def _documents(task: Task, settings: Settings) -> Sequence[Document]:
    documents = read_documents(task, settings.split)[: settings.limit]
    if not documents:
        raise DataError(f"task {task.name}: there are no documents. Next: check split and limit.")
    if len({document.id for document in documents}) != len(documents):
        raise DataError(f"task {task.name}: document ids are not unique.")
    return documents


def _made_by(
    llava: Llava, task: Task, settings: Settings, documents: Sequence[Document], model: Mapping[str, Any]
) -> dict[str, Any]:
    images = {path: _content_hash(path) for path in dict.fromkeys(path for d in documents for path in d.images)}
    content = json.dumps([[d.id, d.question, d.reference, d.kind, [images[i] for i in d.images]] for d in documents])
    return {
        "task": task.name,
        "metric": task.metric,
        "prompt": settings.prompt or task.prompt,
        "chat_template": llava.template().jinja,
        "decoding": {"method": "greedy", "max_new_tokens": settings.max_new_tokens or task.max_new_tokens},
        "data": {
            "split": settings.split or task.split,
            "limit": settings.limit,
            "documents": len(documents),
            "fingerprint": f"sha256:{hashlib.sha256(content.encode()).hexdigest()}",
        },
        "batch_size": settings.batch_size,
        "model": dict(model),
    }


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


def _prompt(renderer: Renderer, document: Document, prompt: str) -> Rendered:
    text = f"{IMAGE_TAG}\n" * len(document.images) + prompt.replace("{question}", document.question)
    return renderer.render_prompt(document.id, document.images, (Turn("user", text),))


def _resume(folder: Path, prompts: Sequence[Rendered], documents: Sequence[Document], batch_size: int) -> set[str]:
    """Keep the predictions of whole batches, so that every batch is computed as in a run without interruption."""
    rows = {row.get("id"): row for row in read_json_lines(folder / PREDICTIONS)}
    kept: list[dict[str, Any]] = []
    for batch in batches(prompts, batch_size):
        ids = [documents[index].id for index in batch]
        if all(name in rows for name in ids):
            kept.extend(rows[name] for name in ids)
    write_json_lines(folder / PREDICTIONS, kept)
    return {row["id"] for row in kept}


def _score(task: Task, document: Document, answer: str) -> float:
    try:
        score = task.score(document, answer)
    except Exception as error:  # a task is the user's own code
        raise DataError(f"task {task.name}, document {document.id}: score() raised {error!r}.") from error
    if not isinstance(score, int | float | np.floating) or not 0 <= score <= 1:
        raise DataError(f"task {task.name}, document {document.id}: score() gave {score!r}. Allowed: 0.0 to 1.0.")
    return float(score)


def _prediction(llava: Llava, task: Task, document: Document, answer: Generation) -> dict[str, Any]:
    raw = llava.tokenizer.decode(answer.ids, skip_special_tokens=False)
    text = llava.tokenizer.decode(answer.ids, skip_special_tokens=True).strip()
    return {
        "id": document.id,
        "kind": document.kind,
        "image": document.images[0] if document.images else None,
        "question": document.question,
        "reference": document.reference,
        "answer": text,
        "raw": raw,
        "score": _score(task, document, text),
        "stopped_by": answer.stopped_by,
    }
