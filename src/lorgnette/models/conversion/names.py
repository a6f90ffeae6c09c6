"""Key maps: tables from one project's tensor names to another's, applied strictly.

A table maps beginnings of names; `{n}` stands for a number. Every name must match a line of the table, and what comes
out must be exactly what the target asks for: a tensor that nobody accounts for is an error that names it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from lorgnette.errors import ModelError
from lorgnette.models.conversion.weights import Tensors

KeyMap = Mapping[str, str]
"""Beginning of a name -> what stands there instead."""
PartMap = Mapping[str, tuple[str, str]]
"""Beginning of a name -> (part of a LLaVA, what stands there instead within the part)."""
RECOMPUTED = (".rotary_emb.inv_freq", ".embeddings.position_ids")
"""Ends of names of constants that older versions saved; they follow from the configuration and are left out."""
SHOWN = 6


def rename(tensors: Tensors, table: KeyMap, where: str) -> Tensors:
    """Give every tensor its name by the table.

    Raises:
        ModelError: naming tensors that the table does not know.
    """
    patterns = [(_pattern(old), new) for old, new in table.items()]
    renamed: Tensors = {}
    unknown = []
    for name, tensor in tensors.items():
        for pattern, new in patterns:
            if found := pattern.match(name):
                renamed[new.replace("{n}", found[1] if found.lastindex else "") + name[found.end() :]] = tensor
                break
        else:
            unknown.append(name)
    if unknown:
        raise ModelError(f"{where}: {listed(unknown)} belong to no part of this format. Next: check what wrote it.")
    return renamed


def split(tensors: Tensors, table: PartMap, where: str) -> dict[str, Tensors]:
    """Sort tensors into parts by the table, under the names that they have within the part.

    Raises:
        ModelError: naming tensors that belong to no part, or two that claim one place.
    """
    parts: dict[str, Tensors] = {}
    unknown, twice = [], []
    for name, tensor in tensors.items():
        prefix = next((prefix for prefix in table if name.startswith(prefix)), None)
        if prefix is None:
            unknown.append(name)
            continue
        part, inner = table[prefix]
        place = inner + name.removeprefix(prefix)
        if place in parts.setdefault(part, {}):
            twice.append(name)
        parts[part][place] = tensor
    if unknown:
        raise ModelError(f"{where}: {listed(unknown)} belong to no part of this format. Next: check what wrote it.")
    if twice:
        raise ModelError(f"{where}: {listed(twice)} stand there twice under two names. Next: check what wrote it.")
    return parts


def join(parts: Mapping[str, Tensors], table: PartMap) -> Tensors:
    """Give the tensors of parts their names in a file: `split` backwards, by the first fitting line of the table."""
    joined: Tensors = {}
    for part, tensors in parts.items():
        lines = [(inner, prefix) for prefix, (owner, inner) in table.items() if owner == part]
        for name, tensor in tensors.items():
            inner, prefix = next((inner, prefix) for inner, prefix in lines if name.startswith(inner))
            joined[prefix + name.removeprefix(inner)] = tensor
    return joined


def without_recomputed(tensors: Tensors) -> tuple[Tensors, list[str]]:
    """Leave out constants that follow from the configuration; return the rest and a sentence about them, if any."""
    kept = {name: tensor for name, tensor in tensors.items() if not f".{name}".endswith(RECOMPUTED)}
    count = len(tensors) - len(kept)
    return kept, [f"left out {count} constants that follow from the configuration"] if count else []


def require_same(found: Mapping[str, Sequence[int]], expected: Mapping[str, Sequence[int]], where: str) -> None:
    """Check that tensors are exactly those that are expected, in their shapes.

    Raises:
        ModelError: naming what is missing, surplus, or of another shape.
    """
    missing = [name for name in expected if name not in found]
    surplus = [name for name in found if name not in expected]
    shapes = [
        f"{name} {'x'.join(map(str, found[name]))} instead of {'x'.join(map(str, shape))}"
        for name, shape in expected.items()
        if name in found and tuple(found[name]) != tuple(shape)
    ]
    problems = [
        f"{kind}: {listed(names)}"
        for kind, names in (("missing", missing), ("surplus", surplus), ("of another shape", shapes))
        if names
    ]
    if problems:
        raise ModelError(
            f"{where}: {'; '.join(problems)}. Nothing may be missing or left over. Next: check that all files are "
            "there and that the configuration belongs to them."
        )


def shapes_of(tensors: Tensors) -> dict[str, tuple[int, ...]]:
    """Return name -> shape."""
    return {name: tensor.shape for name, tensor in tensors.items()}


def listed(names: Sequence[str]) -> str:
    """Name some tensors and count the others."""
    shown = ", ".join(names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"


def _pattern(prefix: str) -> re.Pattern[str]:
    return re.compile(re.escape(prefix).replace(r"\{n\}", r"(\d+)"))
