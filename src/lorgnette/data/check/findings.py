"""What a check has found in one source: counted by kind, with the first examples and what will be done."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

from lorgnette.data.parts import Part
from lorgnette.data.rendered import Encoded
from lorgnette.data.rules import bad_row, too_many_bad
from lorgnette.data.sample import Sample
from lorgnette.data.writing import ImageNames
from lorgnette.errors import DataError

Action = Literal["stop", "drop", "mend", "keep", "leave out"]
ACTIONS: tuple[Action, ...] = ("stop", "drop", "mend", "keep", "leave out")
"""The row ends what is done with the whole part; is bad and not used; is used after being put right; is used as it is;
is not used because an option says so, and counts neither as read nor as bad."""

EXAMPLES = 3


@dataclass(frozen=True)
class Example:
    """One row with a finding; `place` is file, row and id."""

    place: str
    reason: str


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


@dataclass
class Checked:
    """What was found in a part.

    Attributes:
        read, kept: rows read, rows that can be used.
        findings: kind -> finding.
        variants: way of writing a row -> how many of the first rows.
        lengths: of every kept row, in text tokens before anything is shortened; in characters without a renderer.
        image_tokens, supervised, tokens: of the kept rows in all.
        images: distinct image files of all rows.
        gallery: samples to show.
        names: how the images of a fixed file are called; None where none is to be written.
        rows: the rows of a fixed file as JSON; `rejected` the others, with reasons.
        notes: what else a person should know.
        failure: why the source could not be read to its end.
    """

    part: Part
    max_bad_share: float
    read: int = 0
    kept: int = 0
    findings: dict[str, Finding] = field(default_factory=dict)
    variants: Counter[str] = field(default_factory=Counter)
    lengths: array[int] = field(default_factory=lambda: array("I"))
    tokens: int = 0
    image_tokens: int = 0
    supervised: int = 0
    images: set[str] = field(default_factory=set)
    gallery: list[tuple[Sample, Encoded | None]] = field(default_factory=list)
    names: ImageNames | None = None
    rows: list[str] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failure: str | None = None

    def add(self, kind: str, action: Action, place: str, reason: str, *, fix_drops: bool = False) -> None:
        """Count a row under a kind."""
        finding = self.findings.setdefault(kind, Finding(kind, action, fix_drops))
        finding.count += 1
        if len(finding.examples) < EXAMPLES:
            finding.examples.append(Example(place, reason))

    def drop(self, error: DataError, action: Action = "drop") -> None:
        """Count a row that cannot be used, by its reason."""
        kind, place, reason = bad_row(error)
        self.add(kind, action, place, reason)

    def sorted(self) -> list[Finding]:
        """Return the findings: what stops first, then what drops, mends, keeps; the most frequent first."""
        return sorted(self.findings.values(), key=lambda found: (ACTIONS.index(found.action), -found.count, found.kind))

    def share(self, finding: Finding) -> float:
        """Return the share of the rows that have a finding; of all rows for those left out."""
        return finding.count / max(1, self.read + (finding.count if finding.action == "leave out" else 0))

    @property
    def stop(self) -> str | None:
        """Say why nothing should be trained or measured on this part as it is; None if nothing speaks against it."""
        if self.failure is not None:
            return self.failure
        if self.part.purpose == "test":
            broken = sum(found.count for found in self.findings.values() if found.action == "stop")
            return f"{broken:,} of {self.read:,} documents cannot be asked. Next: mend them." if broken else None
        if not self.read:
            return "no row was read. Next: check path, split and limit."
        if too_many_bad(self.read, self.kept, self.max_bad_share):
            bad = self.read - self.kept
            return (
                f"{bad:,} of {self.read:,} rows ({bad / self.read:.2%}) cannot be used. Allowed: max_bad_share "
                f"{self.max_bad_share:.2%}."
            )
        return None

    @property
    def fixable(self) -> bool:
        """Tell whether a fixed file holds all that can be used, so that nothing speaks against training on it."""
        return self.failure is None and self.part.purpose != "test" and self.kept > 0

    def summary(self) -> dict[str, Any]:
        """Return plain values for a file."""
        return {
            "name": self.part.name,
            "purpose": self.part.purpose,
            "path": self.part.path,
            "format": self.part.format,
            "read": self.read,
            "kept": self.kept,
            "images": len(self.images),
            "variants": dict(self.variants.most_common()),
            "rendered": self.part.renderer is not None,
            "tokens": self.tokens,
            "image_tokens": self.image_tokens,
            "supervised": self.supervised,
            "notes": self.notes,
            "stop": self.stop,
            "findings": [
                {
                    "kind": found.kind,
                    "count": found.count,
                    "share": self.share(found),
                    "action": found.action,
                    "fix_drops": found.fix_drops,
                    "examples": [{"place": example.place, "reason": example.reason} for example in found.examples],
                }
                for found in self.sorted()
            ],
        }
