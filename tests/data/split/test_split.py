"""Splits: nothing that belongs together is parted, shares hold, and the same input gives the same bytes."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import wild_images as wild
from lorgnette.data.readers import read_samples
from lorgnette.data.split.files import split_files, write_split
from lorgnette.data.split.grouping import Groups, alike
from lorgnette.data.split.sets import Rows, assign, parse_shares
from lorgnette.errors import DataError, InputError
from lorgnette.images.store import image_store
from wild_rows import as_source, row, write_rows


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def made(*files: Path, shares: str = "70/10/20", seed: int = 42, near: int | None = None, bad: float = 0.0) -> Any:
    with image_store(1) as store:
        return split_files(
            [as_source(file) for file in files],
            store,
            parse_shares(shares),
            seed=seed,
            near_duplicates=near,
            max_bad_share=bad,
        )


def sets(split: Any) -> dict[str, list[Any]]:
    return {
        name: json.loads(text) for name, text in split.files.items() if name in ("train.json", "val.json", "test.json")
    }


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """200 rows about 50 images in two folders, some of them copies and near-copies, and 20 without an image."""
    folder = tmp_path / "set"
    rows = []
    for number in range(50):
        name = f"{'ab'[number % 2]}/{number}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        wild.scene(number // 2 if number >= 40 else number + 100, side=32 + number % 2).save(folder / name)
        rows += [row(f"{number}-{q}", name, f"What is {q}?", "yes") for q in range(4)]
    (folder / "a" / "copy.png").write_bytes((folder / "b" / "1.png").read_bytes())
    rows.append(row("copy", "a/copy.png", "What is it?", "yes"))
    rows += [row(f"text-{number}", None, f"Say {number // 2}", "yes") for number in range(20)]
    return write_rows(folder / "data.json", rows)


def test_no_image_and_no_text_is_in_two_sets(dataset: Path) -> None:
    found = sets(made(dataset))
    assert sum(map(len, found.values())) == 221
    where: dict[object, set[str]] = {}
    for name, rows in found.items():
        for each in rows:
            image = each.get("image")
            key = (
                hashlib.sha256((dataset.parent / image).read_bytes()).digest()
                if image
                else each["conversations"][0]["value"]
            )
            where.setdefault(key, set()).add(name)
    assert len(where) == 60
    assert {len(names) for names in where.values()} == {1}


def test_shares_hold_in_the_whole_and_in_every_source(dataset: Path) -> None:
    split = made(dataset)
    manifest = json.loads(split.files["manifest.json"])
    assert manifest["notes"] == []
    by_source = Counter[str]()
    for name, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
        found = manifest["sets"][name]
        assert found["share"] == pytest.approx(share, abs=0.02)
        by_source.update(found["rows_by_source"])
    assert set(by_source) == {"0/", "0/a", "0/b"}
    for name, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
        for source, rows in manifest["sets"][name]["rows_by_source"].items():
            assert abs(rows - share * by_source[source]) <= 5, (name, source)  # a group has 4 rows, or 5


def test_the_same_input_gives_the_same_files_wherever_it_lies(dataset: Path, tmp_path: Path, monkeypatch: Any) -> None:
    first = made(dataset, near=3)
    moved = dataset.parent.rename(tmp_path / "elsewhere with space")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "new-cache"))
    monkeypatch.chdir(moved)
    assert made(Path("data.json"), near=3).files == first.files
    assert made(moved / "data.json", near=3, seed=43).files != first.files


def test_images_inside_the_data_are_copied_and_called_the_same_everywhere(tmp_path: Path, monkeypatch: Any) -> None:
    rows = []
    (tmp_path / "a" / "b").mkdir(parents=True)
    for number in range(20):
        file = tmp_path / "a" / "b" / f"{number}.png"
        wild.scene(number, side=32).save(file)
        rows.append(row(f"file-{number}", f"b/{number}.png", f"What is {number}?", "yes"))
        wild.scene(100 + number, side=32).save(tmp_path / "inside.png")
        inside = base64.b64encode((tmp_path / "inside.png").read_bytes()).decode()
        rows.append(row(f"inside-{number}", f"data:image/png;base64,{inside}", f"Where is {number}?", "there"))
    source = write_rows(tmp_path / "a" / "data.json", rows)
    first = made(source)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "quite" / "another" / "cache"))
    split = made(source)
    assert split.files == first.files
    out = tmp_path / "out"
    assert write_split(out, split) is False
    assert write_split(out, split) is True
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty-cache"))  # it may be deleted at any time
    before = {
        hashlib.sha256(Path(i).read_bytes()).hexdigest() for s in read_samples(str(source), "llava") for i in s.images
    }
    found = [
        sample
        for name in ("train", "val", "test")
        for sample in read_samples(str(out / f"{name}.json"), "llava", images=str(split.images_in(out)))
    ]
    assert len(found) == 40
    assert {hashlib.sha256(Path(i).read_bytes()).hexdigest() for s in found for i in s.images} == before
    next((out / "images").rglob("*.png")).unlink()
    with pytest.raises(InputError, match="holds another split"):
        write_split(out, split)


def test_files_are_pinned(tmp_path: Path) -> None:
    """The order comes from hashes of content alone, so this holds on every machine."""
    rows = [row(f"r{number}", None, f"вопрос {number}", "да") for number in range(40)]
    split = made(write_rows(tmp_path / "x.json", rows))
    digests = {name: hashlib.sha256(text.encode()).hexdigest()[:12] for name, text in split.files.items()}
    del digests["manifest.json"]  # has the version
    assert digests == {"train.json": "8315d39453e0", "val.json": "3f663a406290", "test.json": "65393469bfb3"}


def test_near_duplicates_stay_together(tmp_path: Path) -> None:
    rows = []
    for number in range(30):
        wild.scene(number, side=64).save(tmp_path / f"{number}.png")
        wild.scene(number, side=64).resize((50, 70)).save(tmp_path / f"{number}-small.jpg", quality=70)
        rows += [
            row(f"{number}", f"{number}.png", "What?", "cat"),
            row(f"{number}", f"{number}-small.jpg", "What?", "cat"),
        ]
    file = write_rows(tmp_path / "x.json", rows)

    def parted(near: int | None) -> int:
        where: dict[str, set[str]] = {}
        for name, found in sets(made(file, near=near)).items():
            for each in found:
                where.setdefault(each["id"], set()).add(name)
        return sum(len(names) > 1 for names in where.values())

    assert parted(None) > 0
    assert parted(6) == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), max_size=30), st.integers(0, 8), st.data())
def test_slices_find_what_comparing_all_pairs_finds(hashes: list[int], distance: int, data: st.DataObject) -> None:
    flips = data.draw(st.lists(st.tuples(st.integers(0, 29), st.sets(st.integers(0, 63), max_size=9)), max_size=10))
    hashes += [hashes[n] ^ sum(1 << bit for bit in bits) for n, bits in flips if n < len(hashes)]
    named = {str(number): bits for number, bits in enumerate(hashes)}
    fast, plain = Groups(), Groups()
    for pair in alike(named, distance):
        fast.join(pair)
    for one, a in named.items():
        for two, b in named.items():
            if (a ^ b).bit_count() <= distance:
                plain.join((one, two))
    for one in named:
        for two in named:
            assert (fast.find(one) == fast.find(two)) == (plain.find(one) == plain.find(two))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=12, max_size=80),
    st.sampled_from(["70/10/20", "80/0/20", "33.5/33.5/33", "0.5/0.25/0.25"]),
    st.integers(0, 5),
)
def test_groups_are_dealt_whole_and_shares_are_met_to_a_group(sizes: list[int], shares: str, seed: int) -> None:
    groups, rows = [], Rows()
    for number, size in enumerate(sizes):
        groups.append(list(range(len(rows.samples), len(rows.samples) + size)))
        rows.samples += [None] * size  # type: ignore[list-item]
        rows.things += [(f"image {number}",)] * size
        rows.strata += [f"source {number % 3}"] * size
    wanted = parse_shares(shares)
    try:
        split = assign(rows, groups, wanted, seed)
    except DataError:
        return  # a set would be empty
    dealt = [number for numbers in split.rows.values() for number in numbers]
    assert sorted(dealt) == list(range(sum(sizes)))
    for numbers in split.rows.values():
        for group in groups:
            assert set(group) <= set(numbers) or not set(group) & set(numbers)
    for name, share in wanted.items():
        assert abs(len(split.rows[name]) - share * sum(sizes)) <= 2 * max(sizes)
        assert share or not split.rows[name]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("70/10/20", (70, 10, 20)),
        ("80/20", (80, 0, 20)),
        ("80/0/20", (80, 0, 20)),
        ("0.7/0.1/0.2", (70, 10, 20)),
        (" 33.3 / 33.3 / 33.4 ", ("33.3", "33.3", "33.4")),
    ],
)
def test_shares_are_read_exactly(text: str, expected: tuple) -> None:
    assert tuple(parse_shares(text).values()) == tuple(Fraction(each) / 100 for each in expected)


@pytest.mark.parametrize(
    "text",
    [
        "70/10/10",
        "70/20/20",
        "100",
        "70/10/10/10",
        "a/b/c",
        "110/-30/20",
        "0/20/80",
        "80/20/0",
        "1/0/0",
        "",
        "nan/1/2",
        "1/0",
    ],
)
def test_shares_that_do_not_add_up_are_refused(text: str) -> None:
    with pytest.raises(DataError, match="70/10/20"):
        parse_shares(text)


def test_rows_that_cannot_be_used_are_in_no_set(tmp_path: Path) -> None:
    rows = [row(f"{number}", None, f"Say {number}", "yes") for number in range(30)]
    rows += [row("missing", "none.png", "What?", "cat"), {"id": "no turns"}]
    file = write_rows(tmp_path / "x.json", rows)
    with pytest.raises(DataError, match="2 of 32 rows cannot be used"):
        made(file, bad=0.05)
    split = made(file, bad=0.1)
    rejected = [json.loads(line) for line in split.files["rejected.jsonl"].splitlines()]
    assert [each["kind"] for each in rejected] == ["image missing", "no conversation"]
    assert str(tmp_path) not in "".join(split.files.values())
    assert any("1 rejected: image missing" in line for line in split.lines)


def test_a_set_that_would_be_empty_is_an_error(tmp_path: Path) -> None:
    wild.scene().save(tmp_path / "a.png")
    rows = [row(str(number), "a.png", f"What {number}?", "cat") for number in range(9)]
    with pytest.raises(DataError, match="form only 1 groups"):
        made(write_rows(tmp_path / "x.json", rows))


def test_shares_that_the_groups_do_not_allow_are_noted(tmp_path: Path) -> None:
    wild.scene().save(tmp_path / "a.png")
    rows = [row(str(number), "a.png", f"What {number}?", "cat") for number in range(50)]
    rows += [row(f"t{number}", None, f"Say {number}", "yes") for number in range(10)]
    split = made(write_rows(tmp_path / "x.json", rows))
    assert any("the largest group of samples that belong together has 50 rows" in line for line in split.lines)


def test_a_split_is_written_once_and_never_over_anything(tmp_path: Path) -> None:
    rows = [row(str(number), None, f"Say {number}", "yes") for number in range(30)]
    split = made(write_rows(tmp_path / "x.json", rows), shares="80/20")
    out = tmp_path / "out"
    assert write_split(out, split) is False
    assert sorted(file.name for file in out.iterdir()) == ["manifest.json", "test.json", "train.json"]
    assert write_split(out, split) is True
    with pytest.raises(InputError, match="holds another split"):
        write_split(out, replace(split, files=split.files | {"train.json": "[]"}))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("three years of work")
    with pytest.raises(InputError, match="not empty"):
        write_split(tmp_path / "mine", split)
    assert (tmp_path / "mine" / "thesis.tex").exists()
