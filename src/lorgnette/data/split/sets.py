"""Samples to train, val and test, so that nothing that belongs together is parted, the same way on every machine.

Samples about the same image are one group. The order of groups is a hash of the seed and of what they hold, so that it
depends neither on a library's random numbers nor on names, paths or the order of rows.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path, PurePosixPath

from lorgnette.data.findings import Judged
from lorgnette.data.identity import row_key
from lorgnette.data.reading_ahead import read_ahead
from lorgnette.data.rules import BadRow, Usable, judge, too_many_bad, unencoded
from lorgnette.data.sample import Sample
from lorgnette.data.split.grouping import Groups, alike
from lorgnette.data.used_source import UsedSource, words_of
from lorgnette.data.writing import ImageNames, image_names
from lorgnette.errors import DataError, without_advice
from lorgnette.images.store import ImageStore

SETS = ("train", "val", "test")
MOST_KINDS = 5
TOLERANCE = Fraction(1, 100)
"""A set whose share is further off than this is noted: groups are too large to be shared out."""


@dataclass
class Rows:
    """The samples to be split.

    Attributes:
        samples: those that can be used, in the order of the sources.
        things: what groups each of them: the hashes of its images, or a key of its text.
        strata: the source of each, and the first folder of its images.
        rejected: rows that cannot be used: where and of which kind.
        counts: per source: rows read, used, by kind of rejection, left out.
        names: how the images are called.
    """

    samples: list[Sample] = field(default_factory=list)
    things: list[tuple[str, ...]] = field(default_factory=list)
    strata: list[str] = field(default_factory=list)
    rejected: list[dict[str, str]] = field(default_factory=list)
    counts: list[dict[str, object]] = field(default_factory=list)
    names: ImageNames = field(default_factory=lambda: ImageNames(Path(), copied=False))


@dataclass(frozen=True)
class Split:
    """Which rows are in which set: `rows[name]` are numbers of samples; `groups[name]` how many groups they form."""

    rows: dict[str, list[int]]
    groups: dict[str, int]


def parse_shares(text: str) -> dict[str, Fraction]:
    """Read shares such as 70/10/20, 80/20 (no val) or 0.7/0.1/0.2.

    Raises:
        DataError: if they are no two or three numbers, one is negative, train or test is 0, or they do not add up.
    """
    wanted = "Allowed: TRAIN/VAL/TEST or TRAIN/TEST that add up to 100 (or to 1), such as 70/10/20; VAL may be 0."
    try:
        numbers = [Fraction(part.strip()) for part in text.replace(",", "/").split("/")]
    except (ValueError, ZeroDivisionError) as error:
        raise DataError(f"shares {text!r}: no numbers. {wanted}") from error
    if len(numbers) == 2:
        numbers.insert(1, Fraction(0))
    total = sum(numbers)
    if len(numbers) != 3 or total not in (1, 100):
        raise DataError(f"shares {text!r}: {len(numbers)} numbers that add up to {float(total):g}. {wanted}")
    if min(numbers) < 0 or not numbers[0] or not numbers[2]:
        raise DataError(f"shares {text!r}: train and test must be more than 0, val at least 0. {wanted}")
    return {name: number / total for name, number in zip(SETS, numbers, strict=True)}


def read_rows(sources: Sequence[UsedSource], store: ImageStore, max_bad_share: float) -> Rows:
    """Read sources whole; rows that training would not use are rejected, by the same rules.

    Raises:
        DataError: if a source cannot be read, or more than `max_bad_share` of its rows cannot be used.
    """
    rows = Rows()
    owners: list[int] = []
    for number, source in enumerate(sources):
        judged = Judged()
        for row in read_ahead(source.read(), store):
            verdict = judge(row, store.require_image, unencoded)
            judged.count(verdict)
            if isinstance(verdict, Usable):
                rows.samples.append(verdict.sample)
                owners.append(number)
            elif isinstance(verdict, BadRow):
                place = verdict.where.replace(
                    source.path, Path(source.path).name
                )  # without the folders of this machine
                rows.rejected.append({"place": place, "kind": verdict.kind})
        if too_many_bad(judged.read, judged.kept, max_bad_share):
            raise DataError(_too_many(source, judged, max_bad_share))
        rows.counts.append(
            {
                "source": Path(source.path).name,
                "format": source.format,
                "read": judged.read,
                "used": judged.kept,
                "rejected": dict(sorted(judged.counts("drop").items())),
                "left_out": dict(sorted(judged.counts("leave out").items())),
            }
        )
    rows.names = image_names(sources[0].images, sources[0].path, (image for s in rows.samples for image in s.images))
    for owner, sample in zip(owners, rows.samples, strict=True):
        hashes = [str(store.facts(image).sha256) for image in sample.images]
        rows.things.append(tuple(hashes) or (f"text {row_key(sample, ()).hex()}",))
        rows.strata.append(f"{owner}/{_first_folder(sample, rows.names)}")
    return rows


def group_rows(rows: Rows, store: ImageStore, near_duplicates: int | None) -> list[list[int]]:
    """Return numbers of samples by group: those that share an image or, within a distance, one that looks alike."""
    groups = Groups()
    for things in rows.things:
        groups.join(things)
    if near_duplicates is not None:
        seen = {str(facts.sha256): facts for s in rows.samples for facts in map(store.facts, s.images)}
        likenesses = {name: facts.likeness for name, facts in seen.items() if facts.likeness is not None}
        for pair in alike(likenesses, near_duplicates):
            groups.join(pair)
    members: dict[object, list[int]] = {}
    for number, things in enumerate(rows.things):
        members.setdefault(groups.find(things[0]), []).append(number)
    return list(members.values())


def assign(rows: Rows, groups: Iterable[list[int]], shares: dict[str, Fraction], seed: int) -> Split:
    """Deal groups out: source after source in the order of their hashes, each to the set that lacks most rows.

    What a set lacks is carried from one source to the next, so that the shares hold in the whole and, as nearly as
    the groups allow, in every source.

    Raises:
        DataError: if a set that should have rows gets none.
    """
    order = sorted((rows.strata[group[0]], _order(rows, group, seed), group) for group in groups)
    unit = shares["train"].denominator * shares["val"].denominator * shares["test"].denominator
    wanted = {name: int(share * unit) for name, share in shares.items()}
    found: dict[str, list[int]] = {name: [] for name in SETS}
    counts = dict.fromkeys(SETS, 0)
    dealt = 0
    for _, _, group in order:
        dealt += len(group)
        poorest = max(SETS, key=lambda name: wanted[name] * dealt - unit * len(found[name]))
        found[poorest].extend(group)
        counts[poorest] += 1
    empty = [name for name, share in shares.items() if share and not found[name]]
    if empty:
        raise DataError(
            f"{' and '.join(empty)} would be empty: {len(rows.samples):,} samples form only {len(order):,} groups. "
            "Next: give more data, or other shares."
        )
    return Split({name: sorted(numbers) for name, numbers in found.items()}, counts)


def notes(split: Split, shares: dict[str, Fraction], largest: int) -> list[str]:
    """Say where the shares could not be met."""
    total = sum(map(len, split.rows.values()))
    return [
        f"{name} has {len(split.rows[name]) / total:.1%} of the rows instead of {float(share):.1%}: the largest group "
        f"of samples that belong together has {largest:,} rows"
        for name, share in shares.items()
        if abs(Fraction(len(split.rows[name]), total) - share) > TOLERANCE
    ]


def _order(rows: Rows, group: Sequence[int], seed: int) -> str:
    held = sorted({thing for number in group for thing in rows.things[number]})
    return hashlib.sha256("\n".join([str(seed), *held]).encode()).hexdigest()


def _first_folder(sample: Sample, names: ImageNames) -> str:
    folders = PurePosixPath(names.name(sample.images[0])).parts[:-1] if sample.images and not names.copied else ()
    return folders[0] if folders else ""


def _too_many(source: UsedSource, judged: Judged, allowed: float) -> str:
    if not judged.read:
        return f"{source.path}: no row was read. Next: check path, split and format."
    bad = judged.counts("drop").most_common()
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in bad[:MOST_KINDS])
    more = len(bad) - MOST_KINDS
    if more > 0:
        kinds += f" and {more} more kind{'s' * (more > 1)}"
    example = without_advice(str(judged.findings[bad[0][0], "drop"].examples[0]))
    return (
        f"{judged.read - judged.kept:,} of {judged.read:,} rows cannot be used ({kinds}), such as {example} Allowed: "
        f"max_bad_share {allowed:.2%}. Next: `lorgnette data check {shlex.join(words_of(source))} --fix fixed` names "
        "them all and writes the others, to be split; or raise --max-bad-share."
    )
