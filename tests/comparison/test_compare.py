"""The numbers of comparisons: pairing, groups, further metrics, several sides, correction."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorgnette.comparison import compare as comparing
from lorgnette.comparison.compare import compare, compare_sides
from lorgnette.comparison.effects import TaskComparison
from lorgnette.comparison.folders import Side
from lorgnette.comparison.reading import Result
from lorgnette.comparison.statistics import holm, mcnemar_exact, paired_bootstrap, score_interval
from lorgnette.errors import DataError

Make = Callable[..., Any]  # the fixtures of conftest.py


def side(name: str, *results: Result) -> Side:
    return Side(name=name, folder=Path(name), results={result.summary["task"]: result for result in results})


def numbers(before: Result, after: Result) -> TaskComparison:
    return compare(before, after).numbers


def test_the_numbers_are_those_of_the_statistics(make_result: Make, before: list, after: list) -> None:
    made = numbers(make_result("a", before), make_result("b", after))
    ids = sorted(line["id"] for line in before)
    first, second = (np.array([{r["id"]: r for r in rows}[id]["score"] for id in ids]) for rows in (before, after))
    assert (made.n, made.wins, made.losses) == (20, 17, 1)
    assert (made.before, made.after) == (pytest.approx(0.15), pytest.approx(0.95))
    assert made.difference == pytest.approx(0.8)
    assert made.interval == paired_bootstrap(first, second)
    assert (made.before_interval, made.after_interval) == (score_interval(first), score_interval(second))
    assert made.p_value == mcnemar_exact(first, second) == pytest.approx(2 * (1 + 18) / 2**18)
    assert (made.test, made.verdict, made.shares) == ("mcnemar", "better", True)


def test_a_scale_is_that_of_the_results(row: Make, make_result: Make) -> None:
    """CIDEr ends at 10; a result that does not say so is of a score from 0 to 1, or of before it was said."""
    zeros = [row(number, 0.0, scores={"exact_match": 0.0, "cider": 0.0}) for number in range(20)]
    scale = {"aggregate": "mean", "highest": 10.0}
    told = make_result("told", zeros, scores={"exact_match": {"aggregate": "mean"}, "cider": scale})
    made = numbers(told, make_result("untold", zeros))
    upper = score_interval(np.zeros(20)).high
    assert made.before_interval == (0.0, upper)
    (cider,) = made.metrics
    assert cider.before_interval == cider.after_interval == (0.0, 10 * upper)
    main = numbers(told, make_result("main", zeros, scores={"exact_match": scale, "cider": scale}))
    assert main.after_interval == (0.0, 10 * upper)
    assert main.groups["kind"][0].after_interval == (0.0, 10 * score_interval(np.zeros(10)).high)


def test_the_order_of_lines_changes_nothing(row: Make, make_result: Make) -> None:
    before = [row(number, number / 199) for number in range(200)]  # too many distinct scores for counts
    after = [row(number, (number / 199) ** 2) for number in range(200)]
    straight = numbers(make_result("a", before), make_result("b", after))
    assert straight == numbers(make_result("c", before[::-1]), make_result("d", after[7:] + after[:7]))
    assert straight.test == "permutation"


def test_groups_add_up_to_the_task(make_result: Make, before: list, after: list) -> None:
    whole = numbers(make_result("a", before), make_result("b", after))
    assert list(whole.groups) == ["kind"]
    assert [(effect.value, effect.n) for effect in whole.groups["kind"]] == [("color", 10), ("shape", 10)]
    assert sum(e.n * e.difference for e in whole.groups["kind"]) == pytest.approx(whole.n * whole.difference)


def test_every_grouping_has_its_table_and_kind_only_where_it_says_more(row: Make, make_result: Make) -> None:
    def rows(score: float, **same: Any) -> list[dict[str, Any]]:
        return [
            row(n, score, groups={"type": ("color", "shape")[n % 2], "place": f"p{n % 3}"} | same) for n in range(6)
        ]

    made = numbers(make_result("a", rows(0.0)), make_result("b", rows(1.0)))
    assert {name: [e.value for e in effects] for name, effects in made.groups.items()} == {
        "type": ["color", "shape"],  # the same partition as `kind`
        "place": ["p0", "p1", "p2"],
    }
    other = [{**line, "kind": "all"} for line in rows(0.0)]
    assert list(numbers(make_result("c", other), make_result("d", other)).groups) == ["kind", "type", "place"]


def test_documents_without_a_kind_count_in_the_task_only(make_result: Make, row: Make) -> None:
    rows = [row(1, 1.0, kind=None), row(2, 0.0)]
    made = numbers(make_result("a", rows), make_result("b", rows))
    assert (made.n, made.difference, made.p_value, made.interval) == (2, 0.0, 1.0, (0.0, 0.0))
    assert [effect.n for effect in made.groups["kind"]] == [1]
    assert made.verdict == "no difference shown"


def test_p_values_are_corrected_within_their_family(make_result: Make, row: Make) -> None:
    def rows(share: float) -> list[dict[str, Any]]:
        return [row(n, float(n < share * 40)) for n in range(40)]

    baseline = [make_result(f"base/{t}", rows(0.5), task=t) for t in ("one", "two")]
    good = [make_result(f"good/{t}", rows(share), task=t) for t, share in (("one", 0.75), ("two", 0.65))]
    bad = [make_result(f"bad/{t}", rows(share), task=t) for t, share in (("one", 0.35), ("two", 0.5))]
    compared = compare_sides([side("base", *baseline), side("good", *good), side("bad", *bad)])
    made = [each.numbers for each in compared]
    assert [(each.candidate, each.task) for each in made] == [
        ("good", "one"),
        ("good", "two"),
        ("bad", "one"),
        ("bad", "two"),
    ]
    assert {each.baseline for each in made} == {"base"}
    raw = [2 / 2**10, 2 / 2**6, 2 / 2**6, 1.0]  # 10, 6, 6 and 0 answers changed, all to one side
    assert [each.p_value for each in made] == pytest.approx(raw)
    assert [each.p_corrected for each in made] == pytest.approx(holm(raw))
    assert [each.verdict for each in made] == ["better", *["no difference shown"] * 3]  # 3 * 2/64 > 0.05
    for each in made:
        kinds = each.groups["kind"]
        assert [e.p_corrected for e in kinds] == pytest.approx(holm([e.p_value for e in kinds]))


def test_a_verdict_needs_p_value_and_interval(row: Make, make_result: Make) -> None:
    worse = numbers(
        make_result("a", [row(n, float(n < 30)) for n in range(40)]),
        make_result("b", [row(n, float(n < 20)) for n in range(40)]),
    )
    assert worse.verdict == "worse"
    from dataclasses import replace

    assert replace(worse, p_corrected=0.05).verdict == "no difference shown"
    assert replace(worse, interval=worse.interval._replace(high=0.0)).verdict == "no difference shown"


def test_further_metrics_are_compared_on_the_documents_that_have_them(row: Make, make_result: Make) -> None:
    def rows(right: int) -> list[dict[str, Any]]:
        made = [row(n, float(n < right)) for n in range(12)]
        for number, line in enumerate(made):
            line["scores"]["soft"] = 0.3 * line["score"] + 0.1
            if number % 4 == 0:
                line["scores"]["circular"] = line["score"]
        return made

    made = numbers(make_result("a", rows(3)), make_result("b", rows(10)))
    soft, circular = made.metrics
    assert (soft.metric, soft.n, soft.test) == ("soft", 12, "permutation")
    assert soft.difference == pytest.approx(0.3 * made.difference)
    assert (circular.metric, circular.n, circular.before, circular.after) == ("circular", 3, 1 / 3, 1.0)
    only_one = numbers(make_result("c", [row(1, 1.0)]), make_result("d", rows(3)[1:2]))
    assert only_one.metrics == ()
    assert "soft is not compared: only after has it" in only_one.notes


def ratio(parts: np.ndarray) -> float:
    return float(parts[:, 0].sum() / parts[:, 1].sum())


def test_corpus_metrics_are_computed_from_parts(row: Make, make_result: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "AGGREGATES", {"ratio": ratio})
    before = [row(n, 0.5, parts={"ratio": [n % 3, 2 + n % 2]}) for n in range(60)]
    after = [row(n, 0.5, parts={"ratio": [n % 3 + 1, 2 + n % 2]}) for n in range(60)]
    (made,) = numbers(make_result("a", before), make_result("b", after)).metrics
    assert (made.metric, made.aggregate, made.test, made.wins) == ("ratio", "ratio", "randomization", None)
    assert made.before == pytest.approx(60 / 150)  # not the mean of the rows' ratios
    assert made.difference == pytest.approx(60 / 150)
    assert made.interval.low < 60 / 150 < made.interval.high
    assert made.p_value == 1 / 1001
    ragged = [{**line, "parts": {"ratio": [1.0] * (1 + n % 2)}} for n, line in enumerate(after)]
    with pytest.raises(DataError, match="the parts of ratio differ in length"):
        numbers(make_result("c", before), make_result("d", ragged))
    monkeypatch.setattr(comparing, "AGGREGATES", {})
    with pytest.raises(DataError, match="an aggregate 'ratio' that this version does not know"):
        numbers(make_result("e", before), make_result("f", after))


def test_tasks_of_one_side_only_are_refused_or_told(make_result: Make, before: list, after: list) -> None:
    first = side("base", make_result("a/one", before, task="one"), make_result("a/two", before, task="two"))
    second = side("tuned", make_result("b/one", after, task="one"), make_result("b/three", after, task="three"))
    with pytest.raises(DataError) as caught:
        compare_sides([first, second])
    assert "task two: only in base\n  task three: only in tuned" in str(caught.value)
    (made,) = compare_sides([first, second], intersect=True)
    assert made.numbers.task == "one"
    assert "task two: only in base, not compared (allowed by --intersect)" in made.numbers.notes
    with pytest.raises(DataError, match="no task in common"):
        compare_sides([first, side("other", make_result("c", after, task="four"))], intersect=True)


def test_answers_that_hang_together_by_image_are_told(row: Make, make_result: Make) -> None:
    def rows(right: Callable[[int], bool]) -> list[dict[str, Any]]:
        return [row(n, float(right(n // 10)), image=f"/{n // 10}.png") for n in range(120)]

    made = numbers(
        make_result("a", rows(lambda image: image in (0, 1))),
        make_result("b", rows(lambda image: image in (0, 2, 3, 4, 5))),
    )
    # all ten answers on an image change together: 12 images, not 120 questions
    assert made.image_factor == pytest.approx(10**0.5, rel=0.1)
    assert made.verdict == "better"
    (note,) = [note for note in made.notes if "images" in note]
    assert "3.3 times as wide" in note
    assert note.endswith("and the difference is no longer shown")


def test_what_else_differs_and_what_was_warned_of_is_noted(make_result: Make, before: list, after: list) -> None:
    for row in before[-2:]:
        row["read"] = False
    for row in after[:3]:
        row["stopped_by"] = "length"
    first = make_result("a", before, warnings=["idf is undefined"], batch_size=8)
    second = make_result("b", after, warnings=["idf is undefined", "too long"], model={"path": "b"})
    notes = numbers(first, second).notes
    assert notes[:4] == (
        "idf is undefined",
        "too long (only in after)",
        "unread, and so wrong: 2 of 20 answers in before, 0 in after",
        "cut at the most tokens that an answer may have: 0 of 20 answers in before, 3 in after",
    )
    assert "also different: batch_size" in notes
    assert any("where n is below 30" in note for note in notes)


def test_scores_beyond_one_are_no_points(row: Make, make_result: Make) -> None:
    before, after = [row(n, n / 4) for n in range(12)], [row(n, n / 4 + 0.5) for n in range(12)]
    assert not numbers(make_result("a", before), make_result("b", after)).shares
