"""MMBench and MMBench-ru: multiple choice, every question asked with its options in several orders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from lorgnette.data.readers.mmbench import MMBenchQuestion, mmbench_questions
from lorgnette.errors import DataError
from lorgnette.evaluation.metrics.multiple_choice import LETTERS, circular, read_choice
from lorgnette.evaluation.tasks.source import AskedByPreset, Preset, required_path, split_of
from lorgnette.evaluation.tasks.task import Document, Score, Scored

QUESTION = "{hint} {question} There are several options:\n{options}\n\n"
"""lmms-eval's question; the English header stands in translations, too."""
BY_LETTER = "Answer with the option's letter from the given choices directly."
BY_LETTER_RU = "Выбери правильный вариант ответа буквой."


@dataclass(frozen=True, kw_only=True)
class MMBench(AskedByPreset):
    """Accuracy row by row, and MMBench's own: right only if right in every order of the options.

    Fields:
        protocol: `generate` an answer and read it by rule, or take the letter of highest `likelihood`.
        letters: the letters that stand before the options.
        homoglyphs: `fold` reads a capital of the other alphabet that looks like one of the letters; `keep` does not.
    """

    name: ClassVar[str] = "mmbench"
    metric: ClassVar[str] = "accuracy"
    split: ClassVar[str] = "dev"
    presets: ClassVar[Mapping[str, Preset]] = {
        "lmms-eval": Preset(QUESTION + BY_LETTER, 1024),
        "llava": Preset("{hint}\n{question}\n{options}\n" + BY_LETTER, 1024),
    }

    path: str | None = None
    images: str | None = None
    preset: str = "lmms-eval"
    protocol: Literal["generate", "likelihood"] = "generate"
    letters: str = LETTERS
    homoglyphs: Literal["keep", "fold"] = "keep"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not len(self.letters) == len(set(self.letters)) == len(LETTERS) or not self.letters.isalpha():
            raise DataError(f"task {self.name}: letters are {self.letters!r}. Allowed: {len(LETTERS)} that differ.")

    @property
    def by_likelihood(self) -> bool:
        """Tell whether letters are scored instead of an answer being generated."""
        return self.protocol == "likelihood"

    def documents(self, split: str) -> Iterator[Document | DataError]:
        """Read the rows of a hub's set, a Parquet file or the official TSV."""
        path = required_path(self.path, self.name, "the official TSV, such as mmbench_dev_en.tsv")
        for row in mmbench_questions(path, split_of(path, split, self.split), self.images):
            yield row if isinstance(row, DataError) else self._document(row)

    def _document(self, row: MMBenchQuestion) -> Document:
        shown = dict(zip(LETTERS, self.letters, strict=True))
        choices = {shown[letter]: text for letter, text in row.options.items()}
        options = "\n".join(f"{letter}. {text}" for letter, text in choices.items())
        return Document(
            row.id,
            (row.image,),
            row.question,
            shown[row.answer],
            row.category or None,
            groups={"l2-category": row.l2_category} if row.l2_category else {},
            fields={"hint": row.hint, "options": options} | {letter: row.options.get(letter, "") for letter in LETTERS},
            choices=choices,
        )

    def score_all(self, documents: Sequence[Document], answers: Sequence[str]) -> Scored:
        """Read every answer, and score rows and circular groups."""
        pairs = zip(documents, answers, strict=True)
        read = [self._read(document, answer, fold=self.homoglyphs == "fold") for document, answer in pairs]
        right = [letter == document.reference for letter, document in zip(read, documents, strict=True)]
        indices = [_index(document) for document in documents]
        groups = circular(indices, right, [len(document.choices) for document in documents])
        rows = [
            Score(
                {"accuracy": float(correct)}
                | ({"circular_accuracy": groups.hits[index]} if index in groups.hits else {}),
                read=letter is not None,
            )
            for index, letter, correct in zip(indices, read, right, strict=True)
        ]
        counts = {
            "circular_groups": len(groups.hits),
            "circular_groups_incomplete": groups.incomplete,
            "circular_groups_without_main_row": groups.without_main,
        }
        notes = {"circular_accuracy": "of questions, not of rows: right in every order of the options"}
        return Scored(rows, notes=notes, counts=counts, warnings=self._warnings(documents, answers, read))

    def _read(self, document: Document, answer: str, *, fold: bool) -> str | None:
        return read_choice(answer, document.choices, self.letters, fold=fold)

    def _warnings(self, documents: Sequence[Document], answers: Sequence[str], read: Sequence[str | None]) -> list[str]:
        """Say how many unread answers are only written in another alphabet."""
        unread = [(d, answer) for d, answer, letter in zip(documents, answers, read, strict=True) if letter is None]
        foldable = sum(self._read(document, answer, fold=True) is not None for document, answer in unread)
        if not foldable:
            return []
        return [
            f"{foldable:,} answers are unread, and so wrong, only because their letter is one of another alphabet that "
            "looks the same. To read them: --option homoglyphs=fold"
        ]


@dataclass(frozen=True, kw_only=True)
class MMBenchRu(MMBench):
    """MMBench-ru of deepvk; 3,910 rows, some circular groups incomplete."""

    name: ClassVar[str] = "mmbench-ru"
    presets: ClassVar[Mapping[str, Preset]] = {
        "lmms-eval": Preset(QUESTION + BY_LETTER_RU, 1024),
        "russian-project": Preset(QUESTION + BY_LETTER_RU, 5),
    }

    path: str | None = "deepvk/MMBench-ru"


def _index(document: Document) -> int:
    try:
        return int(document.id)
    except ValueError as error:
        raise DataError(f"document {document.id}: the id of a row of MMBench is its index, a whole number.") from error
