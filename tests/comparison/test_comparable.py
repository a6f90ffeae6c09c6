"""What is refused, that everything that differs is told, and what --intersect allows."""

from collections.abc import Callable
from typing import Any

import pytest

from lorgnette.comparison.comparable import pair
from lorgnette.errors import DataError

Make = Callable[..., Any]  # the fixtures of conftest.py
NAMES = ("base", "tuned")


def test_results_are_paired_in_the_order_of_ids(make_result: Make, before: list, after: list) -> None:
    paired = pair(make_result("a", before[::-1]), make_result("b", after[7:] + after[:7]), NAMES)
    ids = [row.id for row in paired.before.predictions]
    assert ids == [row.id for row in paired.after.predictions] == sorted(line["id"] for line in before)
    assert paired.notes == ()


@pytest.mark.parametrize(
    ("summary", "said"),
    [
        ({"prompt": "{question}!"}, "prompt: '{question}' in base, '{question}!' in tuned"),
        ({"decoding": {"method": "greedy", "max_new_tokens": 5}}, "decoding.max_new_tokens: '8' in base, '5' in tuned"),
        ({"options": {"protocol": "likelihood"}}, "options.protocol: nothing in base, 'likelihood' in tuned"),
        (
            {"data": {"split": "test", "limit": None, "fingerprint": "sha256:2"}},
            "data.fingerprint: 'sha256:1' in base, 'sha256:2' in tuned; all texts are equal, so the images differ",
        ),
    ],
)
def test_what_asks_otherwise_is_refused_and_told(
    make_result: Make, summary: dict, said: str, before: list, after: list
) -> None:
    first, second = make_result("a", before), make_result("b", after, **summary)
    with pytest.raises(DataError) as caught:
        pair(first, second, NAMES)
    assert said in str(caught.value)
    assert "add --intersect" in str(caught.value)
    allowed = pair(first, second, NAMES, intersect=True)
    assert len(allowed.before.predictions) == 20
    assert any(said in note and note.endswith("(allowed by --intersect)") for note in allowed.notes)


@pytest.mark.parametrize("name", ["task", "metric"])
@pytest.mark.parametrize("intersect", [False, True])
def test_another_task_or_metric_is_always_refused(
    make_result: Make, name: str, intersect: bool, before: list, after: list
) -> None:
    with pytest.raises(DataError, match=rf"{name}: '.*' in base, 'other' in tuned") as caught:
        pair(make_result("a", before), make_result("b", after, **{name: "other"}), NAMES, intersect=intersect)
    assert "--intersect" not in str(caught.value)


def test_all_that_differs_is_told_at_once(make_result: Make, row: Make, before: list, after: list) -> None:
    changed = [{**after[5], "question": "other?"}, *after[6:], row(77, 1.0)]
    data = {"split": "validation", "limit": 15, "fingerprint": "sha256:3"}
    with pytest.raises(DataError) as caught:
        pair(make_result("a", before), make_result("b", changed, prompt="Say: {question}", data=data), NAMES)
    told = str(caught.value).splitlines()[1:]
    assert told == [
        "  prompt: '{question}' in base, 'Say: {question}' in tuned",
        "  documents: 5 only in base ('test-0', 'test-1', 'test-2', ...)",
        "  documents: 1 only in tuned ('test-77')",
        "  documents: 1 with the same id and another content ('test-5'); question of 'test-5' is 'question 5?' in "
        "base, 'other?' in tuned",
        "  n: 20 in base, 16 in tuned",
        "  data.split: test in base, validation in tuned",
        "  data.limit: null in base, 15 in tuned",
        "Next: evaluate both in the same way, or add --intersect to compare what is equal.",
    ]


def test_intersect_keeps_the_equal_documents_and_says_so(
    make_result: Make, row: Make, before: list, after: list
) -> None:
    changed = [{**after[5], "reference": "red"}, *after[6:], row(77, 1.0)]
    allowed = pair(make_result("a", before), make_result("b", changed), NAMES, intersect=True)
    assert {row.id for row in allowed.before.predictions} == {f"test-{number}" for number in range(6, 20)}
    assert "compared on the 14 documents that are equal in both" in allowed.notes[-1]


def test_nothing_in_common_is_refused_even_then(make_result: Make, row: Make) -> None:
    first, second = make_result("a", [row(1, 1.0)]), make_result("b", [row(2, 1.0)])
    with pytest.raises(DataError, match="no document is in both and equal"):
        pair(first, second, NAMES, intersect=True)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("question", "other?"),
        ("reference", "red"),
        ("kind", None),
        ("groups", {"category": "x"}),
        ("prompt", "question 1? A. other options"),
    ],
)
def test_changed_documents_are_refused(make_result: Make, field: str, value: object, before: list, after: list) -> None:
    changed = [after[0], {**after[1], field: value}, *after[2:]]
    with pytest.raises(DataError, match=rf"1 with the same id and another content \('test-1'\); {field} of 'test-1'"):
        pair(make_result("a", before), make_result("b", changed), NAMES)


def test_of_long_values_the_stretch_that_differs_is_shown(make_result: Make, before: list, after: list) -> None:
    first = make_result("a", before, prompt="x" * 5_000 + "one" + "y" * 5_000)
    with pytest.raises(DataError) as caught:
        pair(first, make_result("b", after, prompt="x" * 5_000 + "two" + "y" * 5_000), NAMES)
    assert "xoney" in str(caught.value)
    assert "xtwoy" in str(caught.value)
    assert len(str(caught.value)) < 1_500


def test_where_the_data_lie_is_no_difference(make_result: Make, before: list, after: list) -> None:
    first, second = (
        make_result(name, rows, options={"path": f"/{name}/gqa.json", "images": f"/{name}", "preset": "x"})
        for name, rows in (("a", before), ("b", after))
    )
    assert pair(first, second, NAMES).notes == ()
