"""Answers and references as other tools write them: JSON or JSON lines with an id and a text under the usual names.

Understood are a list of objects, such a list under one key, one object a line, and an object of id to text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorgnette.errors import DataError, nearest
from lorgnette.evaluation.tasks.task import Document

IMAGE_NAMES = ("image", "image_path", "img", "file_name", "filename", "image_file")
ID_NAMES = (
    *("id", "question_id", "questionId", "index", "image_id", "imageId", "img_id", "idx", "sample_id", "doc_id", "uid"),
    *IMAGE_NAMES,
)
ANSWER_NAMES = (
    *("prediction", "predicted", "pred", "predicted_answer", "model_answer", "model_output", "response", "generated"),
    *("generated_text", "generation", "hypothesis", "answer", "output", "caption", "text"),
)
"""In this order: where a file has its references beside the answers, `answer` is what a reference is called."""
REFERENCE_NAMES = ("references", "reference", "answers", "captions", "answer", "caption", "target", "label", "output")
KEYED = ("id", "answer")
"""Names of the two columns that an object of id to text is given."""
TABLES = (".csv", ".tsv", ".tab")
NO_TABLES = (
    "Allowed: JSON or JSON lines; CSV and other tables are not read. Next: write one JSON object a line, such as "
    '{"id": "1", "answer": "a cat"}; of a CSV, python -c "import csv, json, sys; [print(json.dumps(row)) for row in '
    'csv.DictReader(sys.stdin)]" < answers.csv > answers.jsonl'
)
MAX_BYTES = 2_000_000_000


@dataclass(frozen=True, slots=True)
class AnswersFile:
    """What a file of answers holds.

    Attributes:
        rows: id -> answer, and what else the file says of it under our own names.
        id_name: the column that names documents; one of `IMAGE_NAMES` names them by their image.
        answer_name: the column with the answers.
    """

    rows: Mapping[str, Mapping[str, Any]]
    id_name: str
    answer_name: str


def read_answers(path: Path, id_name: str | None = None, answer_name: str | None = None) -> AnswersFile:
    """Read a file of answers, by the names given or else by the first usual ones that every row has.

    Raises:
        DataError: if the file cannot be read, no usual name fits, an id is there twice, or an answer is no text.
    """
    rows = _objects(path)
    id_name = _column(path, rows, "id", ID_NAMES, id_name)
    answer_name = _column(path, rows, "answer", ANSWER_NAMES, answer_name)
    answers: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(rows):
        key = key_of(id_name, row[id_name])
        if key in answers:
            raise DataError(f"{path}, row {number}: the id {key!r:.100} ({id_name}) was there before.")
        text = _text(row[answer_name], f"{path}, row {number} ({id_name} {key:.100}), {answer_name}")
        answers[key] = {
            "answer": text,
            "prompt": _own(row, "prompt", str, ""),
            "raw": _own(row, "raw", str, text),
            "seconds": _own(row, "seconds", float, None),
            "stopped_by": row.get("stopped_by") if row.get("stopped_by") in ("end", "length") else None,
        }
    return AnswersFile(answers, id_name, answer_name)


def read_references(path: Path) -> list[Document]:
    """Read documents from a plain table of ids and references, with `question`, `type` and `image` where it has them.

    Raises:
        DataError: if the file cannot be read, or no usual name fits.
    """
    rows = _objects(path)
    id_name = _column(path, rows, "id", ID_NAMES, None)
    name = _column(path, rows, "reference", REFERENCE_NAMES, None)
    documents = []
    for number, row in enumerate(rows):
        where = f"{path}, row {number}, {name}"
        given = row[name] if isinstance(row[name], list) else [row[name]]
        references = tuple(_text(text, where) for text in given)
        if not references:
            raise DataError(f"{where}: has no text.")
        image = next((row[column] for column in IMAGE_NAMES if isinstance(row.get(column), str)), None)
        documents.append(
            Document(
                _written(str(row[id_name])),
                () if image is None else (image,),
                _own(row, "question", str, ""),
                references if len(references) > 1 else references[0],
                _own(row, "type", str, None),
            )
        )
    return documents


def key_of(id_name: str, value: Any) -> str:
    """Return what a document is called by: its id as text, or its image's file name."""
    return _written(Path(str(value)).name if id_name in IMAGE_NAMES else str(value))


def _column(path: Path, rows: Sequence[Mapping[str, Any]], what: str, usual: Sequence[str], given: str | None) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    everywhere = [name for name in names if all(name in row for row in rows)]
    if given is None:
        found = next((name for name in usual if name in everywhere), None)
        if found is not None:
            return found
    elif given in everywhere:
        return given
    wanted = f"'{given}'" if given is not None else f"any of {', '.join(usual)}"
    raise DataError(
        f"{path}: no column of every row is {wanted}, for the {what}. The rows have: {', '.join(names)[:300]}."
        f"{nearest(given or usual[0], names)} Next: name it with --{'id' if what == 'id' else 'answer'}-field."
    )


def _objects(path: Path) -> list[dict[str, Any]]:
    content = _content(path)
    if isinstance(content, dict):
        lists = [value for value in content.values() if isinstance(value, list) and value]
        lists = [value for value in lists if isinstance(value[0], dict)]
        if len(lists) == 1:
            content = lists[0]
        elif set(content) & set(ID_NAMES) and set(content) & set(ANSWER_NAMES):
            content = [content]  # JSON lines of one line
        elif content and all(value is None or isinstance(value, str) for value in content.values()):
            content = [dict(zip(KEYED, pair, strict=True)) for pair in content.items()]
        elif content and all(isinstance(value, dict) for value in content.values()):
            content = [{"id": key} | value for key, value in content.items()]
    if not isinstance(content, list) or not content or not all(isinstance(row, dict) for row in content):
        raise DataError(
            f"{path}: no list of objects. Allowed: JSON or JSON lines with an id and a text in every row, or an object "
            "of id to text."
        )
    return content


def _content(path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path}: {path.stat().st_size:,} bytes. Allowed: {MAX_BYTES:,}.")
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        near = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"{path}: there is no such file.{nearest(path.name, near)}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({error}). Next: save it as UTF-8.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}).") from error
    if not text.strip():
        raise DataError(f"{path}: the file is empty. Next: make the answers again.")
    try:
        return _parsed(text)
    except (ValueError, RecursionError) as whole:
        lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
        rows = []
        for number, line in lines:
            try:
                rows.append(_parsed(line))
            except (ValueError, RecursionError) as error:
                told = f"line {number}: {error}" if rows else str(whole)
                if path.suffix.lower() in TABLES or not text.lstrip().startswith(("{", "[")):
                    raise DataError(f"{path}: is no JSON ({told}). {NO_TABLES}") from error
                raise DataError(f"{path}: neither JSON nor JSON lines ({told}). Is it cut off?") from error
        return rows


def _parsed(text: str) -> Any:
    """Parse JSON in which no key stands twice: the last would win, unseen.

    Raises:
        ValueError: if it is none.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            keys = [key for key, _ in pairs]
            raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r:.80} stands twice")
        return content

    return json.loads(text, object_pairs_hook=once)


def _text(value: Any, where: str) -> str:
    """Return an answer as text; null is an answer that was not given."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is None:
        return ""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number and not isinstance(value, str):
        raise DataError(f"{where}: is {value!r:.80}. Allowed: a text.")
    return _written(str(value))


def _own(row: Mapping[str, Any], name: str, kind: type, other: Any) -> Any:
    value = row.get(name)
    if not isinstance(value, kind) or (isinstance(value, float) and not math.isfinite(value)):
        return other
    return _written(value) if isinstance(value, str) else value


def _written(text: str) -> str:
    """Return a text as it will be written: half of a surrogate pair has no UTF-8 form."""
    return text.encode("utf-8", "replace").decode()
