"""What a check has found in one source: what became of its rows, and what only a check looks at."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from lorgnette.data.findings import ACTIONS, Finding, Judged
from lorgnette.data.rendered import Encoded
from lorgnette.data.rules import too_many_bad
from lorgnette.data.sample import Sample
from lorgnette.data.used_source import UsedSource
from lorgnette.data.writing import ImageNames


@dataclass
class Checked:
    """What was found in a source.

    Attributes:
        judged: what became of its rows, and what else was found, by kind.
        variants: way of writing a row -> how many of the first rows.
        lengths: of every kept row, in text tokens before anything is shortened; in characters without a renderer.
        images: distinct image files of all rows.
        gallery: samples to show.
        names: how the images of a fixed file are called; None where none is to be written.
        rows: the rows of a fixed file as JSON; `rejected` the others, with reasons.
        failure: why the source could not be read to its end.
    """

    source: UsedSource
    max_bad_share: float
    judged: Judged = field(default_factory=Judged)
    variants: Counter[str] = field(default_factory=Counter)
    lengths: array[int] = field(default_factory=lambda: array("I"))
    images: set[str] = field(default_factory=set)
    gallery: list[tuple[Sample, Encoded | None]] = field(default_factory=list)
    names: ImageNames | None = None
    rows: list[str] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    failure: str | None = None

    def sorted(self) -> list[Finding]:
        """Return the findings: what stops first, then what drops, mends, keeps; the most frequent first."""
        findings = self.judged.findings.values()
        return sorted(findings, key=lambda found: (ACTIONS.index(found.action), -found.count, found.kind))

    def share(self, finding: Finding) -> float:
        """Return the share of the rows that have a finding; of all rows for those left out."""
        return finding.count / max(1, self.judged.read + (finding.count if finding.action == "leave out" else 0))

    @property
    def stop(self) -> str | None:
        """Say why nothing should be trained or measured on this source as it is; None if nothing speaks against it."""
        if self.failure is not None:
            return self.failure
        if self.source.purpose == "test":
            broken = self.judged.counts("stop").total()
            return f"{broken:,} of {self.judged.read:,} documents cannot be asked. Next: mend them." if broken else None
        read, kept = self.judged.read, self.judged.kept
        if not read:
            return "no row was read. Next: check path, split and limit."
        if too_many_bad(read, kept, self.max_bad_share):
            return (
                f"{read - kept:,} of {read:,} rows ({(read - kept) / read:.2%}) cannot be used. Allowed: max_bad_share "
                f"{self.max_bad_share:.2%}."
            )
        return None

    @property
    def fixable(self) -> bool:
        """Tell whether a fixed file holds all that can be used, so that nothing speaks against training on it."""
        return self.failure is None and self.source.purpose != "test" and self.judged.kept > 0

    def summary(self) -> dict[str, Any]:
        """Return plain values for a file."""
        return {
            "name": self.source.name,
            "purpose": self.source.purpose,
            "path": self.source.path,
            "format": self.source.format,
            "read": self.judged.read,
            "kept": self.judged.kept,
            "images": len(self.images),
            "variants": dict(self.variants.most_common()),
            "rendered": self.source.renderer is not None,
            "tokens": self.judged.tokens,
            "image_tokens": self.judged.image_tokens,
            "supervised": self.judged.supervised,
            "notes": self.judged.notes,
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
