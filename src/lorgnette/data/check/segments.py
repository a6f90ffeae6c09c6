"""A sample as the model meets it, stretch by stretch: what it is trained to say, what it only reads, its images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

import numpy as np

from lorgnette.data.rendered import IGNORE_INDEX, Encoded
from lorgnette.pages import printable_lines

Role = Literal["read", "supervised", "image"]


@dataclass(frozen=True, slots=True)
class Segment:
    """Neighbouring tokens of one role, as text; `tokens` is how many."""

    role: Role
    text: str
    tokens: int


def segments(encoded: Encoded, tokenizer: Any, image_token_id: int) -> Iterator[Segment]:
    """Decode a sample stretch by stretch, special tokens included; an image is one token here, and has no text."""

    def role(place: int) -> Role:
        if encoded.input_ids[place] == image_token_id:
            return "image"
        return "read" if encoded.labels[place] == IGNORE_INDEX else "supervised"

    for found, places in groupby(range(len(encoded.input_ids)), role):
        ids = [encoded.input_ids[place] for place in places]
        if found == "image":
            yield from (Segment(found, "", 1) for _ in ids)
        else:
            yield Segment(found, printable_lines(tokenizer.decode(ids, skip_special_tokens=False)), len(ids))


def unfinished_answers(encoded: Encoded, tokenizer: Any, end_of_turn: str) -> int:
    """Count the stretches of supervised tokens that do not end with the end of turn.

    Looked up in the labels themselves, not in how they were made: a model trained on such an answer does not learn to
    stop there.
    """
    supervised = np.asarray(encoded.labels) != IGNORE_INDEX
    last = supervised & ~np.append(supervised[1:], False)
    ends = {encoded.labels[place] for place in np.flatnonzero(last)}
    wrong = {end for end in ends if not tokenizer.decode([end]).endswith(end_of_turn)}
    return sum(encoded.labels[place] in wrong for place in np.flatnonzero(last)) if wrong else 0
