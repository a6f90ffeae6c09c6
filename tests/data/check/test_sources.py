"""A check finds every kind, counts it once, and drops exactly the rows that training drops."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import wild_images as wild
from lorgnette.data.check.checked import Checked
from lorgnette.data.check.files import names_of
from lorgnette.data.check.sources import check_sources
from lorgnette.data.dataset import RenderedSamples, render_all
from lorgnette.data.findings import Finding, Judged
from lorgnette.data.readers import read_samples
from lorgnette.data.reading_ahead import read_ahead
from lorgnette.data.rendered import soft_prompt_ids
from lorgnette.data.rendering import Renderer
from lorgnette.data.split.sets import read_rows
from lorgnette.data.used_source import UsedSource
from lorgnette.errors import DataError
from lorgnette.images.store import image_store
from wild_rows import IMAGE_TOKENS, LONG, as_source, row, write_rows

DROPPED = {
    **dict.fromkeys(wild.BROKEN, 1),
    "image missing": 1,
    "tags and images differ": 1,
    "order of roles": 1,
    "unknown role": 1,
    "empty turn": 1,
    "too long": 1,
    "row is no object": 1,
}


def check(*sources: UsedSource, share: float = 1.0, fix: bool = False, workers: int = 1) -> list[Checked]:
    with image_store(workers) as store:
        return check_sources(sources, store, share, names_of=names_of if fix else None)


def train_on(file: Path, renderer: Renderer, share: float) -> tuple[RenderedSamples, Judged]:
    """Read a file as a stage does."""
    with image_store(1) as store:
        samples = read_ahead(read_samples(str(file), "llava"), store)
        return render_all(samples, renderer, share, None, store.require_image)


def counts(checked: Checked, action: str) -> dict[str, int]:
    return {found.kind: found.count for found in checked.sorted() if found.action == action}


def finding(checked: Checked, kind: str) -> Finding:
    return next(found for found in checked.sorted() if found.kind == kind)


def test_every_kind_is_found_and_counted(wild_file: Path, renderer: Renderer) -> None:
    (found,) = check(as_source(wild_file, renderer=renderer))
    assert found.failure is None
    assert counts(found, "drop") == DROPPED
    mended = counts(found, "mend")
    assert {kind: mended.pop(kind) for kind in wild.ODD} == dict.fromkeys(wild.ODD, 1)
    assert mended.pop("too long, shortened") == 1
    assert list(mended.values()) == [1], mended  # the tag that the reader put in
    assert counts(found, "keep") == {"duplicate image": 2, "duplicate row": 1}
    assert found.judged.read == 26
    assert found.judged.kept == found.judged.read - sum(DROPPED.values())
    assert len(found.lengths) == found.judged.kept


def test_findings_point_to_their_first_rows(wild_file: Path, wild_rows: list[Any], renderer: Renderer) -> None:
    (found,) = check(as_source(wild_file, renderer=renderer))
    for kind in (*wild.BROKEN, *wild.ODD, "image missing"):
        number = next(n for n, r in enumerate(wild_rows) if isinstance(r, dict) and r["id"] == kind)
        assert finding(found, kind).examples[0].place == f"{wild_file}, row {number} (id {kind})"
    twin = finding(found, "duplicate row").examples[0]
    assert twin.place.endswith("(id copy)")
    assert "row 0 (id good-0)" in twin.reason


def test_training_drops_the_same_rows_for_the_same_reasons(wild_file: Path, renderer: Renderer) -> None:
    (found,) = check(as_source(wild_file, renderer=renderer))
    rendered, judged = train_on(wild_file, renderer, 1.0)
    assert len(rendered) == judged.kept == found.judged.kept
    assert judged.counts("drop") == found.judged.counts("drop") == DROPPED
    assert judged.findings.items() <= found.judged.findings.items()  # to the places; the others only a check can find
    assert replace(judged, findings={}) == replace(found.judged, findings={})
    assert judged.shortened == counts(found, "mend")["too long, shortened"]


def test_a_split_uses_the_same_rows_as_training_does_without_a_tokenizer(wild_file: Path) -> None:
    (found,) = check(as_source(wild_file))
    with image_store(1) as store:
        rows = read_rows([as_source(wild_file)], store, 1.0)
    (split,) = rows.counts
    assert (split["read"], split["used"]) == (found.judged.read, found.judged.kept)
    assert split["rejected"] == found.judged.counts("drop")
    assert len(rows.samples) == found.judged.kept


def test_a_soft_prompt_counts_the_same_for_both(wild_file: Path, renderer: Renderer) -> None:
    template, image = renderer.template, renderer.image_token_id
    soft = Renderer(template, image, IMAGE_TOKENS, renderer.max_text_tokens, soft_prompt=soft_prompt_ids(4))
    (plain,) = check(as_source(wild_file, renderer=renderer))
    (found,) = check(as_source(wild_file, renderer=soft))
    _, judged = train_on(wild_file, soft, 1.0)
    assert judged.tokens == found.judged.tokens == plain.judged.tokens + 4 * judged.kept
    assert found.lengths == plain.lengths  # text tokens, which a soft prompt is not


def test_too_many_bad_rows_stop_both(wild_file: Path, renderer: Renderer) -> None:
    bad = sum(DROPPED.values()) / 26
    for share in (bad + 0.001, bad - 0.001):
        (found,) = check(as_source(wild_file, renderer=renderer), share=share)
        try:
            train_on(wild_file, renderer, share)
            stopped = False
        except DataError:
            stopped = True
        assert stopped == (found.stop is not None) == (share < bad)


def test_lengths_and_shares_are_those_of_the_rendered_rows(tmp_path: Path, renderer: Renderer) -> None:
    wild.scene().save(tmp_path / "a.png")
    rows = [row("a", "a.png", "What is this?", "A cat."), row("b", None, "Where?", "On the table.")]
    (found,) = check(as_source(write_rows(tmp_path / "x.json", rows), renderer=renderer))
    rendered = [renderer.render(sample) for sample in read_samples(str(tmp_path / "x.json"), "llava")]
    assert found.judged.tokens == sum(len(each.input_ids) for each in rendered)
    assert found.judged.supervised == sum(each.supervised for each in rendered)
    assert found.judged.image_tokens == IMAGE_TOKENS
    assert list(found.lengths) == [len(rendered[0].input_ids) - IMAGE_TOKENS, len(rendered[1].input_ids)]


def test_an_answer_that_lost_its_end_of_turn_is_found_in_the_labels(tmp_path: Path, renderer: Renderer) -> None:
    rows = [row("whole", None, "What is this?", "A cat."), row("cut", None, "What is this?", LONG)]
    rows += [row("nothing left", None, LONG * 3, "A cat.")]
    cut = Renderer(renderer.template, renderer.image_token_id, IMAGE_TOKENS, 30, "cut_end")
    (found,) = check(as_source(write_rows(tmp_path / "x.json", rows), renderer=cut))
    assert finding(found, "no end of turn in the labels").examples[0].place.endswith("(id cut)")
    assert counts(found, "keep") == {"no end of turn in the labels": 1}
    assert counts(found, "drop") == {"no supervised token": 1}


def test_several_processes_find_the_same(wild_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (one,) = check(as_source(wild_file))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other-cache"))
    (two,) = check(as_source(wild_file), workers=2)
    assert one.summary() == two.summary()


def test_leaks_are_found_by_content_and_by_words(tmp_path: Path) -> None:
    for number in range(3):
        wild.scene(number).save(tmp_path / f"{number}.png")
    (tmp_path / "renamed.png").write_bytes((tmp_path / "0.png").read_bytes())
    telling = "Which of the animals in the picture is standing on the left side of the table, and what does it hold?"
    held = [
        row("q", "0.png", "What is this?", "A cat."),
        row("t", "2.png", telling, "A cat with a red cup."),
        row("chat", None, "Hello, who are you?", "A model."),
    ]
    rows = [
        row("same question", "renamed.png", "Where?", "Here.", "  what is THIS? ", "A dog."),
        row("same image", "renamed.png", "Is it red?", "no"),
        row("same words", "1.png", telling, "A cat with a red cup."),
        row("short words", "1.png", "What is this?", "A cat."),
        row("chat", None, "hello,  who are you?", "A model."),
        row("other chat", None, "Hello, who are you?", "Nobody."),
    ]
    train = write_rows(tmp_path / "train.json", rows)
    val = write_rows(tmp_path / "val.json", held)
    found, _ = check(as_source(train), as_source(val, "validation"), fix=True)
    kinds = {each.kind: [example.place.split("id ")[1][:-1] for example in each.examples] for each in found.sorted()}
    assert kinds == {
        "row also in validation": ["same question", "chat"],
        "image also in validation": ["same image"],
        "text also in validation": ["same words"],
    }
    assert {json.loads(line)["id"] for line in found.rows} == {"same image", "same words", "short words", "other chat"}
    assert [each["kind"] for each in found.rejected] == ["row also in validation"] * 2
    found, _ = check(as_source(train), as_source(val, "test"))
    assert {each.kind for each in found.sorted()} == {"row also in test", "image also in test", "text also in test"}


def test_a_benchmark_with_a_broken_image_is_a_reason_to_stop(tmp_path: Path) -> None:
    wild.truncated_jpeg(tmp_path / "a.jpg")
    wild.scene().save(tmp_path / "b.png")
    rows = [row("a", "a.jpg", "What?", "cat"), row("b", "b.png", "What?", "")]
    (found,) = check(as_source(write_rows(tmp_path / "x.json", rows), "test"))
    assert counts(found, "stop") == {"image truncated": 1}
    assert found.stop == "1 of 2 documents cannot be asked. Next: mend them."


def test_a_source_that_cannot_be_read_stops_itself_only(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text('[{"id": ')
    good = write_rows(tmp_path / "good.json", [row("a", None, "What?", "cat")])
    broken, whole = check(as_source(tmp_path / "broken.json"), as_source(good))
    assert "broken.json" in str(broken.stop)
    assert whole.stop is None


def test_what_is_rendered_is_kept_for_training(
    tmp_path: Path, renderer: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lorgnette.data import encodings

    monkeypatch.setattr(encodings, "FEWEST", 2)
    rows = [row(str(number), None, f"What is {number}?", "A cat.") for number in range(5)]
    used = as_source(write_rows(tmp_path / "x.json", rows), renderer=renderer)
    check(used)
    assert used.encodings is not None
    assert encodings.Encodings(used.encodings).known == 5
