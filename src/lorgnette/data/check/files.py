"""What a check leaves: the page, the same as numbers, and files without the rows that cannot be used."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from lorgnette.data.check.findings import Checked, place_of
from lorgnette.data.check.report import shown_segments, write_page, write_sample_page
from lorgnette.data.check.segments import printable
from lorgnette.data.check.show import find_row
from lorgnette.data.check.terminal import sample_text
from lorgnette.data.image_store import ImageStore
from lorgnette.data.parts import Part
from lorgnette.data.sample import Sample
from lorgnette.data.writing import ImageNames, copy_images, image_names, llava_list, row_json
from lorgnette.errors import InputError
from lorgnette.run import write_json, write_text

REJECTED = "rejected.jsonl"


def write_check(page: Path, title: str, checked: Sequence[Checked], store: ImageStore) -> Path:
    """Write the page, and beside it the same as JSON; return the latter's path."""
    write_page(page, title, checked, store.asked, store.decoded)
    numbers = page.with_suffix(".json")
    images = {"asked": store.asked, "decoded": store.decoded}
    write_json(numbers, {"title": title, "images": images, "parts": [found.summary() for found in checked]})
    return numbers


def fixed_names(parts: Sequence[Part]) -> dict[int, str]:
    """Return what the fixed files are called: number of the part -> name. Benchmarks have none."""
    written = [number for number, part in enumerate(parts) if part.purpose != "test"]
    if len(written) == 1:
        return {written[0]: f"{Path(parts[written[0]].path).stem}.json"}
    titles = {number: f"{parts[number].name}-{Path(parts[number].path).stem}" for number in written}
    stems = {number: _file_name(title) for number, title in titles.items()}
    twice = {stem for stem in stems.values() if list(stems.values()).count(stem) > 1}
    return {number: f"{stem}-{number}.json" if stem in twice else f"{stem}.json" for number, stem in stems.items()}


def require_empty(folder: Path) -> None:
    """Check that fixed files can be written to a folder.

    Raises:
        InputError: if it holds something; the data itself may lie there.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            f"{folder}: is not empty. It is left as it is. Next: --fix with a folder that does not exist yet."
        )


def names_of(part: Part) -> ImageNames:
    """Return how the images of a fixed file are called; reads the source for the names of its images."""
    return image_names(part.images, part.path, (i for s in part.read() if isinstance(s, Sample) for i in s.images))


def write_fixed(folder: Path, checked: Sequence[Checked]) -> list[str]:
    """Write the rows that can be used, as LLaVA files, and those that cannot, with reasons; return what is where."""
    said = []
    for number, name in fixed_names([found.part for found in checked]).items():
        found = checked[number]
        write_text(folder / name, llava_list(found.rows))
        if found.names is None:
            continue
        images = folder / f"{Path(name).stem}-images" if found.names.copied else found.names.root
        if found.names.copied:
            copy_images(found.names.named, images)
        said.append(f"{len(found.rows):,} rows are in {folder / name}; images are relative to {images}")
    rejected = [row for found in checked for row in found.rejected]
    write_text(folder / REJECTED, "".join(f"{row_json(row)}\n" for row in rejected))
    return [*said, f"{len(rejected):,} rows are in {folder / REJECTED}, with reasons"]


def show_row(parts: Sequence[Part], wanted: str, page: Path, store: ImageStore, console: Console) -> Path:
    """Print one row as it is trained, and write a page with its images beside the check's; return the page.

    Raises:
        DataError: if there is no such row, or it cannot be read as a sample.
    """
    shown = find_row(parts, wanted, store)
    part, sample = shown.part, shown.sample
    pieces = shown_segments(part, sample, shown.encoded)
    console.print(f"{part.name}: {printable(place_of(sample))}", markup=False, style="bold", soft_wrap=True)
    tokens = part.renderer.expansion.image_tokens if part.renderer else 0
    console.print(sample_text(pieces, tokens, coloured=console.color_system is not None), soft_wrap=True)
    if shown.encoded is not None:
        supervised = sum(piece.tokens for piece in pieces if piece.role == "supervised")
        text = sum(piece.tokens for piece in pieces if piece.role != "image")
        console.print(f"{text:,} text tokens, {supervised:,} of them supervised; {len(sample.images)} images")
    for image in sample.images:
        console.print(printable(image), markup=False, style="dim", soft_wrap=True)
    if shown.note:
        console.print(printable(shown.note), markup=False, soft_wrap=True)
    file = page.with_name(f"{page.stem}-{_file_name(wanted)[:80]}.html")
    write_sample_page(file, place_of(sample), part, sample, shown.encoded, shown.note)
    return file


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "-", text)
