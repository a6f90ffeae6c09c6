"""What tasks that read a data set share: where it is, which split is meant, and a prompt by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lorgnette.errors import DataError, nearest


@dataclass(frozen=True, slots=True)
class Preset:
    """How somebody's harness asks a benchmark: the prompt, and most tokens of an answer."""

    prompt: str
    max_new_tokens: int


def find_preset(presets: Mapping[str, Preset], name: str, task: str) -> Preset:
    """Return a preset by its name.

    Raises:
        DataError: if there is none of that name.
    """
    if name not in presets:
        raise DataError(
            f"task {task}: there is no preset '{name}'. Allowed: {', '.join(presets)}.{nearest(name, presets)}"
        )
    return presets[name]


def required_path(path: str | None, task: str, what: str) -> str:
    """Return where a task's documents are.

    Raises:
        DataError: if nobody said so, and the task has no set of its own on the hub.
    """
    if path is None:
        raise DataError(f"task {task}: it is not said where its documents are. Next: --data {what}.")
    return path


def split_of(path: str, split: str, own: str) -> str | None:
    """Return the split to read: None, which is all rows, for a file where no other than the task's own was asked."""
    return None if split == own and Path(path).is_file() else split
