"""What a check leaves: the page, the same as numbers, and files without the rows that cannot be used."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lorgnette.data.check.checked import Checked
from lorgnette.data.check.report import write_page
from lorgnette.data.sample import Sample
from lorgnette.data.used_source import UsedSource
from lorgnette.data.writing import ImageNames, copy_images, image_names, llava_list
from lorgnette.errors import InputError
from lorgnette.images.store import ImageStore
from lorgnette.run import write_json, write_json_lines, write_text

REJECTED = "rejected.jsonl"
TITLE = "Check of "
OF_A_CHECK = f'{{\n  "title": "{TITLE}'.encode()
"""How the numbers of a check begin."""


def require_report(page: Path) -> Path:
    """Check that a page and its numbers would overwrite nothing but those of a check; return the path of the numbers.

    Raises:
        InputError: if the page is no HTML file, or there is another file where its numbers go: perhaps the data.
    """
    if page.suffix.lower() not in (".html", ".htm") or page.is_dir():
        raise InputError(f"--report {page}: is no page. Allowed: a file that ends in .html. Nothing was written.")
    numbers = page.with_suffix(".json")
    if numbers.exists() and not (numbers.is_file() and numbers.read_bytes()[: len(OF_A_CHECK)] == OF_A_CHECK):
        raise InputError(
            f"{numbers}: the numbers of the check would go there, and it holds something else. It is left as it is. "
            "Next: --report with another name."
        )
    return numbers


def write_check(page: Path, source: str, checked: Sequence[Checked], store: ImageStore) -> Path:
    """Write the page, and beside it the same as JSON; return the latter's path."""
    numbers, title = require_report(page), f"{TITLE}{source}"
    write_page(page, title, checked, store.asked, store.decoded)
    images = {"asked": store.asked, "decoded": store.decoded}
    write_json(numbers, {"title": title, "images": images, "parts": [found.summary() for found in checked]})
    return numbers


def fixed_names(sources: Sequence[UsedSource]) -> dict[int, str]:
    """Return what the fixed files are called: number of the source -> name. Benchmarks have none."""
    written = [number for number, source in enumerate(sources) if source.purpose != "test"]
    if len(written) == 1:
        return {written[0]: f"{Path(sources[written[0]].path).stem}.json"}
    titles = {number: f"{sources[number].name}-{Path(sources[number].path).stem}" for number in written}
    stems = {number: file_name(title) for number, title in titles.items()}
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


def names_of(source: UsedSource) -> ImageNames:
    """Return how the images of a fixed file are called; reads the source for the names of its images."""
    return image_names(
        source.images, source.path, (i for s in source.read() if isinstance(s, Sample) for i in s.images)
    )


def fixed_source(folder: Path, name: str, found: Checked) -> UsedSource:
    """Return the fixed file of a source as a source."""
    assert found.names is not None
    images = folder / f"{Path(name).stem}-images" if found.names.copied else found.names.root
    return replace(found.source, path=str(folder / name), format="llava", images=str(images), spec=None)


def write_fixed(folder: Path, checked: Sequence[Checked]) -> list[str]:
    """Write the rows that can be used, as LLaVA files, and those that cannot, with reasons; return what is where."""
    said = []
    for number, name in fixed_names([found.source for found in checked]).items():
        found = checked[number]
        write_text(folder / name, llava_list(found.rows))
        if found.names is None:
            continue
        images = fixed_source(folder, name, found).images
        if found.names.copied:
            copy_images(found.names.named, Path(str(images)))
        said.append(f"{len(found.rows):,} rows are in {folder / name}; images are relative to {images}")
    rejected = [row for found in checked for row in found.rejected]
    write_json_lines(folder / REJECTED, rejected)
    return [*said, f"{len(rejected):,} rows are left out; they are in {folder / REJECTED}, with reasons"]


def file_name(text: str) -> str:
    """Make a file name, or a part of one, of any text."""
    return re.sub(r"[^\w.-]+", "-", text)
