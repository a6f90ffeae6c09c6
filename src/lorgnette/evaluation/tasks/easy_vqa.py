"""easy-VQA's test split: 9,673 questions about 1,000 images, answered with one of 13 words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lorgnette.data.readers.easy_vqa import PACKAGE, easy_vqa_questions
from lorgnette.evaluation.metrics.exact_match import exact_match
from lorgnette.evaluation.tasks.task import Document


@dataclass(frozen=True, kw_only=True)
class EasyVQA:
    """Exact match, per kind of question: shape, color, yes/no."""

    name: ClassVar[str] = "easy-vqa"
    metric: ClassVar[str] = "exact_match"
    split: ClassVar[str] = "test"
    prompt: ClassVar[str] = "{question}"
    max_new_tokens: ClassVar[int] = 8

    path: str = PACKAGE

    def documents(self, split: str) -> list[Document]:
        """Read the questions of a split from the package `easy-vqa`, or from a folder laid out like it."""
        return [
            Document(row.id, (row.image,), row.question, row.answer, row.kind)
            for row in easy_vqa_questions(self.path, split)
        ]

    def score(self, document: Document, answer: str) -> float:
        """Return 1.0 for the right word."""
        return exact_match(answer, document.reference)
