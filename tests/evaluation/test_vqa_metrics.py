"""EvalAI normalisation equals the upstream processor's; soft accuracy equals its definition."""

from __future__ import annotations

import itertools

import pytest

from lorgnette.evaluation.metrics.vqa import CONTRACTIONS, evalai_normalised, vqa_accuracy


def test_normalisation_equals_upstream(vectors) -> None:
    cases = vectors("vqa_and_choices")["evalai"]
    assert len(cases) == 24
    for text, normalised in cases.items():
        assert evalai_normalised(text) == normalised, text


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("thats", "that's"),
        ("couldnt've", "couldn't've"),
        ("y'allll", "y'all'll"),
        ("somebody'd", "somebodyd"),  # a slip of upstream's that scores depend on
        ("a. " * 34, "a. a."),  # at most 32 full stops are taken away
    ],
)
def test_traps_of_upstream_are_kept(text: str, normalised: str) -> None:
    assert evalai_normalised(text) == normalised


def test_contractions() -> None:
    assert len(CONTRACTIONS) == 114
    assert CONTRACTIONS["oclock"] == "o'clock"


@pytest.mark.parametrize(("same", "score"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_soft_accuracy_of_ten_answers(same: int, score: float) -> None:
    assert vqa_accuracy("Red.", ["red"] * same + ["blue"] * (10 - same)) == pytest.approx(score, abs=1e-12)


def test_soft_accuracy_is_the_mean_over_subsets_without_one_person() -> None:
    answers = ["two", "2", "three", "2", "a few", "4"]
    subsets = [[*answers[:out], *answers[out + 1 :]] for out in range(len(answers))]
    expected = [min(1.0, sum(evalai_normalised(a) == "2" for a in subset) / 3) for subset in subsets]
    assert vqa_accuracy("Two", answers) == pytest.approx(sum(expected) / len(expected), abs=1e-12)


def test_few_answers_are_right_if_one_of_them_was_given() -> None:
    for count, answer in itertools.product((1, 2, 3), ("red", "The red")):
        assert vqa_accuracy(answer, ["red", "blue", "green"][:count]) == 1.0
        assert vqa_accuracy("pink", ["red", "blue", "green"][:count]) == 0.0
