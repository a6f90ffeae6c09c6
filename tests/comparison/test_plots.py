"""What is drawn is what the numbers say, on the page and in files."""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lorgnette.comparison.compare import compare
from lorgnette.comparison.drawing import AFTER, BEFORE, Drawing, inline_svg, write_drawings
from lorgnette.comparison.plots import MOST_BARS, bars, effects_plot, loss_curves
from lorgnette.errors import DataError
from pages import HOSTILE, METRICS, Page

Make = Callable[..., Any]  # the fixtures of conftest.py


def drawn(rows: list[dict[str, Any]]) -> str:
    drawing = loss_curves(rows)
    assert drawing
    return inline_svg(drawing, "x")


def test_loss_curves_draw_a_panel_a_stage() -> None:
    text = Page(drawn(METRICS)).text
    for words in ("pretrain", "finetune", "loss, smoothed", "learning rate"):
        assert words in text
    assert text.count("validation") == 1
    assert loss_curves([]) is loss_curves([{"stage": "a", "step": 1, "learning_rate": 0.1}]) is None


def test_loss_curves_count_what_cannot_be_drawn_and_stay_small() -> None:
    rows = [{"stage": "a", "step": step, "loss": math.sin(step)} for step in range(20_000)]
    rows[7]["loss"] = math.nan
    svg = drawn(rows)
    assert "(1 losses not finite)" in svg
    assert len(svg) < 150_000


@pytest.mark.parametrize("broken", [{"step": 1, "loss": 1.0}, {"stage": "a", "step": None}, {"stage": 1, "step": 1}])
def test_loss_curves_name_a_row_without_stage_or_step(broken: dict) -> None:
    with pytest.raises(DataError, match=r"row 2: needs a stage and a step"):
        loss_curves([METRICS[0], broken])


def lengths(svg: str, colour: str) -> list[float]:
    """Lengths of the bars of one colour, from top to bottom; the legend's patch comes last."""
    found = []
    for path in re.findall(rf'<path d="(M[^"]*)"[^>]*style="fill: [^";]*{colour}', svg):
        numbers = [float(number) for number in re.findall(r"-?\d+\.?\d*", path)]
        found.append(max(numbers[0::2]) - min(numbers[0::2]))
    return found


def test_bars_draw_the_lengths_they_name(make_result: Make, row: Make) -> None:
    before = make_result("a", [row(i, float(i < 2)) for i in range(8)])
    after = make_result("b", [row(i, float(i < 6)) for i in range(8)])
    svg = inline_svg(bars(compare(before, after).numbers, "kind"), "x")
    assert {"0.250", "0.750", "all (8)", "color (4)"} <= set(re.findall(r">([^<>\n]+)</text>", svg))
    assert lengths(svg, AFTER)[0] / lengths(svg, BEFORE)[0] == pytest.approx(3.0, rel=1e-3)


def test_of_many_groups_the_largest_are_drawn(make_result: Make, row: Make) -> None:
    rows = [row(i, 1.0, kind=f"kind {i % 40 if i < 80 else i % 10}") for i in range(160)]
    numbers = compare(make_result("a", rows), make_result("b", rows)).numbers
    names = re.findall(r">(kind \d+) \((\d+)\)</text>", inline_svg(bars(numbers, "kind"), "x"))
    assert len(names) == MOST_BARS
    assert [count for _, count in names].count("10") == 10


def test_scores_beyond_one_have_their_own_axis(make_result: Make, row: Make) -> None:
    before, after = ([row(i, scale * i) for i in range(8)] for scale in (0.5, 1.0))
    svg = inline_svg(bars(compare(make_result("a", before), make_result("b", after)).numbers), "x")
    assert "3.500" in svg
    assert lengths(svg, AFTER)[0] / lengths(svg, BEFORE)[0] == pytest.approx(2.0, rel=1e-3)


def test_effects_are_drawn_around_zero(make_result: Make, row: Make) -> None:
    rows = [row(i, float(i < 8)) for i in range(16)]
    numbers = compare(make_result("a", rows), make_result("b", rows)).numbers
    svg = inline_svg(effects_plot([replace(numbers, task=name) for name in ("one", "two")]), "x")
    assert {"one", "two", "difference, points"} <= set(re.findall(r">([^<>\n]+)</text>", svg))
    both = [replace(numbers, candidate=name) for name in ("x", "y")]
    assert "easy-vqa, x" in inline_svg(effects_plot(both), "x")


def test_drawings_follow_the_page_into_the_dark_and_files_do_not(tmp_path: Path) -> None:
    drawing = loss_curves(METRICS)
    assert drawing
    inline = inline_svg(drawing, "x")
    assert "var(--after, #0072b2)" in inline
    assert "var(--ink, #1d2430)" in inline
    assert not re.findall(r"(?:fill|stroke): (?!none|var)[^;\"]+", inline)  # no colour that stays behind
    write_drawings(tmp_path, {"loss": drawing})
    assert {path.name for path in tmp_path.iterdir()} == {"loss.svg", "loss.png"}
    svg = (tmp_path / "loss.svg").read_text(encoding="utf-8")
    assert svg.startswith("<?xml")
    assert "var(--" not in svg
    assert 'xmlns="http://www.w3.org/2000/svg"' in svg
    with Image.open(tmp_path / "loss.png") as image:
        assert image.width == 860
        assert image.convert("RGB").getpixel((2, 2)) == (255, 255, 255)
        assert len(image.convert("RGB").getcolors(1_000_000) or []) > 20


def test_names_in_drawings_are_text(tmp_path: Path, make_result: Make, row: Make) -> None:
    rows = [row(i, 1.0, kind=HOSTILE) for i in range(3)]
    numbers = compare(make_result("a", rows, task=HOSTILE), make_result("b", rows, task=HOSTILE)).numbers
    drawing = bars(numbers, "kind")
    assert "<script" not in inline_svg(drawing, "x")
    write_drawings(tmp_path, {"x": drawing, "y": Drawing(drawing.draw, drawing.height, "plain")})
    assert "<script" not in (tmp_path / "x.svg").read_text(encoding="utf-8")
