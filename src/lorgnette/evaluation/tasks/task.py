"""The protocol of a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Document:
    """One question of a benchmark; `kind` groups documents in tables."""

    id: str
    images: tuple[str, ...]
    question: str
    reference: str
    kind: str


@runtime_checkable
class Task(Protocol):
    """A benchmark.

    Attributes:
        name: what it is called in results.
        metric: the name of its score.
        split: the split that its authors score.
        prompt: the text around a question; `{question}` stands for it.
        max_new_tokens: most tokens of an answer.
    """

    name: str
    metric: str
    split: str
    prompt: str
    max_new_tokens: int

    def documents(self, split: str) -> Sequence[Document]:
        """Read the documents of a split, in a fixed order."""

    def score(self, document: Document, answer: str) -> float:
        """Score one answer, from 0.0 to 1.0."""
