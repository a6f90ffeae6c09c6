"""Prepare the remote-sensing instructions of RS-LLaVA: rows that can be trained on, with their images laid out.

The corpus is a JSON file without images (BigData-KSU/RS-instructions-dataset); the images are those of other data sets,
which everybody fetches alone. This keeps the rows of some sets, brings their images to `imagenes/`, decodes every one,
and says what is still missing. A second call does what is left.
"""

from __future__ import annotations

import filecmp
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from rich.console import Console

from lorgnette.data.archives.volumes import FOREIGN
from lorgnette.data.remote_sensing.matching import SETS, SUFFIXES, Candidate, regular_files
from lorgnette.data.remote_sensing.placing import IMAGES, Images, check_placed, settle, settle_archives
from lorgnette.data.writing import llava_list, row_json
from lorgnette.errors import DataError, MissingExtra, nearest
from lorgnette.progress import progress_bar
from lorgnette.run import write_json, write_text

CORPUS = ("NWPU-RSICD-UAV-UCM-LR-DOTA-intrcutions.json", "NWPU-RSICD-UAV-UCM-LR-DOTA-instructions.json")
"""The file's name as it is published, and as it was meant."""

CORPUS_URL = "https://huggingface.co/datasets/BigData-KSU/RS-instructions-dataset"
DEFAULT_KEEP = ("NWPU", "RSICD", "LR", "DOTA")
STRAY = "ocr_vqa"


@dataclass
class Selection:
    """Rows of the corpus that are kept, by image, and those that are not, by reason."""

    rows: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    read: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def drop(self, reason: str, where: str) -> None:
        """Count a row that is not kept."""
        self.dropped[reason] += 1
        self.examples.setdefault(reason, where)


@dataclass
class Prepared:
    """What a call found and did; all of it is in `prepared.json`.

    Attributes:
        rows: how many rows `dataset.json` has.
        refused: archives that were refused or damaged, with the reason.
        by_hand: archives of kinds that have to be unpacked by hand; none where no image is missing.
    """

    source: Path
    keep: Sequence[str]
    selection: Selection
    images: Images
    rows: int
    refused: list[str]
    by_hand: list[str]

    def set_counts(self) -> dict[str, dict[str, int]]:
        """Count the images of each set that is kept."""
        images = self.images
        states: dict[str, Iterable[str]] = {
            "named": images.wanted,
            "in place": images.good,
            "converted now": images.converted,
            "broken": images.broken,
            "ambiguous": images.ambiguous,
            "missing": images.not_found,
        }
        counts = {state: Counter(name.partition("/")[0] for name in names) for state, names in states.items()}
        return {name: {state: counts[state][name] for state in states} for name in self.keep}

    def to_fetch(self) -> list[str]:
        """Say what is still to be fetched by hand, and where to put it."""
        return [
            f"{name}: {counts['missing']:,} of {counts['named']:,} images are missing. Get {SETS[name].fetch}, and put "
            f"it, packed or unpacked, into {self.source / name}"
            for name, counts in self.set_counts().items()
            if counts["missing"]
        ]

    def check(self) -> None:
        """Complain about what is wrong, when everything that could be done is done and written.

        Raises:
            DataError: if no row can be used, or archives were refused. Images that are merely missing are no mistake.
        """
        if not self.rows:
            raise DataError(f"{self.source}: no row can be used. Next: " + ("; ".join(self.to_fetch()) or "see above."))
        if self.refused:
            raise DataError(f"{self.source}: {len(self.refused)} of the archives cannot be used. Next: see above.")


def prepare(
    source: Path,
    out: Path,
    console: Console,
    *,
    keep: Sequence[str] = DEFAULT_KEEP,
    urls: Sequence[str] = (),
    max_download: int = 50 << 30,
) -> Prepared:
    """Bring the corpus and its images to `out`: `dataset.json`, `imagenes/`, `prepared.json`.

    Args:
        source: the JSON file, or a folder with it and with whatever was downloaded: pictures, archives, parts of them.
        urls: what else to fetch, as `URL` or `URL#sha256=HEX`; kept in `out/downloads`.
        max_download: bytes of a single download.

    Raises:
        DataError: if a set is unknown, there is no source, no corpus in it, or it is no list.
        RunError: if a download does not come to its end.
    """
    check_keep(keep)
    if not source.exists():
        raise DataError(f"{source}: there is no such file or folder. Allowed: a folder with {CORPUS[0]}")
    folder = source if source.is_dir() else source.parent
    fetch(urls, out / "downloads", max_download, console)
    files = collect(folder, out)
    corpus = source if source.is_file() else find_corpus(folder, files)
    selection = select(read_corpus(corpus), keep)
    images = Images(sorted({name for name, _ in selection.rows}))
    check_placed(images, out, console)
    loose = [Candidate(file, label, ours=False) for file, label in files.items() if file.suffix.lower() in SUFFIXES]
    settle(images, loose, out, console)
    refused, seen = settle_archives(images, files, out, console)
    rows = [{**row, "image": name} for name, row in selection.rows if name in images.good]
    for name, row in selection.rows:
        if name not in images.good:
            selection.drop(images.why_not(name), f"{name} (id {row.get('id')})")
    by_hand = [str(label) for file, label in files.items() if images.missing and FOREIGN.fullmatch(file.name)]
    done = Prepared(folder, keep, selection, images, len(rows), refused, by_hand)
    write_prepared(done, rows, corpus, seen, out)
    return done


def check_keep(keep: Sequence[str]) -> None:
    """Check the names of sets.

    Raises:
        DataError: if there is no such set, or none at all.
    """
    unknown = [name for name in keep if name not in SETS]
    if unknown or not keep:
        name = unknown[0] if unknown else ""
        raise DataError(f"--keep {name}: Allowed: {', '.join(SETS)}, with commas between.{nearest(name.upper(), SETS)}")


def fetch(urls: Sequence[str], folder: Path, max_bytes: int, console: Console) -> None:
    """Download what the user names.

    Raises:
        DataError, InputError, RunError: as `download`; two URLs that end in the same name.
    """
    if not urls:
        return
    try:
        from lorgnette.data.downloading import download, parse_remote  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtra(error.name or "httpx", "prepare") from error
    remotes = [parse_remote(url) for url in urls]
    (name, number), *_ = Counter(remote.name for remote in remotes).most_common(1)
    if number > 1:
        raise DataError(f"--url: {number} URLs end in {name}. Allowed: one a name. Next: fetch the others by hand.")
    with progress_bar(console) as progress:
        for remote in remotes:
            download(remote, folder, max_bytes=max_bytes, progress=progress)


def collect(folder: Path, out: Path) -> dict[Path, PurePosixPath]:
    """List what was downloaded, each file with its path as a person would say it, without what we made ourselves."""
    ours = [(out / name).resolve() for name in (IMAGES, "unpacked", "downloads")]
    files = {
        file: PurePosixPath(file.relative_to(folder).as_posix())
        for file in regular_files(folder)
        if not any(file.resolve().is_relative_to(one) for one in ours)
    }
    downloads = out / "downloads"
    return files | {
        file: PurePosixPath("downloads", file.relative_to(downloads).as_posix()) for file in regular_files(downloads)
    }


def find_corpus(folder: Path, files: Iterable[Path]) -> Path:
    """Find the corpus by its name.

    Raises:
        DataError: if it is not there, or two files of that name differ.
    """
    found = [file for file in files if file.name in CORPUS]
    if not found:
        raise DataError(
            f"{folder}: the corpus is not in it. Allowed: {CORPUS[0]}. Next: fetch it from {CORPUS_URL}, or add --url "
            f"{CORPUS_URL}/resolve/main/{CORPUS[0]}"
        )
    others = [file for file in found[1:] if not filecmp.cmp(found[0], file, shallow=False)]
    if others:
        raise DataError(f"{found[0]} and {others[0]} differ. Next: name one of them instead of the folder.")
    return found[0]


def read_corpus(file: Path) -> list[Any]:
    """Read the corpus, a JSON list.

    Raises:
        DataError: if it is none.
    """
    try:
        rows = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: cannot be read as JSON ({error}). Next: fetch it anew from {CORPUS_URL}") from error
    if not isinstance(rows, list):
        raise DataError(f"{file}: a JSON {type(rows).__name__}. Allowed: a list of conversations.")
    return rows


def select(rows: Sequence[Any], keep: Sequence[str]) -> Selection:
    """Choose the rows of the sets to keep; count the others by reason."""
    selection = Selection(read=len(rows))
    for number, row in enumerate(rows):
        name, reason = _image_name(row, keep)
        if reason:
            selection.drop(reason, f"row {number}")
        else:
            selection.rows.append((name, row))
    return selection


def _image_name(row: Any, keep: Sequence[str]) -> tuple[str, str]:
    """Return the image of a row as a path below `imagenes`, or why the row is dropped."""
    if not isinstance(row, dict) or not isinstance(row.get("conversations"), list) or not row["conversations"]:
        return "", "no conversation"
    given = row.get("image")
    if not isinstance(given, str):
        return "", "no image named"
    parts = [part for part in given.replace("\\", "/").split("/") if part != "."]
    if parts[:1] == [IMAGES]:
        del parts[0]
    name = "/".join(parts)
    if name.startswith(STRAY):
        return "", f"stray {STRAY} row"
    if not parts or ".." in parts or "" in parts or "\0" in name:
        return "", "the image path leaves its folder"
    return name, _not_kept(name, keep)


def _not_kept(name: str, keep: Sequence[str]) -> str:
    """Say why an image is of no use, or nothing."""
    one = name.partition("/")[0]
    if one not in SETS:
        return "an unknown set"
    if one not in keep:
        return f"set not kept: {one}"
    if not name.startswith(f"{SETS[one].folder}/") or PurePosixPath(name).suffix.lower() not in SUFFIXES:
        return f"no image file in {SETS[one].folder}"
    return ""


def write_prepared(
    done: Prepared, rows: Sequence[Mapping[str, Any]], corpus: Path, seen: Sequence[str], out: Path
) -> None:
    """Write `dataset.json` if there are rows (else an earlier one stays), and `prepared.json`, which is read again."""
    if rows:
        write_text(out / "dataset.json", llava_list(map(row_json, rows)))
    selection, images = done.selection, done.images
    write_json(
        out / "prepared.json",
        {
            "corpus": str(corpus),
            "keep": list(done.keep),
            "rows": {"read": selection.read, "kept": len(rows), "dropped": dict(selection.dropped)},
            "examples": selection.examples,
            "images": done.set_counts(),
            "to_fetch": done.to_fetch(),
            "unpack_by_hand": done.by_hand,
            "refused_archives": done.refused,
            "archives_looked_through": list(seen),
            "converted": images.converted,
            "broken": images.broken,
            "ambiguous": images.ambiguous,
            "missing": images.not_found,
        },
    )
