"""easy-VQA's test split: 9,673 questions about 1,000 images, answered with one of 13 words."""

from __future__ import annotations

from lorgnette.data.readers.easy_vqa import easy_vqa_questions
from lorgnette.evaluation.metrics.exact_match import exact_match
from lorgnette.evaluation.tasks.task import Document


class EasyVQA:
    """Exact match, per kind of question: shape, color, yes/no."""

    name = "easy-vqa"
    metric = "exact_match"
    split = "test"
    prompt = "{question}"
    max_new_tokens = 8

    def documents(self, split: str) -> list[Document]:
        """Read the questions of a split from the package `easy-vqa`."""
        return [
            Document(row.id, (row.image,), row.question, row.answer, row.kind)
            for row in easy_vqa_questions(split=split)
        ]

    def score(self, document: Document, answer: str) -> float:
        """Return 1.0 for the right word."""
        return exact_match(answer, document.reference)
