"""What predictions.jsonl and result.json hold: the one place that knows, when they are written and when they are read.

`Answer` and `Summary` are what a comparison relies on. It reads files of any age and tool by them, so other fields may
be there or not. `Prediction` and `Result` are what an evaluation writes: all of that, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lorgnette.errors import RunError

PREDICTIONS, RESULT = "predictions.jsonl", "result.json"
LARGEST = 1e100
"""Sums and squares of larger numbers overflow, and no metric comes near it."""

# A description is what a message about a file calls the allowed values.
Text = Annotated[str, Field(description="a string")]
TextOrNull = Annotated[str | None, Field(description="a string or null")]
Number = Annotated[float, Field(ge=-LARGEST, le=LARGEST, description="a finite number")]
Numbers = Annotated[tuple[Number, ...], Field(strict=False)]  # of JSON, which has lists and no tuples
Count = Annotated[int, Field(ge=0, strict=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Interval = Annotated[tuple[float, float], Field(strict=False)]


class Exact(BaseModel):
    """Take every value as it is, so true is no number and "1" neither, and no number that JSON does not have."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)


class Written(Exact):
    """Refuse fields that the format does not have, too."""

    model_config = ConfigDict(extra="forbid")


class Answer(Exact):
    """One answer to one document.

    Attributes:
        groups: its value in every grouping of the task, `kind` not among them.
        image: the path of its first image.
        prompt: what the model was asked, the task's prompt filled; empty where nobody knows.
        reference: the right answer, or several.
        read: whether the answer could be understood.
        score: the main metric of this answer; `scores` has every metric that this answer has one of.
        parts: what this answer adds to metrics of the whole corpus.
        stopped_by: "end" or "length", null where nobody knows.
    """

    id: Text
    kind: TextOrNull
    groups: Annotated[dict[str, str], Field(description="an object of strings")]
    image: TextOrNull
    question: Text
    prompt: Text
    reference: Annotated[str | list[str], Field(description="a string or a list of strings")]
    answer: Text
    read: Annotated[bool, Field(description="true or false")]
    score: Number
    scores: Annotated[dict[str, Number], Field(description="an object of finite numbers")]
    parts: Annotated[dict[str, Numbers], Field(description="an object of lists of finite numbers")] = {}
    stopped_by: TextOrNull

    @property
    def references(self) -> tuple[str, ...]:
        """Return the right answers, also where there is only one."""
        return (self.reference,) if isinstance(self.reference, str) else tuple(self.reference)


class Prediction(Answer, Written):
    """A line of predictions.jsonl as an evaluation writes it."""

    raw: str
    seconds: float | None
    stopped_by: Literal["end", "length"] | None


class GroupScore(Written):
    """The main score of the documents of one kind."""

    n: Count
    score: float


class Metric(Exact):
    """How a metric is made: "mean" of the rows' scores, or the name in AGGREGATES of what makes it of their parts.

    `highest` is the most that a row can get.
    """

    aggregate: str
    highest: Annotated[float, Field(gt=0)] = 1.0


class MetricScore(Metric, Written):
    """A metric over all documents that have it."""

    score: float
    stderr: float
    interval: Interval
    n: Count
    note: str | None = None


class Data(Written):
    """Which documents were asked."""

    split: str
    limit: int | None
    documents: Count
    unusable: dict[str, Count]
    fingerprint: str


class Summary(Exact):
    """The scores of one task on one model, and how it was asked.

    `name` tells several sets of one task apart; null where there is one.
    """

    task: Text
    name: TextOrNull = None
    metric: Text
    prompt: Text
    n: Annotated[int, Field(gt=0, description="a count above 0")]
    score: Number
    scores: Annotated[
        Mapping[str, Metric],
        Field(description="an object of objects with an aggregate, and a `highest` above 0 if any"),
    ]


class Result(Summary, Written):
    """result.json as an evaluation writes it, with all that made the scores."""

    stderr: float
    interval: Interval
    kinds: dict[str, GroupScore]
    groups: dict[str, dict[str, GroupScore]]
    scores: Mapping[str, MetricScore]
    counts: dict[str, Count]
    warnings: list[str]
    stopped_by_length: Count
    stopped_by_length_share: Share
    unread: Count
    unread_share: Share
    options: dict[str, Any]
    chat_template: str | None
    decoding: dict[str, Any] | None
    data: Data
    batch_size: int | None
    model: dict[str, Any]
    versions: dict[str, Any]


def check_result(result: dict[str, Any], predictions: list[dict[str, Any]]) -> None:
    """Hold a result and its rows against the schema before they are written.

    Raises:
        RunError: naming the field; it is our mistake, or that of a task of the user's own.
    """
    try:
        Result.model_validate(result)
        for row in predictions:
            Prediction.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RunError(
            f"a result that does not fit its schema was not written: {error.title}.{where}: {first['msg']}. "
            f"Got: {first['input']!r:.80}."
        ) from error
