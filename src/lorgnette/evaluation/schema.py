"""What predictions.jsonl and result.json hold, checked before they are written."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lorgnette.errors import RunError

PREDICTIONS, RESULT = "predictions.jsonl", "result.json"

Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Interval = tuple[float, float]


class Strict(BaseModel):
    """Refuse unknown fields and numbers that JSON does not have."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Prediction(Strict):
    """A line of predictions.jsonl: one answer to one document."""

    id: str
    kind: str | None
    groups: dict[str, str]
    image: str | None
    question: str
    prompt: str
    reference: str | list[str]
    answer: str
    raw: str
    read: bool
    score: float
    scores: dict[str, float]
    parts: dict[str, list[float]] = {}
    seconds: float | None
    stopped_by: Literal["end", "length"] | None


class GroupScore(Strict):
    """The main score of the documents of one kind."""

    n: Count
    score: float


class MetricScore(Strict):
    """A metric over all documents that have it.

    `aggregate` is "mean" of the rows' scores, or the name in AGGREGATES of what makes it from the rows' parts.
    """

    score: float
    stderr: float
    interval: Interval
    n: Count
    aggregate: str
    note: str | None = None


class Data(Strict):
    """Which documents were asked."""

    split: str
    limit: int | None
    documents: Count
    unusable: dict[str, Count]
    fingerprint: str


class Result(Strict):
    """result.json: the scores of one task on one model, and all that made them."""

    task: str
    metric: str
    n: Annotated[int, Field(gt=0)]
    score: float
    stderr: float
    interval: Interval
    kinds: dict[str, GroupScore]
    groups: dict[str, dict[str, GroupScore]]
    scores: dict[str, MetricScore]
    counts: dict[str, Count]
    warnings: list[str]
    stopped_by_length: Count
    stopped_by_length_share: Share
    unread: Count
    unread_share: Share
    options: dict[str, Any]
    prompt: str
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
