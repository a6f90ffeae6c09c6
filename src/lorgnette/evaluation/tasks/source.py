"""What tasks that read a data set share: where it is, which split is meant, and a prompt by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lorgnette.errors import DataError, nearest

SHORT_ANSWER = "{question}\nAnswer the question using a single word or phrase."
"""How LLaVA was trained to be asked for a word or two, and is by lmms-eval."""


@dataclass(frozen=True, slots=True)
class Preset:
    """How somebody's harness asks a benchmark: the prompt, and most tokens of an answer."""

    prompt: str
    max_new_tokens: int


class AskedByPreset:
    """What tasks with presets share: their field `preset` names one of `presets`, which says how they are asked.

    Raises:
        DataError: when a task is made with a preset that it does not have.
    """

    name: ClassVar[str]
    presets: ClassVar[Mapping[str, Preset]]
    preset: str

    def __post_init__(self) -> None:
        if self.preset not in self.presets:
            raise DataError(
                f"task {self.name}: there is no preset '{self.preset}'. Allowed: {', '.join(self.presets)}."
                f"{nearest(self.preset, self.presets)}"
            )

    @property
    def prompt(self) -> str:
        """Return the preset's prompt."""
        return self.presets[self.preset].prompt

    @property
    def max_new_tokens(self) -> int:
        """Return the preset's longest answer."""
        return self.presets[self.preset].max_new_tokens


def required_path(path: str | None, task: str, what: str) -> str:
    """Return where a task's documents are.

    Raises:
        DataError: if nobody said so, and the task has no set of its own on the hub.
    """
    if path is None:
        raise DataError(
            f"task {task}: it is not said where its documents are. Next: --data {what}; with `lorgnette score` it is "
            "called --references."
        )
    return path


def split_of(path: str, split: str, own: str) -> str | None:
    """Return the split to read: None, which is all rows, for a file where no other than the task's own was asked."""
    return None if split == own and Path(path).is_file() else split
