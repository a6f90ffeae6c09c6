"""LLaVA conversations: a JSON list, or one JSON object a line.

Rows carry `conversations` (or `messages`) with `from`/`value` or `role`/`content`, and `image` (a path, or a list of
them). Where images are given and no turn has an `<image>` tag, the tags go before the first question.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lorgnette.data.sample import IMAGE_TAG, Origin, Role, Sample, Turn
from lorgnette.errors import DataError, nearest

ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}


def read_llava(path: str, split: str | None, images: str | None) -> Iterator[Sample | DataError]:
    """Yield one conversation a sample; images are looked up under `images`, or beside the file.

    Raises:
        DataError: if the file is missing, empty, truncated or no list of objects.
    """
    if split is not None:
        raise DataError(f"{path}: a LLaVA file has no splits. Next: leave `split` out.")
    file = Path(path)
    root = Path(images) if images is not None else file.parent
    for number, row in enumerate(_rows(file)):
        try:
            yield _sample(row, Origin(path, number), root)
        except DataError as error:
            yield error


def _rows(file: Path) -> Iterator[Any]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError) as error:
        near = [entry.name for entry in file.parent.iterdir()] if file.parent.is_dir() else []
        raise DataError(f"{file}: there is no such file.{nearest(file.name, near)}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as UTF-8 text ({error}).") from error
    if not text.strip():
        raise DataError(f"{file}: the file is empty. Allowed: a JSON list of conversations, or one a line.")
    if text.lstrip().startswith("["):
        try:
            yield from json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{file}: no valid JSON ({error}). Next: the file may be truncated; copy it anew."
            ) from error
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{file}, line {number}: no valid JSON ({error}).") from error


def _sample(row: Any, origin: Origin, root: Path) -> Sample:
    if not isinstance(row, dict):
        raise DataError(f"{origin}: a {type(row).__name__}. Allowed: an object with `conversations`.")
    spoken = row.get("messages") if row.get("conversations") is None else row["conversations"]
    if not isinstance(spoken, list) or not spoken:
        raise DataError(f"{origin}: no `conversations` list. The row has: {', '.join(map(str, row)) or 'nothing'}.")
    turns = [_turn(turn, origin) for turn in spoken]
    given = row.get("image", row.get("images"))
    names = [] if given is None else [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
        raise DataError(f"{origin}: `image` is {given!r:.80}. Allowed: a path, a list of paths, or null for none.")
    paths = tuple(_inside(root, name, origin) for name in names)
    first = next((number for number, turn in enumerate(turns) if turn.role == "user"), None)
    if paths and first is not None and not any(IMAGE_TAG in turn.text for turn in turns):
        turns[first] = Turn("user", f"{IMAGE_TAG}\n" * len(paths) + turns[first].text)
    return Sample(str(row.get("id", origin.row)), paths, tuple(turns), origin)


def _turn(turn: Any, origin: Origin) -> Turn:
    if not isinstance(turn, dict):
        raise DataError(f"{origin}: a turn is a {type(turn).__name__}. Allowed: an object with `from` and `value`.")
    role = turn.get("from", turn.get("role"))
    text = turn.get("value", turn.get("content"))
    if not isinstance(role, str) or role not in ROLES:
        raise DataError(f"{origin}: unknown role. Allowed: {', '.join(ROLES)}. Got: {role!r}.")
    if not isinstance(text, str):
        raise DataError(f"{origin}: the text of a turn is a {type(text).__name__}. Allowed: a string.")
    if text.encode("utf-8", "ignore").decode() != text:
        raise DataError(f"{origin}: the text of a turn holds half of a surrogate pair, which is no character.")
    return Turn(ROLES[role], text)


def _inside(root: Path, name: str, origin: Origin) -> str:
    """Join a path from a file to its folder, refusing to leave it."""
    path = root / name
    try:
        inside = path.resolve().is_relative_to(root.resolve())
    except (OSError, ValueError) as error:
        raise DataError(f"{origin}: no usable image path ({error}). Got: {name!r:.200}.") from error
    if not inside:
        raise DataError(f"{origin}: an image path leaves the images folder. Got: {name!r:.200}.")
    return str(path)
