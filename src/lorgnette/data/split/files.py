"""The files of a split: a LLaVA file a set, the rows that are in none, and the manifest with fingerprints."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from lorgnette import __version__
from lorgnette.data.split.sets import Rows, Split, assign, group_rows, notes, read_rows
from lorgnette.data.used_source import UsedSource
from lorgnette.data.writing import ImageNames, copy_images, llava_list, llava_row, row_json
from lorgnette.errors import InputError
from lorgnette.images.store import ImageStore
from lorgnette.run import whole_folder, write_text

MANIFEST = "manifest.json"
IMAGES = "images"
"""Copies of all images, where some of them came inside the data."""


@dataclass(frozen=True)
class SplitFiles:
    """The files of a split: name -> text; how the images are called; what to say about it, line by line."""

    files: dict[str, str]
    names: ImageNames
    lines: list[str]

    def images_in(self, out: Path) -> Path:
        """Return the folder of the images of a split that is written to `out`."""
        return out / IMAGES if self.names.copied else self.names.root


def split_files(
    sources: Sequence[UsedSource],
    store: ImageStore,
    shares: dict[str, Fraction],
    *,
    seed: int,
    near_duplicates: int | None,
    max_bad_share: float,
) -> SplitFiles:
    """Split sources and return what is to be written.

    Nothing in them depends on the machine, the day, or the folders where the data lies.

    Raises:
        DataError: if a source cannot be read, too many of its rows cannot be used, or a set would be empty.
    """
    rows = read_rows(sources, store, max_bad_share)
    groups = group_rows(rows, store, near_duplicates)
    split = assign(rows, groups, shares, seed)
    files = {
        f"{name}.json": llava_list(row_json(llava_row(rows.samples[number], rows.names)) for number in numbers)
        for name, numbers in split.rows.items()
        if numbers
    }
    if rows.rejected:
        files["rejected.jsonl"] = "".join(f"{row_json(row)}\n" for row in rows.rejected)
    manifest = {
        "kind": "split",
        "lorgnette": __version__,
        "seed": seed,
        "shares": {name: float(share) for name, share in shares.items()},
        "near_duplicates": near_duplicates,
        "sources": rows.counts,
        "images": _images(rows, store),
        "sets": {name: _set(rows, split, name, files) for name in split.rows},
        "groups": {"count": len(groups), "largest": max(map(len, groups))},
        "notes": notes(split, shares, max(map(len, groups))),
    }
    files[MANIFEST] = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    return SplitFiles(files, rows.names, _lines(manifest))


def write_split(out: Path, split: SplitFiles) -> bool:
    """Write the folder of a split, whole or not at all; tell whether it was there already, the same.

    Raises:
        InputError: if the folder holds anything else.
    """
    require_free(out)
    files, pictures = split.files, split.names.named if split.names.copied else {}
    found = {file.relative_to(out).as_posix(): file for file in out.rglob("*") if file.is_file()}
    copies = {f"{IMAGES}/{name}" for name in pictures}
    there = {name: file.read_bytes() for name, file in found.items() if name not in copies}
    if copies <= found.keys() and there == {name: text.encode("utf-8", "replace") for name, text in files.items()}:
        return True
    if found:
        raise InputError(
            f"{out}: holds another split. It is left as it is. Next: choose another folder, or delete this one."
        )
    with whole_folder(out) as unfinished:
        for name, text in files.items():
            write_text(unfinished / name, text)
        copy_images(pictures, unfinished / IMAGES)
    return False


def require_free(out: Path) -> None:
    """Check that a split can be written to a folder.

    Raises:
        InputError: if it is no folder, or holds files of which none is a split's manifest.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file. Next: name a folder that does not exist yet.")
    if out.is_dir() and any(out.iterdir()) and not (out / MANIFEST).is_file():
        raise InputError(f"{out}: is not empty. It is left as it is. Next: name a folder that does not exist yet.")


def _lines(manifest: dict[str, Any]) -> list[str]:
    lines = []
    for source in manifest["sources"]:
        rejected = "".join(f"; {count:,} rejected: {kind}" for kind, count in source["rejected"].items())
        left_out = "".join(f"; {count:,} {kind}" for kind, count in source["left_out"].items())
        lines.append(f"{source['source']}: {source['used']:,} of {source['read']:,} rows{rejected}{left_out}")
    for name, found in manifest["sets"].items():
        lines.append(f"{name}: {found['rows']:,} rows ({found['share']:.2%}), {found['images']:,} images")
    return [*lines, *(f"note: {note}" for note in manifest["notes"])]


def _set(rows: Rows, split: Split, name: str, files: dict[str, str]) -> dict[str, Any]:
    numbers = split.rows[name]
    text = files.get(f"{name}.json")
    return {
        "rows": len(numbers),
        "share": len(numbers) / len(rows.samples),
        "groups": split.groups[name],
        "images": len({thing for number in numbers for thing in rows.things[number] if rows.samples[number].images}),
        "rows_by_source": dict(sorted(Counter(rows.strata[number] for number in numbers).items())),
        "sha256": None if text is None else _sha256(text),
    }


def _images(rows: Rows, store: ImageStore) -> dict[str, Any]:
    """Fingerprint all images, by their names below the images folder and their contents."""
    paths = {path for sample in rows.samples for path in sample.images}
    named = {(rows.names.name(path), str(store.facts(path).sha256)) for path in paths}
    lines = "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(named))
    return {"files": len(named), "distinct": len({sha256 for _, sha256 in named}), "sha256": _sha256(lines)}


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
