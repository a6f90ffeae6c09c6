"""The protocol of a benchmark: what a document, a score and a task are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from lorgnette.errors import DataError


@dataclass(frozen=True, slots=True)
class Document:
    """One question of a benchmark.

    Attributes:
        images: paths, in the order in which the model sees them.
        reference: the right answer, or several that are right.
        kind: groups documents in tables; None where there are no kinds.
        groups: further groupings by name, {"category": "animals"}.
        fields: what the task's prompt may name besides `{question}`.
        choices: letter to text, where one of several texts is the answer.
    """

    id: str
    images: tuple[str, ...]
    question: str
    reference: str | tuple[str, ...]
    kind: str | None = None
    groups: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)
    choices: Mapping[str, str] = field(default_factory=dict)

    @property
    def references(self) -> tuple[str, ...]:
        """Return the right answers, also where there is only one."""
        return (self.reference,) if isinstance(self.reference, str) else self.reference


def is_unicode(text: str) -> bool:
    """Tell whether a text can be tokenised and written: half of a surrogate pair, which JSON may hold, cannot."""
    return text.isascii() or text.encode("utf-8", "ignore").decode() == text


@dataclass(frozen=True, slots=True)
class Score:
    """What one answer is worth.

    Attributes:
        scores: value by metric; has the task's main metric.
        parts: for metrics of a whole corpus, by a name in `AGGREGATES`, the numbers that this answer adds.
        read: whether the answer could be understood; None: it could if it is not empty.
    """

    scores: Mapping[str, float]
    parts: Mapping[str, Sequence[float]] = field(default_factory=dict)
    read: bool | None = None


@dataclass(frozen=True, slots=True)
class Scored:
    """All answers of a task, scored together.

    Attributes:
        rows: one an answer, in the order given.
        notes: how a metric was computed, by its name: a signature, a tokenizer, a reservation.
        counts: what was met on the way and belongs beside the scores, such as groups that are incomplete.
        warnings: what a reader must know before believing a number.
        highest: the most that a document can get, by metric, where it is not 1.
    """

    rows: Sequence[Score]
    notes: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    highest: Mapping[str, float] = field(default_factory=dict)


class Asked(Protocol):
    """What every benchmark has.

    Attributes:
        name: what it is called in results.
        metric: the name of its main score, on which models are compared.
        split: the split that its authors score.
        prompt: the text around a question; `{question}` and the document's fields stand for themselves.
        max_new_tokens: most tokens of an answer.
    """

    # read-only, so that a frozen dataclass or a property will do
    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def metric(self) -> str: ...  # noqa: D102
    @property
    def split(self) -> str: ...  # noqa: D102
    @property
    def prompt(self) -> str: ...  # noqa: D102
    @property
    def max_new_tokens(self) -> int: ...  # noqa: D102

    def documents(self, split: str) -> Iterable[Document | DataError]:
        """Read the documents of a split, in a fixed order; an error stands for a row that cannot be used."""


@runtime_checkable
class RowTask(Asked, Protocol):
    """A benchmark that scores every answer alone."""

    def score(self, document: Document, answer: str) -> float | Score:
        """Score one answer from 0.0 to 1.0, or with several metrics."""


@runtime_checkable
class SetTask(Asked, Protocol):
    """A benchmark whose scores depend on the other documents, as CIDEr's word frequencies do."""

    def score_all(self, documents: Sequence[Document], answers: Sequence[str]) -> Scored:
        """Score all answers; scores may have any scale from 0."""


Task = RowTask | SetTask


@runtime_checkable
class ChoiceTask(Protocol):
    """A benchmark that may be answered by the likelihood of its documents' letters instead of by generating."""

    @property
    def by_likelihood(self) -> bool:
        """Tell whether it is so."""
