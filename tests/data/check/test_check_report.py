"""What a check shows: the page and the terminal are true, self-contained, and safe with hostile data."""

from __future__ import annotations

import base64
import io
import json
import re
from array import array
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import wild_images as wild
from lorgnette.data.check.files import fixed_names, names_of, require_empty, write_check, write_fixed
from lorgnette.data.check.report import bars, percentiles, shown_segments
from lorgnette.data.check.segments import segments, unfinished_answers
from lorgnette.data.check.show import find_row
from lorgnette.data.check.sources import check_sources
from lorgnette.data.check.terminal import print_checked, sample_text
from lorgnette.data.readers import read_samples
from lorgnette.data.rendered import IGNORE_INDEX, Encoded
from lorgnette.data.rendering import Renderer
from lorgnette.data.sample import Sample
from lorgnette.errors import DataError, InputError
from lorgnette.images.store import image_store
from wild_rows import IMAGE_TOKENS, as_source, row, write_rows

HOSTILE = "<script>alert('x')</script> & \"q\" \x1b[31m {{ 7*7 }} [red]x[/red]"


class Page(HTMLParser):
    """Collects tags, attributes and marked text; fails on a tag that is closed in the wrong place."""

    VOID = ("meta", "img")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.text = ""
        self.marked: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "mark":
            self.marked.append("")

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if "mark" in self.open:
            self.marked[-1] += data


def page_of(file: Path, folder: Path, renderer: Renderer | None = None) -> tuple[Page, Any]:
    with image_store(1) as store:
        checked = check_sources([as_source(file, renderer=renderer)], store, 1.0)
        numbers = write_check(folder / "page.html", "a check", checked, store)
    return Page((folder / "page.html").read_text(encoding="utf-8")), json.loads(numbers.read_text(encoding="utf-8"))


def test_the_page_shows_every_finding_the_lengths_and_samples(
    wild_file: Path, tmp_path: Path, renderer: Renderer
) -> None:
    page, numbers = page_of(wild_file, tmp_path, renderer)
    (found,) = numbers["parts"]
    for finding in found["findings"]:
        assert finding["kind"] in page.text
        assert finding["examples"][0]["place"] in page.text
    assert f"{found['kept']} of {found['read']} rows can be used" in page.text
    assert page.tags.count("svg") == 1
    assert page.tags.count("rect") >= 2
    assert page.tags.count("li") >= 12
    assert any(value.startswith("data:image/") for name, value in page.attributes if name == "src")
    assert "blue<|im_end|>" in page.marked
    assert f"image × {IMAGE_TOKENS}" in page.text


def test_the_page_loads_and_runs_nothing(tmp_path: Path) -> None:
    rows = [row(HOSTILE, None, HOSTILE, HOSTILE), row("x", HOSTILE.replace("/", ""), HOSTILE, "yes")]
    page, _ = page_of(write_rows(tmp_path / "x.json", rows), tmp_path)
    assert {"script", "link", "iframe", "object"}.isdisjoint(page.tags)
    assert all(value.startswith("data:") for name, value in page.attributes if name in ("src", "href"))
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "\x1b" not in page.text
    assert "alert('x')" in page.text
    assert "{{ 7*7 }}" in page.text


def test_bars_count_every_length_once() -> None:
    lengths = array("I", [*np.random.default_rng(0).integers(1, 300, 5000).tolist(), 9000, 20_000])
    found = bars(lengths)
    assert sum(bar.count for bar in found) == len(lengths)
    assert len(found) <= 42
    assert found[-1].is_open
    assert found[-1].high == 20_001
    for bar in found:
        assert bar.count == sum(bar.low <= length < bar.high for length in lengths)
    assert bars(array("I", [5, 5, 5])) == bars([5, 5, 5])
    assert [bar.count for bar in bars([5])][-1] == 1
    assert bars([]) == []
    assert percentiles([1, 2, 3, 100]) == {"median": 3, "95 % are at most": 100, "longest": 100}


def test_the_terminal_shows_the_table_and_cannot_be_driven(tmp_path: Path, wild_file: Path) -> None:
    with image_store(1) as store:
        (found,) = check_sources([as_source(wild_file)], store, 0.01)
        rows = [row(HOSTILE, "none" + HOSTILE.replace("/", ""), HOSTILE, HOSTILE)]
        (hostile,) = check_sources([as_source(write_rows(tmp_path / "h.json", rows))], store, 0.01)
    out = io.StringIO()
    for each in (found, hostile):
        print_checked(each, Console(file=out, width=110))
    text = out.getvalue()
    assert re.search(r"image missing\s*│\s*1\s*│\s*3\.85%\s*│ drop", text)
    assert "row 15 (id image missing)" in text.replace("\n", "")
    assert "stop: " in text
    assert "\x1b" not in text
    assert "[red]" in text


def test_supervised_tokens_are_marked_with_colours_and_without(tmp_path: Path, renderer: Renderer) -> None:
    wild.scene().save(tmp_path / "a.png")
    wild.scene(1).save(tmp_path / "b.png")
    rows = [row("x", ["a.png", "b.png"], "<image><image>Что?", "Кот \x1b[2J.", "Where?", "On the table.", tag=False)]
    file = write_rows(tmp_path / "x.json", rows)
    sample = next(read_samples(str(file), "llava"))
    assert isinstance(sample, Sample)
    encoded = renderer.encode(sample)
    found = list(segments(encoded, renderer.template.tokenizer, renderer.image_token_id))
    assert [each.role for each in found] == [
        "read",
        "image",
        "image",
        "read",
        "supervised",
        "read",
        "supervised",
        "read",
    ]
    assert [each.text for each in found if each.role == "supervised"] == [
        "Кот �[2J.<|im_end|>",
        "On the table.<|im_end|>",
    ]
    assert sum(each.tokens for each in found) == len(encoded.input_ids)
    plain = sample_text(found, IMAGE_TOKENS, coloured=False).plain
    assert "⟦On the table.<|im_end|>⟧" in plain
    assert plain.count(f"[image x {IMAGE_TOKENS}]") == 2
    coloured = sample_text(found, IMAGE_TOKENS, coloured=True)
    assert "⟦" not in coloured.plain
    styled = [coloured.plain[span.start : span.end] for span in coloured.spans if span.style == "bold green"]
    assert styled[1] == "On the table.<|im_end|>"
    turns = shown_segments(as_source(file), sample, None)
    assert "".join(each.text for each in turns if each.role == "supervised") == "Кот �[2J.On the table."


def test_an_unfinished_answer_is_seen_in_any_turn(renderer: Renderer) -> None:
    end = renderer.template.tokenizer.convert_tokens_to_ids("<|im_end|>")
    ids = (7, 8, 9, end, 7, 8, 9)
    assert (
        unfinished_answers(
            Encoded(ids, (IGNORE_INDEX, 8, 9, end, IGNORE_INDEX, 8, 9)), renderer.tokenizer, renderer.end_of_turn
        )
        == 1
    )
    assert (
        unfinished_answers(
            Encoded(ids[:5], (IGNORE_INDEX, 8, 9, end, IGNORE_INDEX)), renderer.tokenizer, renderer.end_of_turn
        )
        == 0
    )
    assert (
        unfinished_answers(
            Encoded(ids, (IGNORE_INDEX, 8, 9, IGNORE_INDEX, 7, 8, 9)), renderer.tokenizer, renderer.end_of_turn
        )
        == 2
    )


def test_a_row_is_found_by_id_or_number(wild_file: Path, wild_rows: list[Any], renderer: Renderer) -> None:
    sources = [as_source(wild_file, renderer=renderer)]
    with image_store(1) as store:
        assert find_row(sources, "good-2", store).sample.origin.row == 2
        assert find_row(sources, "2", store).sample.id == "good-2"
        cut = find_row(sources, "image truncated", store)
        assert cut.encoded is None
        assert "This row is not used" in cut.note
        assert "image EXIF-rotated" in find_row(sources, "image EXIF-rotated", store).note
        assert "Shortened by" in find_row(sources, "shortened", store).note
        with pytest.raises(DataError, match="no row has the id or the number '999'"):
            find_row(sources, "999", store)
        with pytest.raises(DataError, match="Allowed: an object"):
            find_row(sources, str(len(wild_rows) - 1), store)


def test_a_fixed_file_reads_back_as_the_rows_that_were_kept(
    wild_file: Path, tmp_path: Path, renderer: Renderer
) -> None:
    used = as_source(wild_file, renderer=renderer)
    with image_store(1) as store:
        checked = check_sources([used], store, 1.0, names_of=names_of)
        lines = write_fixed(tmp_path / "fixed", checked)
        fixed = tmp_path / "fixed" / "train.json"
        assert str(wild_file.parent) in lines[0]  # the images folder
        kept = [each for each in read_samples(str(wild_file), "llava") if isinstance(each, Sample)]
        back = list(read_samples(str(fixed), "llava", images=str(wild_file.parent)))
        by_id = {each.id: each for each in kept}
        assert len(back) == checked[0].judged.kept - 1  # without the duplicate
        for each in back:
            assert isinstance(each, Sample)
            assert (each.images, each.turns) == (by_id[each.id].images, by_id[each.id].turns)
    rejected = [json.loads(line) for line in (tmp_path / "fixed" / "rejected.jsonl").read_text().splitlines()]
    assert len(rejected) == checked[0].judged.read - len(back)
    assert {each["kind"] for each in rejected} == {
        *(found.kind for found in checked[0].judged.findings.values() if found.action == "drop"),
        "duplicate row",
    }
    assert all(each["reason"] and each["source"] == str(wild_file) for each in rejected)
    with pytest.raises(InputError, match="not empty"):
        require_empty(tmp_path / "fixed")


def test_a_fixed_file_has_the_images_that_came_inside_the_data(tmp_path: Path, monkeypatch: Any) -> None:
    wild.scene(1).save(tmp_path / "a.png")
    inside = base64.b64encode((tmp_path / "a.png").read_bytes()).decode()
    broken = base64.b64encode(b"no picture").decode()
    rows = [
        row("inside", f"data:image/png;base64,{inside}", "What is it?", "A shape."),
        row("file", "a.png", "Where?", "Here."),
        row("broken", f"data:image/png;base64,{broken}", "What?", "Nothing."),
    ]
    source = as_source(write_rows(tmp_path / "x.json", rows))
    with image_store(1) as store:
        lines = write_fixed(tmp_path / "fixed", check_sources([source], store, 1.0, names_of=names_of))
    images = tmp_path / "fixed" / "x-images"
    assert lines[0].endswith(f"images are relative to {images}")
    assert len([file for file in images.rglob("*") if file.is_file()]) == 2
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other-cache"))
    for sample in read_samples(str(tmp_path / "fixed" / "x.json"), "llava", images=str(images)):
        assert isinstance(sample, Sample)
        assert Path(sample.images[0]).read_bytes() == (tmp_path / "a.png").read_bytes()


def test_fixed_files_of_several_sources_have_names_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    files = [write_rows(tmp_path / name, []) for name in ("x.json", "b/x.json", "y.json")]
    sources = [as_source(files[0]), as_source(files[1]), as_source(files[2], "validation"), as_source(files[2], "test")]
    assert fixed_names(sources) == {0: "data-x-0.json", 1: "data-x-1.json", 2: "held-out-y.json"}
    assert fixed_names(sources[2:]) == {0: "y.json"}
