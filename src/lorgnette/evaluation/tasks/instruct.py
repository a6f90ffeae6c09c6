"""The held-out part of a set of instructions: how close answers are to the set's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lorgnette.data.readers import read_samples
from lorgnette.data.sample import IMAGE_TAG
from lorgnette.errors import DataError, LeftOut
from lorgnette.evaluation.metrics import text
from lorgnette.evaluation.tasks.source import required_path
from lorgnette.evaluation.tasks.task import Document, Score, Scored

NOT_ASKED = "later questions of conversations, not asked"


@dataclass(frozen=True, kw_only=True)
class Instruct:
    """Corpus BLEU and chrF by sacreBLEU, ROUGE-1, -2 and -L on words of any alphabet, METEOR.

    The first question of every conversation is asked; the others, which would need the turns before them, are
    counted as left out. LLaVA's ids are those of images and repeat: the second
    conversation of id 5 is 5#2.

    Fields:
        format: which reader understands the set, as in a recipe's `data`.
        stemmer: the language of METEOR's stemmer, one of NLTK's Snowball stemmers.
        wordnet: let METEOR match English synonyms by WordNet.
        legacy: also give ROUGE with rouge_score's own tokenizer, which is wrong on Cyrillic, under names that say so.
    """

    name: ClassVar[str] = "instruct"
    metric: ClassVar[str] = "rouge_l"
    split: ClassVar[str] = "test"
    prompt: ClassVar[str] = "{system}\n{question}"
    max_new_tokens: ClassVar[int] = 256

    path: str | None = None
    images: str | None = None
    format: str = "llava"
    stemmer: str = "russian"
    wordnet: bool = False
    legacy: bool = False

    def documents(self, split: str) -> Iterator[Document | DataError]:
        """Read the conversations of a split; a file without splits is read whole."""
        path = required_path(self.path, self.name, "a file of instructions")
        seen: Counter[str] = Counter()
        for sample in read_samples(path, self.format, None if split == self.split else split, self.images):
            if isinstance(sample, DataError):
                yield sample
                continue
            said: dict[str, Any] = {}
            for turn in sample.turns:
                said.setdefault(turn.role, turn.text)
            if "user" not in said or "assistant" not in said:
                yield DataError(f"{sample.where}: has no question with an answer.")
                continue
            later = sum(turn.role == "user" for turn in sample.turns) - 1
            for _ in range(later):  # before the document, after which nobody may read on
                yield LeftOut(NOT_ASKED, sample.where, "only the first question of a conversation is asked.")
            # images of later turns would need those turns
            images = sample.images[: said["user"].count(IMAGE_TAG)]
            question = said["user"].replace(IMAGE_TAG, "").strip()
            seen[sample.id] += 1
            name = sample.id if seen[sample.id] == 1 else f"{sample.id}#{seen[sample.id]}"
            yield Document(name, images, question, said["assistant"], fields={"system": said.get("system", "")})

    def score_all(self, documents: Sequence[Document], answers: Sequence[str]) -> Scored:
        """Score every answer, and keep what corpus BLEU and chrF need of it."""
        rows = [self._row(*pair) for pair in zip(documents, answers, strict=True)]
        names = ", ".join(f"legacy_{name}" for name in text.ROUGE)
        warnings = [f"{names}: {text.LEGACY_NOTE}"] if self.legacy else []
        return Scored(rows, notes=self._notes(documents), warnings=warnings)

    def _row(self, document: Document, answer: str) -> Score:
        references = document.references
        synonyms = text.find_wordnet() if self.wordnet else None
        words = [text.unicode_words(reference) for reference in references]
        rouge = text.rouge(answer, references)
        scores = {
            "rouge_1": rouge["rouge1"],
            "rouge_2": rouge["rouge2"],
            "rouge_l": rouge["rougeL"],
            "meteor": text.meteor(text.unicode_words(answer), words, self.stemmer, synonyms),
        }
        if self.legacy:
            wrong = text.rouge(answer, references, legacy=True)
            scores |= {f"legacy_{name}": value for name, value in wrong.items()}
        statistics = {
            "sacrebleu": text.sacrebleu_statistics(answer, references),
            "chrf": text.chrf_statistics(answer, references),
        }
        return Score(scores, statistics)

    def _notes(self, documents: Sequence[Document]) -> Mapping[str, str]:
        counts = [len(document.references) for document in documents]
        return {
            **text.sacrebleu_signatures(counts),
            **dict.fromkeys(("rouge_1", "rouge_2", "rouge_l"), "F-measure; rouge_score on words of any alphabet"),
            "meteor": text.meteor_note(self.stemmer, self.wordnet),
            **{f"legacy_{name}": text.LEGACY_NOTE for name in text.ROUGE},
        }
