"""Bring the images of the remote-sensing corpus to their places, from folders and from archives, and decode each one.

Remembers what was verified and which archives were looked through, so that a second call does only what is left.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from rich.console import Console

from lorgnette.data.archives.unpacking import unpack
from lorgnette.data.archives.volumes import find_archives
from lorgnette.data.remote_sensing.matching import SUFFIXES, Candidate, image_files, match, place
from lorgnette.errors import DataError
from lorgnette.images.opening import open_image
from lorgnette.progress import progress_bar
from lorgnette.run import append_json_line, read_json_lines, read_json_object

IMAGES = "imagenes"
"""The folder of the images, as the Spanish project has it."""

VERIFIED = "verified.jsonl"
"""One line an image that was decoded, with what tells whether the file is still the same."""

BATCH = 256


@dataclass
class Images:
    """What is known about the images that rows name.

    Attributes:
        good: names of those that are in their place and were decoded.
        converted: name -> format that it was converted from, by this call.
        broken: name -> why it cannot be decoded.
        ambiguous: name -> two files that both fit and differ.
    """

    wanted: list[str]
    good: set[str] = field(default_factory=set)
    converted: dict[str, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    ambiguous: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def missing(self) -> list[str]:
        """Those that are not in their place, whatever the reason."""
        return [name for name in self.wanted if name not in self.good]

    @property
    def not_found(self) -> list[str]:
        """Those of which there is no file at all."""
        return [name for name in self.missing if name not in self.broken and name not in self.ambiguous]

    def why_not(self, name: str) -> str:
        """Say why rows about an image cannot be used."""
        if name in self.ambiguous:
            return "several different images fit"
        return "image broken" if name in self.broken else "image missing"

    def keep(self, name: str) -> None:
        """Count an image as good."""
        self.good.add(name)
        self.broken.pop(name, None)
        self.ambiguous.pop(name, None)


def check_placed(images: Images, out: Path, console: Console) -> None:
    """Decode the images that are in their place already, those that an earlier call decoded excepted."""
    verified = {(row.get("image"), row.get("size"), row.get("mtime_ns")) for row in read_json_lines(out / VERIFIED)}
    here = [name for name in images.wanted if (out / IMAGES / name).is_file()]
    new = [name for name in here if (name, *_stamp(out / IMAGES / name)) not in verified]
    for name in set(here) - set(new):
        images.keep(name)
    for name, outcome in _in_parallel(lambda name: _decode(out / IMAGES / name), new, "verifying", console):
        _note(images, name, outcome, out)


def settle(images: Images, candidates: Sequence[Candidate], out: Path, console: Console) -> None:
    """Bring those of the missing images to their places that the candidates hold."""
    found, ambiguous = match(images.missing, candidates)
    images.ambiguous |= {name: (str(one.label), str(other.label)) for name, (one, other) in ambiguous.items()}

    def bring(name: str) -> str | DataError:
        try:
            return place(found[name], out / IMAGES / name)
        except DataError as error:
            return error

    for name, outcome in _in_parallel(bring, list(found), "laying out", console):
        _note(images, name, outcome, out)


def settle_archives(
    images: Images, files: Mapping[Path, PurePosixPath], out: Path, console: Console
) -> tuple[list[str], list[str]]:
    """Unpack archives and take the missing images from them.

    An archive that an earlier call has looked through for the same images is left alone.

    Returns:
        The archives that were refused, with the reason, and the keys of those that were looked through.
    """
    archives, incomplete = find_archives(files if images.missing else ())
    refused = [str(error) for error in incomplete]
    previous = read_json_object(out / "prepared.json") if (out / "prepared.json").is_file() else {}
    seen: list[str] = previous.get("archives_looked_through", [])
    if not set(images.missing) <= set(previous.get("missing", [])):
        seen = []
    stems = {PurePosixPath(name).stem.lower() for name in images.wanted}

    def may_be_wanted(name: str) -> bool:
        path = PurePosixPath(name)
        return path.suffix.lower() in SUFFIXES and path.stem.lower() in stems

    wanted = _digest(images.wanted)
    staged: list[Candidate] = []
    for archive in archives:
        key = _digest([[volume.name, *_stamp(volume)] for volume in archive.volumes])
        if key in seen:
            continue
        folder = out / "unpacked" / f"{key}-{wanted}"  # there after a kill: it is whole
        console.print(f"unpacking {archive.name}", markup=False, soft_wrap=True)
        try:
            if not folder.is_dir():
                unpack(archive, folder, may_be_wanted)
        except DataError as error:
            refused.append(str(error))
            continue
        label = files[archive.volumes[-1]].with_name(archive.name)
        staged += image_files(folder, label, ours=True)
        seen.append(key)
    settle(images, staged, out, console)
    shutil.rmtree(out / "unpacked", ignore_errors=True)
    return refused, seen


def _note(images: Images, name: str, outcome: str | DataError, out: Path) -> None:
    """Record what became of an image."""
    if isinstance(outcome, DataError):
        images.broken[name] = str(outcome)
        return
    images.keep(name)
    if outcome:
        images.converted[name] = outcome
    size, mtime_ns = _stamp(out / IMAGES / name)
    append_json_line(out / VERIFIED, {"image": name, "size": size, "mtime_ns": mtime_ns})


def _decode(file: Path) -> str | DataError:
    try:
        open_image(file)
    except DataError as error:
        return error
    return ""


def _stamp(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def _in_parallel(
    work: Callable[[str], str | DataError], names: Sequence[str], label: str, console: Console
) -> Iterator[tuple[str, str | DataError]]:
    """Work on names in threads, a batch at a time: an interrupt waits for no more than a batch."""
    with progress_bar(console) as progress, ThreadPoolExecutor(os.cpu_count()) as pool:
        task = progress.add_task(label, total=len(names))
        for start in range(0, len(names), BATCH):
            batch = names[start : start + BATCH]
            for name, outcome in zip(batch, pool.map(work, batch), strict=True):
                yield name, outcome
                progress.advance(task)
