"""Exact match equals lmms-eval's; dictionary forms match what it tells apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorgnette.evaluation.metrics.exact_match import exact_match
from lorgnette.evaluation.metrics.lemma_match import lemma_match, lemmas


def test_exact_match_equals_lmms_eval(vectors) -> None:
    cases = vectors("vqa_and_choices")["gqa_ru_exact_match"]
    assert len(cases) == 11
    for reference, answer, right in cases:
        assert exact_match(answer, reference) == float(right), (answer, reference)


def test_the_answer_alone_is_stripped_and_inner_spaces_stay() -> None:
    assert exact_match("  Red \n", "red") == 1.0
    assert exact_match("red", " red") == 0.0
    assert exact_match("dark  red", "dark red") == 0.0
    assert exact_match("no", ("yes", "No.")) == 1.0


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("Красная.", "красный", 1.0),
        ("«Коты»", "кот", 1.0),
        ("зелёная ёлка", "ЗЕЛЕНЫЙ ЕЛКА", 1.0),
        ("на столе", "стол", 0.0),
        ("два", "2", 0.0),
        ("светло-серый", "светлосерый", 1.0),
        ("cats", "cat", 0.0),
        ("да — да", "да да", 1.0),
    ],
)
def test_dictionary_forms(answer: str, reference: str, right: float) -> None:
    assert lemma_match(answer, reference) == right


def test_lemmas_of_a_sentence() -> None:
    assert lemmas("Чёрные собаки бежали, да?") == ["черный", "собака", "бежать", "да"]


@given(st.text(alphabet="аАёЁб-.,! «»—", max_size=8), st.text(alphabet="аАёЁб-.,! «»—", max_size=8))
def test_what_exact_match_calls_equal_is_equal_by_dictionary_form(answer: str, reference: str) -> None:
    assert lemma_match(answer, reference) >= exact_match(answer, reference)
