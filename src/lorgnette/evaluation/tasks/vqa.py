"""Any set of questions about images: VQA v2, RSVQA, a table of questions and answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from lorgnette.data.readers.vqa import RANGES, count_range, vqa_questions
from lorgnette.errors import DataError
from lorgnette.evaluation.metrics.exact_match import exact_match
from lorgnette.evaluation.metrics.vqa import evalai_normalised, vqa_accuracy
from lorgnette.evaluation.tasks.source import SHORT_ANSWER, required_path, split_of
from lorgnette.evaluation.tasks.task import Document, Score, Scored

COUNT_RANGES = {words for _, words in RANGES} | {"more than 1000"}


@dataclass(frozen=True, kw_only=True)
class VQA:
    """Soft accuracy of VQA v2; with one answer a question it is exact match after the challenge's normalisation."""

    name: ClassVar[str] = "vqa"
    metric: ClassVar[str] = "vqa_accuracy"
    split: ClassVar[str] = "test"
    max_new_tokens: ClassVar[int] = 16
    prompt: ClassVar[str] = SHORT_ANSWER

    path: str | None = None
    images: str | None = None

    def documents(self, split: str) -> Iterator[Document | DataError]:
        """Read the questions of a file, a folder or a set of the hub."""
        path = required_path(self.path, self.name, "a file of questions")
        for row in vqa_questions(path, split_of(path, split, self.split), self.images):
            if isinstance(row, DataError):
                yield row
                continue
            reference = row.answers if len(row.answers) > 1 else row.answer
            groups = {"question_type": row.question_type} if row.question_type else {}
            yield Document(row.id, (row.image,), row.question, reference, row.kind or None, groups)

    def score_all(self, documents: Sequence[Document], answers: Sequence[str]) -> Scored:
        """Score every answer alone, and the mean over kinds of questions."""
        kinds = {kind: float(number) for number, kind in enumerate(dict.fromkeys(d.kind for d in documents))}
        rows = []
        for document, answer in zip(documents, answers, strict=True):
            scores = score_answer(answer, document.references)
            rows.append(Score(scores, {"average_accuracy": [kinds[document.kind], scores["vqa_accuracy"]]}))
        fewest = min(len(document.references) for document in documents)
        return Scored(
            rows,
            notes={
                "vqa_accuracy": "EvalAI normalisation; soft accuracy over people's answers"
                + (", whether it is one of them where there are fewer than four" if fewest < 4 else ""),
                "evalai_match": "EvalAI normalisation; the most frequent answer",
                "exact_match": "lmms-eval's; the most frequent answer",
                "average_accuracy": "the mean over kinds of questions of vqa_accuracy (the overall accuracy)",
            },
        )


def score_answer(answer: str, references: Sequence[str]) -> dict[str, float]:
    """Score one answer; a count is put into its range first where the references are ranges (RSVQA-LR)."""
    said = count_range(answer) if COUNT_RANGES & set(references) else answer
    frequent = Counter(references).most_common(1)[0][0]
    return {
        "vqa_accuracy": vqa_accuracy(said, references),
        "exact_match": exact_match(said, frequent),
        "evalai_match": float(evalai_normalised(said) == evalai_normalised(frequent)),
    }
