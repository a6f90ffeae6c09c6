"""Which answers are shown, and that pictures are small, safe and never missing in silence."""

import base64
import hashlib
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lorgnette.comparison.reading import Result
from pages import Page, report

Make = Callable[..., Any]  # the fixtures of conftest.py


def test_gallery_gives_mistakes_their_share_and_tells_the_counts(pair: tuple[Result, Result], tmp_path: Path) -> None:
    html = report(tmp_path / "out", [pair], trainings=[], gallery_size=24)
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
    html = report(tmp_path / "out", [(make_result("a", rows), make_result("b", rows))], trainings=[], gallery_size=3)
    by_hash = sorted((line["id"] for line in rows), key=lambda id: hashlib.sha256(id.encode()).hexdigest())
    assert re.findall(r'<p dir="auto">question (\d+)\?', html) == [id.split("-")[1] for id in by_hash[:3]]


@pytest.mark.parametrize(("size", "cards"), [(0, 0), (1, 1), (24, 24), (1000, 120)])
def test_gallery_is_as_large_as_asked(pair: tuple[Result, Result], tmp_path: Path, size: int, cards: int) -> None:
    html = report(tmp_path / "out", [pair], trainings=[], gallery_size=size)
    assert html.count('<li class="card">') == cards


def test_graded_scores_are_not_called_right_or_wrong(make_result: Make, tmp_path: Path, row: Make) -> None:
    before = make_result("a", [row(1, 0.2), row(2, 0.9), row(3, 0.4)])
    after = make_result("b", [row(1, 0.3), row(2, 0.8), row(3, 0.4)])
    html = report(tmp_path / "out", [(before, after)], trainings=[])
    assert re.findall(r"<h3>(.*?) <small>", html) == ["Improved", "Got worse", "Equally low"]


def test_pictures_are_small_and_gaps_are_labelled(pair: tuple[Result, Result], tmp_path: Path) -> None:
    page = Page(report(tmp_path / "out", [pair], trainings=[], gallery_size=120))
    urls = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    assert len(urls) == 30
    with Image.open(io.BytesIO(base64.b64decode(urls[0].split(",")[1]))) as image:
        assert image.size == (240, 120)
        assert image.convert("RGB").getpixel((80, 40)) == pytest.approx((255, 0, 0), abs=2)
    alternatives = [value for tag, name, value in page.attributes if (tag, name) == ("img", "alt")]
    assert len(alternatives) == 30
    assert all(text.startswith("What is asked about: question ") for text in alternatives)
    for label in ("image missing: gone.png", "image truncated: broken.png", "no image"):
        assert page.text.count(label) == 30


def test_a_picture_bomb_is_not_decoded(make_result: Make, tmp_path: Path, row: Make) -> None:
    Image.new("1", (9_000, 9_000)).save(tmp_path / "bomb.png")
    rows = [row(1, 1.0, image=str(tmp_path / "bomb.png"))]
    html = report(tmp_path / "out", [(make_result("a", rows), make_result("b", rows))], trainings=[])
    assert "image huge: bomb.png" in html


def test_answers_say_how_they_ended_and_whether_they_were_read(make_result: Make, tmp_path: Path, row: Make) -> None:
    long = row(1, 0.0, answer="x" * 5_400, stopped_by="length")
    rows = [long, row(2, 0.0, answer="maybe", read=False), row(3, 0.0, answer=" ", read=False)]
    html = report(tmp_path / "out", [(make_result("a", rows), make_result("b", rows))], trainings=[])
    assert "x" * 401 not in html
    assert "(5,000 more characters)" in html
    assert html.count("stopped by the length limit") == 2  # before and after
    assert html.count("could not be read as an answer") == 2
    assert html.count("empty answer") == 2
