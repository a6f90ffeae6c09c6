"""What became of the rows of a source: one record, in which check, training and split count the same things."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from lorgnette.data.encodings import Encodings
from lorgnette.data.rendered import Expansion
from lorgnette.data.rules import BadRow, Usable
from lorgnette.errors import LeftOut

Action = Literal["stop", "drop", "mend", "keep", "leave out"]
ACTIONS: tuple[Action, ...] = ("stop", "drop", "mend", "keep", "leave out")
"""The row ends what is done with the whole source; is bad and not used; is used after being put right; is used as it
is; is not used because an option says so, and counts neither as read nor as bad."""

EXAMPLES = 3


@dataclass(frozen=True)
class Example:
    """One row with a finding; `place` is file, row and id."""

    place: str
    reason: str

    def __str__(self) -> str:
        """Return where it is and what there is to say about it."""
        return ": ".join(filter(None, (self.place, self.reason)))


@dataclass
class Finding:
    """Rows of one kind. `fix_drops`: they are used as they are, but a fixed file leaves them out."""

    kind: str
    action: Action
    fix_drops: bool = False
    count: int = 0
    examples: list[Example] = field(default_factory=list)

    @property
    def done(self) -> str:
        """Say what will be done with the rows."""
        return f"{self.action} (fix: drop)" if self.fix_drops else self.action

    def __add__(self, other: Finding) -> Finding:
        """Count the same finding in two sources together."""
        examples = [*self.examples, *other.examples][:EXAMPLES]
        return Finding(self.kind, self.action, self.fix_drops, self.count + other.count, examples)


@dataclass
class Judged:
    """What became of the rows of a source.

    Attributes:
        read, kept: rows read, rows that can be used. Rows left out on purpose are not among those read.
        findings: (kind, action) -> finding.
        tokens: tokens of the kept rows, images and soft prompt included; `image_tokens` of them are images,
            `supervised` carry loss.
        shortened: rows shortened to `max_text_tokens`; `shortened_tokens` is by how much in all.
        notes: what else a person should know, in sentences.
    """

    read: int = 0
    kept: int = 0
    findings: dict[tuple[str, Action], Finding] = field(default_factory=dict)
    tokens: int = 0
    image_tokens: int = 0
    supervised: int = 0
    shortened: int = 0
    shortened_tokens: int = 0
    notes: list[str] = field(default_factory=list)

    def count(self, verdict: Usable[object] | BadRow | LeftOut, bad: Action = "drop") -> None:
        """Count one row as `judge` decided on it; `bad` is what is done where it cannot be used."""
        if isinstance(verdict, LeftOut):
            self.add(verdict.kind, "leave out", verdict.where, verdict.reason)
            return
        self.read += 1
        if isinstance(verdict, BadRow):
            self.add(verdict.kind, bad, verdict.where, verdict.reason)
            return
        self.kept += 1
        for kind in dict.fromkeys(verdict.sample.mended):
            self.add(kind, "mend", verdict.sample.where, "put right by the reader")

    def add(self, kind: str, action: Action, place: str, reason: str, *, fix_drops: bool = False) -> None:
        """Count a row under a kind."""
        finding = self.findings.get((kind, action))
        if finding is None:
            finding = self.findings[kind, action] = Finding(kind, action, fix_drops)
        finding.count += 1
        if len(finding.examples) < EXAMPLES:
            finding.examples.append(Example(place, reason))

    def counts(self, action: Action) -> Counter[str]:
        """Return kind -> number of rows with which one thing is done."""
        return Counter({found.kind: found.count for found in self.findings.values() if found.action == action})

    def count_tokens(self, encodings: Encodings, places: Sequence[int], expansion: Expansion) -> np.ndarray:
        """Add up the tokens of the kept rows, and what was cut from them.

        Args:
            places: where the conversation of each row is in the encodings.

        Returns:
            the length of each row in text tokens before anything was shortened.
        """
        chosen = np.asarray(places, np.int64)
        if not len(chosen):
            return chosen
        text, images, supervised, cut = encodings.counts(expansion.image_token_id)[chosen].T
        image_tokens = int(images.sum()) * expansion.image_tokens
        self.image_tokens += image_tokens
        self.tokens += int(text.sum()) + image_tokens + len(expansion.soft_prompt) * len(chosen)
        self.supervised += int(supervised.sum())
        self.shortened += int((cut > 0).sum())
        self.shortened_tokens += int(cut.sum())
        lengths: np.ndarray = text + cut
        return lengths

    def __add__(self, other: Judged) -> Judged:
        """Count two sources together."""
        findings = dict(self.findings)
        for key, found in other.findings.items():
            findings[key] = findings[key] + found if key in findings else found
        return Judged(
            self.read + other.read,
            self.kept + other.kept,
            findings,
            self.tokens + other.tokens,
            self.image_tokens + other.image_tokens,
            self.supervised + other.supervised,
            self.shortened + other.shortened,
            self.shortened_tokens + other.shortened_tokens,
            self.notes + other.notes,
        )

    def summary(self) -> dict[str, Any]:
        """Return plain values for the run folder."""
        return {
            "read": self.read,
            "kept": self.kept,
            "dropped": dict(self.counts("drop")),
            "left_out": dict(self.counts("leave out")),
            "mended": dict(self.counts("mend")),
            "notes": self.notes,
            "shortened": self.shortened,
            "shortened_tokens": self.shortened_tokens,
            "tokens": self.tokens,
            "supervised_share": self.supervised / self.tokens if self.tokens else 0.0,
        }
