"""Say whether two results can be compared, what differs between them if not, and which documents they share.

Two results are comparable only if the same questions were asked in the same words and scored in the same way;
everything else is refused, because a difference would then say nothing about the models.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from lorgnette.comparison.reading import Result
from lorgnette.errors import DataError
from lorgnette.evaluation.schema import Answer

SCORED = ("task", "metric")
"""What may never differ: there would be no common number."""
ASKED = ("prompt", "options", "decoding")
"""How the questions were asked."""
PLACES = ("options.path", "options.images")
"""Where documents lie says nothing about them."""
TOLD = ("data.split", "data.limit")
"""What explains why documents differ; no obstacle where they do not."""
LONGEST_VALUE = 160


class Pair(NamedTuple):
    """Two results on the same documents, in the same order, and what must be said about them."""

    before: Result
    after: Result
    notes: tuple[str, ...]


def pair(before: Result, after: Result, names: tuple[str, str], *, intersect: bool = False) -> Pair:
    """Pair two results by document id, in the order of ids.

    Args:
        names: what the two are called in messages.
        intersect: keep the documents that are equal in both, whatever else differs; the notes say what does.

    Raises:
        DataError: the message lists everything that differs, not only the first.
    """
    differ = [*_conditions(before.summary, after.summary, names), *_documents(before, after, names)]
    refused = f"Cannot compare {before.folder} ({names[0]}) with {after.folder} ({names[1]})"
    never = [name for name in SCORED if before.summary[name] != after.summary[name]]
    common = sorted(_equal_documents(before, after))
    if differ and (never or not intersect):
        remedy = "evaluate both in the same way" + ("." if never else ", or add --intersect to compare what is equal.")
        raise DataError(f"{refused}. What differs:\n  " + "\n  ".join(differ) + f"\nNext: {remedy}")
    if not common:
        raise DataError(f"{refused}: no document is in both and equal. Next: evaluate both on the same data.")
    notes = [f"{line} (allowed by --intersect)" for line in differ]
    if differ:
        notes.append(
            f"compared on the {len(common):,} documents that are equal in both; each answer keeps the score that it "
            "got in its own full set"
        )
    return Pair(_restricted(before, common), _restricted(after, common), tuple(notes))


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the leaves of a nested mapping as dotted names and texts."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
            yield f"{prefix}{name}", text


def _conditions(before: Mapping[str, Any], after: Mapping[str, Any], names: tuple[str, str]) -> list[str]:
    """List every condition that has another value in the other result."""
    compared = (*SCORED, *ASKED)
    first, second = (dict(flat({name: s[name] for name in compared if name in s})) for s in (before, after))
    return [
        f"{name}: {_against(first.get(name), second.get(name), names)}"
        for name in dict.fromkeys([*first, *second])
        if name not in PLACES and first.get(name) != second.get(name)
    ]


def _documents(before: Result, after: Result, names: tuple[str, str]) -> list[str]:
    """List how the documents of two results differ: how many are in one only or say something else, and examples."""
    first, second = ({row.id: row for row in result.predictions} for result in (before, after))
    lines = [
        f"documents: {len(ids):,} only in {name} ({_some(ids)})"
        for name, ids in (
            (names[0], sorted(first.keys() - second.keys())),
            (names[1], sorted(second.keys() - first.keys())),
        )
        if ids
    ]
    changed = sorted((first.keys() & second.keys()) - _equal_documents(before, after))
    if changed:
        a, b = (_content(rows[changed[0]]) for rows in (first, second))
        name = next(name for name in a if a[name] != b[name])
        lines.append(
            f"documents: {len(changed):,} with the same id and another content ({_some(changed)}); {name} of "
            f"{changed[0]!r} is {_against(a[name], b[name], names)}"
        )
    one, other = (_flat_data(result).get("data.fingerprint") for result in (before, after))
    if not lines and None not in (one, other) and one != other:
        reason = "all texts are equal, so the images differ, or one result does not know them"
        lines.append(f"data.fingerprint: {_against(one, other, names)}; {reason}")
    if lines:
        told = [(name, *(_flat_data(result).get(name) for result in (before, after))) for name in TOLD]
        told = [("n", f"{len(first):,}", f"{len(second):,}"), *told]
        lines += [f"{name}: {x} in {names[0]}, {y} in {names[1]}" for name, x, y in told if x != y]
    return lines


def _flat_data(result: Result) -> dict[str, str]:
    data = result.summary.get("data")
    return dict(flat({"data": data})) if isinstance(data, dict) else {}


def _content(row: Answer) -> dict[str, object]:
    """Return what makes a document the same document; where its image lies is no part of it."""
    return {
        "question": row.question,
        "reference": row.references,
        "kind": row.kind,
        "groups": dict(row.groups),
        "prompt": row.prompt,
    }


def _equal_documents(before: Result, after: Result) -> set[str]:
    """Return the ids of the documents that both results have with the same content.

    A filled prompt belongs to the content where both results filled the same one: then it shows what else the
    document holds, such as the options of multiple choice.
    """
    prompts = before.summary["prompt"] == after.summary["prompt"]
    second = {row.id: row for row in after.predictions}
    return {
        row.id
        for row in before.predictions
        if row.id in second and _content(row) == _content(second[row.id]) | ({} if prompts else {"prompt": row.prompt})
    }


def _restricted(result: Result, ids: Sequence[str]) -> Result:
    """Keep only some documents of a result, in the given order."""
    rows = {row.id: row for row in result.predictions}
    return replace(result, predictions=tuple(rows[id] for id in ids))


def _some(ids: Sequence[str]) -> str:
    """Show the first ids of a list that may be long."""
    return ", ".join(repr(id)[:40] for id in ids[:3]) + (", ..." if len(ids) > 3 else "")


def _against(first: object, second: object, names: tuple[str, str]) -> str:
    """Show two values that differ; of long ones the stretch in which they begin to."""
    texts = ["nothing" if value is None else repr(value) for value in (first, second)]
    same = len(os.path.commonprefix(texts))
    start = max(0, same - LONGEST_VALUE // 4) if max(map(len, texts)) > LONGEST_VALUE else 0
    shown = []
    for text in texts:
        stretch = text[start : start + LONGEST_VALUE]
        left, right = "..." if start else "", "..." if start + LONGEST_VALUE < len(text) else ""
        shown.append(f"{left}{stretch}{right}")
    return f"{shown[0]} in {names[0]}, {shown[1]} in {names[1]}"
