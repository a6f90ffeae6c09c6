"""What a training or evaluation example is. Knows nothing about tokens, models or files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lorgnette.errors import RowError

IMAGE_TAG = "<image>"
"""Where an image stands in a turn's text; one tag an image, in the order of `Sample.images`."""

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a sample was read, so that every error can point there. `row` counts from 0."""

    file: str
    row: int

    def __str__(self) -> str:
        return f"{self.file}, row {self.row}"


@dataclass(frozen=True, slots=True)
class Turn:
    """One utterance of a conversation."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class Sample:
    """A conversation about zero or more images.

    Attributes:
        images: paths of image files, in the order of the tags.
        mended: what the reader put right, in a few words that do not depend on the row ("image tag inserted"), so
            that it can be counted.
    """

    id: str
    images: tuple[str, ...]
    turns: tuple[Turn, ...]
    origin: Origin
    mended: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """Return file, row and id, as errors say it."""
        return f"{self.origin} (id {self.id})"


def check_sample(sample: Sample) -> None:
    """Refuse a conversation that cannot be trained on as it stands.

    Raises:
        RowError: if tags and images differ in number, a turn is empty, or roles do not run
            [system] user assistant [user assistant ...].
    """
    tags = sum(turn.text.count(IMAGE_TAG) for turn in sample.turns)
    if tags != len(sample.images):
        reason = f"{tags} {IMAGE_TAG} tags but {len(sample.images)} images."
        raise RowError("tags and images differ", sample.where, reason)
    roles = [turn.role for turn in sample.turns]
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    expected = ["user", "assistant"] * (len(spoken) // 2)
    if not spoken or spoken != expected:
        raise RowError(
            "order of roles",
            sample.where,
            f"roles are {', '.join(roles) or 'none'}. Allowed: an optional system turn, then user and assistant in "
            "turn, the last one by the assistant.",
        )
    for number, turn in enumerate(sample.turns):
        if not turn.text.strip():
            raise RowError("empty turn", sample.where, f"turn {number} ({turn.role}) is empty.")
