"""The page: true, self-contained, safe to open, the same every time."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lorgnette.comparison.compare import compare, compare_sides
from lorgnette.comparison.folders import Side
from lorgnette.comparison.reading import Result
from lorgnette.comparison.report import summary_text, write_report
from lorgnette.comparison.training_record import read_training
from lorgnette.errors import DataError
from pages import HOSTILE, METRICS, Page, report, training

Make = Callable[..., Any]  # the fixtures of conftest.py


@pytest.fixture
def hostile(make_result: Make, row: Make) -> tuple[Result, Result]:
    texts = dict.fromkeys(("kind", "question", "reference", "answer"), HOSTILE)
    rows = [row(i, 1.0, **texts, groups={HOSTILE: str(i)}, image=f"/{HOSTILE}") for i in range(3)]
    for line in rows:
        line["scores"][HOSTILE] = 0.5
    summary = {"task": HOSTILE, "metric": HOSTILE, "prompt": HOSTILE, "model": {HOSTILE: HOSTILE}}
    return (
        make_result("before", [{**line, "score": 0.0} for line in rows], warnings=[HOSTILE], **summary),
        make_result("after", rows, **summary),
    )


def test_the_page_says_the_numbers(pair: tuple[Result, Result], tmp_path: Path) -> None:
    text = Page(report(tmp_path / "out", [pair])).text.replace("\N{NO-BREAK SPACE}", " ")
    assert re.search(r"Better on easy-vqa: \+45\.0 points, 95 % 3\d\.\d to 5\d\.\d\.", text)
    assert (
        "exact_match 0.300 → 0.750 on 120 test questions: 60 answers better, 6 worse, 54 the same, p < 0.001." in text
    )
    assert "By kind" in text
    for words in ("1,900,000", "versions.torch", "seed: 42", "0.225–0.387", "Holm"):
        assert words in text, words
    for words in ("1,020", "left out: image missing finetune", "17", "12.5%", "mended.two tags finetune"):
        assert words in text, words


def test_hostile_text_stays_text(hostile: tuple[Result, Result], tmp_path: Path) -> None:
    metrics = [{"stage": HOSTILE, "step": 1, "loss": 2.0}]
    html = report(tmp_path / "out", [hostile], title=HOSTILE, trainings=[training(HOSTILE, metrics=metrics)])
    page = Page(html)
    assert "script" not in page.tags
    assert "<script" not in html
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert page.text.count("<script>alert('$x^$')</script>") > 20
    for path in (tmp_path / "out" / "plots").iterdir():
        assert re.fullmatch(r"[\w.-]+", path.name)


def test_the_page_loads_nothing(pair: tuple[Result, Result], tmp_path: Path) -> None:
    html = report(tmp_path / "out", [pair])
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
    page = Page(report(tmp_path / "out", pairs, trainings=[training(name="one"), training(name="two")]))
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    links = {value for _, name, value in page.attributes if name in ("href", "xlink:href")}
    assert {"#differences", "#task-1", "#task-2", "#answers-2", "#training-1", "#provenance-2"} <= links
    assert {link[1:] for link in links} <= set(ids)


def test_tables_have_headers_and_pictures_have_words(pair: tuple[Result, Result], tmp_path: Path) -> None:
    html = report(tmp_path / "out", [pair])
    for table in re.findall(r"<table.*?</table>", html, re.DOTALL):
        assert 'scope="col"' in table
        rows = re.findall(r"<tr.*?</tr>", table.split("</thead>")[1], re.DOTALL)
        assert all('<th scope="row' in row or '<th class="by"' in row or 'th scope="row"' in row for row in rows)
    for drawing in re.findall(r"<svg [^>]*>", html):
        assert 'role="img" aria-label="' in drawing
    for image in re.findall(r"<img [^>]*>", html):
        assert re.search(r'alt="[^"]+"', image)
    assert '<html lang="en">' in html


def test_same_input_same_bytes(pair: tuple[Result, Result], tmp_path: Path) -> None:
    first = report(tmp_path / "one", [pair])
    assert report(tmp_path / "two", [pair]) == first
    for path in (tmp_path / "one" / "plots").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / "plots" / path.name).read_bytes(), path.name


def test_plots_are_written_as_svg_and_png(pair: tuple[Result, Result], tmp_path: Path) -> None:
    report(tmp_path, [pair])
    names = ["1-easy-vqa-by-kind.png", "1-easy-vqa-by-kind.svg", "loss-1.png", "loss-1.svg"]
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == names
    with Image.open(tmp_path / "plots" / names[0]) as image:
        assert image.format == "PNG"


def test_several_candidates_and_tasks_share_a_page(make_result: Make, row: Make, tmp_path: Path) -> None:
    def rows(right: int) -> list[dict[str, Any]]:
        return [row(n, float(n < right)) for n in range(40)]

    sides = [
        Side(
            name=name,
            folder=tmp_path,
            results={t: make_result(f"{name}/{t}", rows(right), task=t) for t, right in rights.items()},
        )
        for name, rights in (
            ("base", {"one": 10, "two": 20}),
            ("x", {"one": 30, "two": 20}),
            ("y", {"one": 2, "two": 21}),
        )
    ]
    write_report(tmp_path / "out", title="x, y against base", compared=compare_sides(sides), trainings=[])
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    text = Page(html.replace("<wbr>", "")).text.replace("\N{NO-BREAK SPACE}", " ")
    assert "x against base: better on one: +50.0 points" in text
    assert "y against base: worse on one: −20.0 points" in text
    assert "no difference shown on two." in text
    first, second = r"one\s*40 questions: 20 better, 0 worse", r"one\s*40 questions: 0 better, 8 worse"
    overview = rf"All differences.*x against base\s+{first}.*y against base\s+{second}"
    assert re.search(overview, text, re.DOTALL)
    assert html.count('<section id="task-') == 4
    assert (tmp_path / "out" / "plots" / "effects-points.svg").is_file()
    assert "Training" not in text


def test_a_run_without_results_says_so(tmp_path: Path) -> None:
    html = report(tmp_path, [], trainings=[])
    assert "Nothing was measured." in html
    assert "<h2>" not in html


@pytest.mark.parametrize(
    ("split", "words"),
    [("test", "on 20 test questions:"), ("train", "on 20 training questions:"), ("", "on 20 questions:")],
)
def test_only_held_out_questions_are_called_so(make_result: Make, split: str, words: str, before: list) -> None:
    assert words in summary_text(compare(make_result("a", before), make_result("b", before)).numbers, split)


def test_conditions_that_differ_are_marked(make_result: Make, before: list, after: list, tmp_path: Path) -> None:
    html = report(tmp_path, [(make_result("a", before), make_result("b", after, batch_size=7))])
    assert '<tr class="differs"><th scope="row">batch_size</th><td>4</td><td>7</td></tr>' in html
    assert '<tr class="differs"><th scope="row">model.path</th><td>a</td><td>b</td></tr>' in html
    assert '<tr><th scope="row">prompt</th><td colspan="2">{question}</td></tr>' in html


STAGE = {
    "stage": "finetune",
    "parts": [{"part": "projector", "mode": "full", "parameters": 10, "trainable": 10, "learning_rate": 0.1}],
    "data": {
        "read": 5,
        "kept": 4,
        "dropped": {"image missing": 1},
        "shortened": 0,
        "shortened_tokens": 0,
        "tokens": 80,
        "supervised_share": 0.5,
        "mended": {"tag added": 2},
    },
    "validation": None,
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with two stages, the second of which has ended."""
    folder = tmp_path / "mine"
    (folder / "stages" / "finetune").mkdir(parents=True)
    (folder / "merged").mkdir()
    (folder / "recipe.yaml").write_text("stages: [{name: pretrain}, {name: finetune}, {name: ../../x}]\n")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in METRICS))
    (folder / "provenance.jsonl").write_text('{"command": ["first"]}\n{"command": ["second"]}\n')
    (folder / "merged" / "lorgnette.json").write_text('{"kind": "merged"}')
    (folder / "stages" / "finetune" / "stage.json").write_text(json.dumps(STAGE | {"validation": STAGE["data"]}))
    return folder


def test_a_run_folder_is_read_as_far_as_it_goes(run: Path, tmp_path: Path) -> None:
    record = read_training(run)
    assert (record.name, len(record.metrics)) == ("mine", len(METRICS))
    assert record.provenance == {"command": ["second"], "merged": {"kind": "merged"}}
    assert [(part.stage, part.part, part.learning_rate) for part in record.parts] == [("finetune", "projector", 0.1)]
    assert [found.stage for found in record.data] == ["finetune", "finetune, validation"]
    assert record.data[0].others == {"mended": {"tag added": 2}}
    empty = read_training(tmp_path)
    assert (empty.parts, empty.data, empty.recipe, empty.provenance) == ((), (), "", {})


@pytest.mark.parametrize(
    "broken", [{}, {"data": []}, {"parts": [{"part": "x"}]}, {"data": {"read": "many"}}, {"data": {"read": 1e999}}]
)
def test_a_broken_stage_is_named(run: Path, broken: dict) -> None:
    file = run / "stages" / "finetune" / "stage.json"
    file.write_text(json.dumps(STAGE | broken if broken else {}))
    with pytest.raises(DataError, match=re.escape(f"{file}: is no record of a stage")):
        read_training(run)
