"""The page: true, self-contained, safe to open, the same every time."""

import base64
import hashlib
import io
import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lorgnette.comparison.compare import Result, compare
from lorgnette.comparison.plots import bars, loss_curves
from lorgnette.comparison.report import headline, verdict, write_report
from lorgnette.errors import DataError

Make = Callable[..., Any]  # the fixtures of conftest.py
HOSTILE = "<script>alert('$x^$')</script> & \"q\" \x1b[31m 中文"
METRICS: list[dict[str, Any]] = [
    {"stage": stage, "step": step, "loss": 3.0 / step, "learning_rate": 1e-3 / step}
    for stage in ("pretrain", "finetune")
    for step in range(1, 40)
] + [{"stage": "finetune", "step": 40, "eval_loss": 0.2}]
PARTS = [
    {
        "stage": "finetune",
        "part": "language_model",
        "mode": "lora",
        "parameters": 1_900_000,
        "trainable": 120_000,
        "learning_rate": 0.001,
    },
    {
        "stage": "finetune",
        "part": "vision_tower",
        "mode": "frozen",
        "parameters": 5,
        "trainable": 0,
        "learning_rate": None,
    },
]


class Page(HTMLParser):
    """Collects tags, attributes and text; fails on a tag that is closed in the wrong place."""

    VOID = ("meta", "img", "br", "use", "path")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def report(path: Path, pairs: list[tuple[Result, Result]], **changes: Any) -> str:
    arguments: dict[str, Any] = {
        "title": "A run",
        "comparisons": [compare(before, after) for before, after in pairs],
        "results": pairs,
        "metrics": [],
        "recipe_text": "seed: 42\n",
        "provenance": {"versions": {"torch": "2.8"}, "git": None},
        "parts": PARTS,
    }
    write_report(path, **(arguments | changes))
    return path.read_text(encoding="utf-8")


@pytest.fixture
def pair(make_result: Make, tmp_path: Path, row: Make) -> tuple[Result, Result]:
    """60 became right, 6 became wrong, 24 stayed wrong, 30 stayed right; some pictures cannot be shown."""
    Image.new("RGB", (400, 200), "red").save(tmp_path / "wide.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "wide.png").read_bytes()[:60])
    images = [str(tmp_path / "wide.png"), str(tmp_path / "gone.png"), str(tmp_path / "broken.png"), None]
    first = [0.0] * 60 + [1.0] * 6 + [0.0] * 24 + [1.0] * 30
    second = [1.0] * 60 + [0.0] * 6 + [0.0] * 24 + [1.0] * 30
    return (
        make_result("before", [row(i, s, image=images[i % 4]) for i, s in enumerate(first)]),
        make_result("after", [row(i, s, image=images[i % 4]) for i, s in enumerate(second)]),
    )


@pytest.fixture
def hostile(make_result: Make, row: Make) -> tuple[Result, Result]:
    texts = dict.fromkeys(("kind", "question", "reference", "answer"), HOSTILE)
    rows = [row(i, 1.0, **texts, image=f"/{HOSTILE}") for i in range(3)]
    summary = {"task": HOSTILE, "metric": HOSTILE, "prompt": HOSTILE, "model": {HOSTILE: HOSTILE}}
    return (
        make_result("before", [{**line, "score": 0.0} for line in rows], **summary),
        make_result("after", rows, **summary),
    )


def test_the_page_says_the_numbers(pair: tuple[Result, Result], tmp_path: Path) -> None:
    text = Page(report(tmp_path / "report.html", [pair])).text.replace("\N{NO-BREAK SPACE}", " ")
    assert "easy-vqa: 0.300 → 0.750 on 120 held-out questions, difference +0.450 (95 % interval +0.3" in text
    assert "p < 0.001." in text
    assert "The model got better. 60 answers improved and 6 got worse." in text
    assert "1,900,000" in text
    assert "versions.torch" in text
    assert "seed: 42" in text


def test_hostile_text_stays_text(hostile: tuple[Result, Result], tmp_path: Path) -> None:
    metrics = [{"stage": HOSTILE, "step": 1, "loss": 2.0}]
    parts = [{**PARTS[0], "part": HOSTILE, "mode": HOSTILE, "stage": HOSTILE}]
    html = report(
        tmp_path / "report.html",
        [hostile],
        title=HOSTILE,
        metrics=metrics,
        parts=parts,
        recipe_text=HOSTILE,
        provenance={HOSTILE: [HOSTILE]},
    )
    page = Page(html)
    assert "script" not in page.tags
    assert "<script" not in html
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert page.text.count("<script>alert('$x^$')</script>") > 20


def test_the_page_loads_nothing(pair: tuple[Result, Result], tmp_path: Path) -> None:
    html = report(tmp_path / "report.html", [pair], metrics=METRICS)
    page = Page(html)
    assert "//" not in re.sub(r"base64,[^\"]*", "", html)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    addresses = [value for _, name, value in page.attributes if name in ("src", "href", "xlink:href")]
    assert addresses
    assert all(value.startswith(("data:image/", "#")) for value in addresses)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert ("meta", "content", policy) in page.attributes


def test_ids_occur_once_and_references_resolve(make_result: Make, tmp_path: Path, row: Make) -> None:
    rows = [row(number, 1.0) for number in range(4)]
    pairs = [(make_result(f"a{n}", rows, task=f"t{n}"), make_result(f"b{n}", rows, task=f"t{n}")) for n in "12"]
    page = Page(report(tmp_path / "report.html", pairs, metrics=METRICS))
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {value[1:] for _, name, value in page.attributes if name == "xlink:href"} <= set(ids)


def test_same_input_same_bytes(pair: tuple[Result, Result], tmp_path: Path) -> None:
    first = report(tmp_path / "one.html", [pair], metrics=METRICS)
    assert report(tmp_path / "two.html", [pair], metrics=METRICS) == first


def test_gallery_gives_mistakes_their_share_and_tells_the_counts(pair: tuple[Result, Result], tmp_path: Path) -> None:
    html = report(tmp_path / "report.html", [pair], gallery_size=24)
    text = Page(html).text
    assert "60 became right, 6 became wrong, 24 wrong both times, 30 right both times." in text
    shown = re.findall(r"<h3>(.*?) <small>(\d+) of (\d+) shown", html)
    assert shown == [
        ("Became right", "8", "60"),
        ("Became wrong", "6", "6"),
        ("Wrong both times", "6", "24"),  # 4, and the 2 places that "became wrong" could not fill
        ("Right both times", "4", "30"),
    ]
    assert html.count('<li class="card">') == 24


def test_gallery_order_is_the_hash_of_the_id(row: Make, make_result: Make, tmp_path: Path) -> None:
    rows = [row(number, 1.0) for number in range(40)]
    html = report(tmp_path / "report.html", [(make_result("a", rows), make_result("b", rows))], gallery_size=3)
    by_hash = sorted((line["id"] for line in rows), key=lambda id: hashlib.sha256(id.encode()).hexdigest())
    assert re.findall(r'<p dir="auto">question (\d+)\?', html) == [id.split("-")[1] for id in by_hash[:3]]


@pytest.mark.parametrize(("size", "cards"), [(0, 0), (1, 1), (24, 24), (1000, 120)])
def test_gallery_is_as_large_as_asked(pair: tuple[Result, Result], tmp_path: Path, size: int, cards: int) -> None:
    html = report(tmp_path / "report.html", [pair], gallery_size=size)
    assert html.count('<li class="card">') == cards


def test_graded_scores_are_not_called_right_or_wrong(make_result: Make, tmp_path: Path, row: Make) -> None:
    before = make_result("a", [row(1, 0.2), row(2, 0.9), row(3, 0.4)])
    after = make_result("b", [row(1, 0.3), row(2, 0.8), row(3, 0.4)])
    html = report(tmp_path / "report.html", [(before, after)])
    assert re.findall(r"<h3>(.*?) <small>", html) == ["Improved", "Got worse", "Wrong both times"]


def test_pictures_are_small_and_gaps_are_labelled(pair: tuple[Result, Result], tmp_path: Path) -> None:
    page = Page(report(tmp_path / "report.html", [pair], gallery_size=120))
    urls = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    assert len(urls) == 30
    with Image.open(io.BytesIO(base64.b64decode(urls[0].split(",")[1]))) as image:
        assert image.size == (160, 80)
        assert image.convert("RGB").getpixel((80, 40)) == pytest.approx((255, 0, 0), abs=2)
    assert len([name for tag, name, value in page.attributes if (tag, name) == ("img", "alt") and value]) == 30
    for label in ("image not found: gone.png", "image cannot be read: broken.png", "no image"):
        assert page.text.count(label) == 30


def test_a_picture_bomb_is_not_decoded(make_result: Make, tmp_path: Path, row: Make) -> None:
    Image.new("1", (9_000, 9_000)).save(tmp_path / "bomb.png")
    rows = [row(1, 1.0, image=str(tmp_path / "bomb.png"))]
    html = report(tmp_path / "report.html", [(make_result("a", rows), make_result("b", rows))])
    assert "image too large: bomb.png" in html


def test_long_answers_are_cut_and_the_cut_is_counted(make_result: Make, tmp_path: Path, row: Make) -> None:
    rows = [row(1, 0.0, answer="x" * 5_400, stopped_by="length")]
    html = report(tmp_path / "report.html", [(make_result("a", rows), make_result("b", rows))])
    assert "x" * 401 not in html
    assert "(5,000 more characters)" in html
    assert "stopped by the length limit" in html


def test_a_run_without_results_says_so(tmp_path: Path) -> None:
    html = report(tmp_path / "report.html", [], metrics=[], parts=[], provenance={}, recipe_text="")
    assert "Nothing was measured." in html
    assert "<h2>" not in html


@pytest.mark.parametrize(
    ("split", "words"),
    [("test", "on 20 held-out questions,"), ("train", "on 20 training questions,"), ("", "on 20 questions,")],
)
def test_only_held_out_questions_are_called_so(make_result: Make, split: str, words: str, row: Make) -> None:
    rows = [row(number, 1.0) for number in range(20)]
    assert words in headline(compare(make_result("a", rows), make_result("b", rows)), split)


@pytest.mark.parametrize(
    ("wins", "losses", "words"),
    [
        (30, 2, "The model got better."),
        (2, 30, "The model got worse."),
        (5, 4, "This difference could be chance."),
    ],
)
def test_the_verdict_claims_no_more_than_the_numbers(
    make_result: Make, wins: int, losses: int, words: str, row: Make
) -> None:
    before = [row(i, float(i >= wins)) for i in range(wins + losses)]
    after = [row(i, float(i < wins)) for i in range(wins + losses)]
    assert verdict(compare(make_result("a", before), make_result("b", after))).startswith(words)


def test_loss_curves_draw_a_panel_a_stage() -> None:
    text = Page(loss_curves(METRICS)).text
    for words in ("pretrain", "finetune", "loss, smoothed", "learning rate"):
        assert words in text
    assert text.count("validation") == 1
    assert loss_curves([]) == loss_curves([{"stage": "a", "step": 1, "learning_rate": 0.1}]) == ""


def test_loss_curves_count_what_cannot_be_drawn_and_stay_small() -> None:
    rows = [{"stage": "a", "step": step, "loss": math.sin(step)} for step in range(20_000)]
    rows[7]["loss"] = math.nan
    svg = loss_curves(rows)
    assert "(1 losses not finite)" in svg
    assert len(svg) < 150_000


@pytest.mark.parametrize("broken", [{"step": 1, "loss": 1.0}, {"stage": "a", "step": None}, {"stage": 1, "step": 1}])
def test_loss_curves_name_a_row_without_stage_or_step(broken: dict) -> None:
    with pytest.raises(DataError, match=r"row 2: needs a stage and a step"):
        loss_curves([METRICS[0], broken])


def test_bars_draw_the_lengths_they_name(make_result: Make, row: Make) -> None:
    before = make_result("a", [row(i, float(i < 2)) for i in range(8)])
    after = make_result("b", [row(i, float(i < 6)) for i in range(8)])
    svg = bars(compare(before, after))
    assert {"0.250", "0.750", "all (8)", "color (4)"} <= set(re.findall(r">([^<>\n]+)</text>", svg))
    # All bars start at the left axis; the first two of the darker colour's kind are the whole task's.
    widths = {}
    for path, colour in re.findall(r'<path d="(M[^"]*)"[^>]*style="fill: (#[0-9a-f]{6})"', svg):
        numbers = [float(number) for number in re.findall(r"-?\d+\.?\d*", path)]
        widths.setdefault(colour, max(numbers[0::2]) - min(numbers[0::2]))
    assert widths["#0072b2"] / widths["#9cc9e3"] == pytest.approx(3.0, rel=1e-3)
