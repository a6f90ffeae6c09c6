"""One task on one model: answers streamed and resumed, then scored, and a result that says what made it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from lorgnette.data.images import read_pixels
from lorgnette.data.rendering import Rendered, Renderer
from lorgnette.data.sample import IMAGE_TAG, Turn
from lorgnette.data.templates import stop_ids
from lorgnette.errors import DataError, InputError
from lorgnette.evaluation.prompts import fill
from lorgnette.evaluation.results import prediction, summarise
from lorgnette.evaluation.schema import check_result
from lorgnette.evaluation.scoring import score_answers
from lorgnette.evaluation.tasks import options_of, read_documents
from lorgnette.evaluation.tasks.task import Document, Task
from lorgnette.inference.engine import Generation, batches, generate
from lorgnette.models.loading import Llava
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
    texts = [fill(made_by["prompt"], document) for document in documents]
    renderer = Renderer(llava.template(), llava.core.config.image_token_id, llava.image_tokens)
    prompts = [_rendered(renderer, document, text) for document, text in zip(documents, texts, strict=True)]
    done = _resume(folder, prompts, documents, settings.batch_size)
    with progress_bar(console) as progress:
        bar = progress.add_task(label, total=len(documents), completed=len(done))
        for batch in batches(prompts, settings.batch_size):
            if documents[batch[0]].id in done:
                continue
            began = time.perf_counter()
            answers = generate(
                llava,
                [prompts[index] for index in batch],
                lambda path: read_pixels(llava.processor.image_processor, path),
                made_by["decoding"]["max_new_tokens"],
                stop_ids(llava.template()),
            )
            seconds = (time.perf_counter() - began) / len(batch)
            for index, answer in zip(batch, answers, strict=True):
                row = {"id": documents[index].id, "prompt": texts[index]} | _answer(llava, answer)
                append_json_line(folder / PREDICTIONS, row | {"seconds": round(seconds, 4)})
            progress.advance(bar, len(batch))
    return _finish(folder, task, documents, made_by | {"versions": dict(versions)})


def _finish(folder: Path, task: Task, documents: Sequence[Document], about: Mapping[str, Any]) -> dict[str, Any]:
    """Score the answers of a folder and write predictions.jsonl, in the order of its lines, and result.json."""
    by_id = {document.id: document for document in documents}
    rows = read_json_lines(folder / PREDICTIONS)
    answered = [by_id[row["id"]] for row in rows]
    scored = score_answers(task, answered, [row["answer"] for row in rows])
    predictions = [
        prediction(document, row, score, task.metric)
        for document, row, score in zip(answered, rows, scored.rows, strict=True)
    ]
    result = {"task": task.name} | summarise(task.metric, predictions, scored) | dict(about)
    check_result(result, predictions)
    write_json_lines(folder / PREDICTIONS, predictions)
    write_json(folder / RESULT, result)
    return result


def _made_by(
    llava: Llava,
    task: Task,
    settings: Settings,
    documents: Sequence[Document],
    unusable: Mapping[str, int],
    model: Mapping[str, Any],
) -> dict[str, Any]:
    return {
        "task": task.name,
        "metric": task.metric,
        "options": options_of(task),
        "prompt": settings.prompt or task.prompt,
        "chat_template": llava.template().jinja,
        "decoding": {"method": "greedy", "max_new_tokens": settings.max_new_tokens or task.max_new_tokens},
        "data": {
            "split": settings.split or task.split,
            "limit": settings.limit,
            "documents": len(documents),
            "unusable": dict(unusable),
            "fingerprint": _fingerprint(documents),
        },
        "batch_size": settings.batch_size,
        "model": dict(model),
    }


def _fingerprint(documents: Sequence[Document]) -> str:
    """Hash what is asked: texts, references and the images' contents, wherever they lie."""
    images = {path: _content_hash(path) for path in dict.fromkeys(path for d in documents for path in d.images)}
    content = [
        [d.id, d.question, d.reference, d.kind, dict(d.groups), dict(d.fields), dict(d.choices)]
        + [images[path] for path in d.images]
        for d in documents
    ]
    return f"sha256:{hashlib.sha256(json.dumps(content).encode()).hexdigest()}"


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


def _rendered(renderer: Renderer, document: Document, text: str) -> Rendered:
    turn = Turn("user", f"{IMAGE_TAG}\n" * len(document.images) + text)
    return renderer.render_prompt(document.id, document.images, (turn,))


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


def _answer(llava: Llava, answer: Generation) -> dict[str, Any]:
    return {
        "answer": llava.tokenizer.decode(answer.ids, skip_special_tokens=True).strip(),
        "raw": llava.tokenizer.decode(answer.ids, skip_special_tokens=False),
        "stopped_by": answer.stopped_by,
    }
