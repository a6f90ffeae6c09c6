"""GQA and GQA-ru: questions about scenes, answered with a word or two."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from lorgnette.data.readers.gqa import gqa_questions
from lorgnette.errors import DataError
from lorgnette.evaluation.metrics import lemma_match
from lorgnette.evaluation.metrics.exact_match import exact_match
from lorgnette.evaluation.tasks.source import SHORT_ANSWER, AskedByPreset, Preset, split_of
from lorgnette.evaluation.tasks.task import Document, Score, Scored

SHORT_ANSWER_RU = "{question}\nОтветь одним словом."


@dataclass(frozen=True, kw_only=True)
class GQA(AskedByPreset):
    """Exact match as lmms-eval computes it, per structural and semantic type of question."""

    name: ClassVar[str] = "gqa"
    metric: ClassVar[str] = "exact_match"
    split: ClassVar[str] = "testdev"
    presets: ClassVar[Mapping[str, Preset]] = {"lmms-eval": Preset(SHORT_ANSWER, 16)}

    path: str = "lmms-lab/GQA"
    images: str | None = None
    preset: str = "lmms-eval"

    def documents(self, split: str) -> Iterator[Document | DataError]:
        """Read the questions of a split of a hub's set, a folder, or a file of the original JSON."""
        for row in gqa_questions(self.path, split_of(self.path, split, self.split), self.images):
            if isinstance(row, DataError):
                yield row
                continue
            semantic = row.types.get("semantic")
            groups = {"semantic": semantic} if semantic else {}
            yield Document(row.id, (row.image,), row.question, row.answer, row.types.get("structural"), groups)

    def score_all(self, documents: Sequence[Document], answers: Sequence[str]) -> Scored:
        """Score every answer by exact match."""
        pairs = zip(documents, answers, strict=True)
        return Scored([Score({"exact_match": exact_match(answer, d.reference)}) for d, answer in pairs])


@dataclass(frozen=True, kw_only=True)
class GQARu(GQA):
    """GQA-ru, also scored by dictionary forms, as the Russian project counts."""

    name: ClassVar[str] = "gqa-ru"
    presets: ClassVar[Mapping[str, Preset]] = {
        "lmms-eval": Preset(SHORT_ANSWER_RU, 16),
        "russian-project": Preset(SHORT_ANSWER_RU, 10),
    }

    path: str = "deepvk/GQA-ru"

    def score_all(self, documents: Sequence[Document], answers: Sequence[str]) -> Scored:
        """Score every answer by exact match of words and of their dictionary forms."""
        rows = [
            Score(
                {
                    "exact_match": exact_match(answer, document.reference),
                    "exact_match_lemma": lemma_match.lemma_match(answer, document.reference),
                }
            )
            for document, answer in zip(documents, answers, strict=True)
        ]
        return Scored(rows, notes={"exact_match_lemma": lemma_match.NOTE})
