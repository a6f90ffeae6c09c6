"""Letters are read as MMBench's evaluator reads them; folding is an option; circular groups follow MMBench's rule."""

from __future__ import annotations

import pytest

from lorgnette.evaluation.metrics.multiple_choice import CIRCLE, circular, read_choice

CHOICES = {"A": "кошка", "B": "собака", "C": "лошадь", "D": "корова"}


def test_reading_equals_mmbenchs_evaluator(vectors) -> None:
    given = vectors("vqa_and_choices")["mmbench_prefetch"]
    assert len(given["cases"]) == 26
    for answer, letter in given["cases"]:
        assert (read_choice(answer, given["choices"]) or False) == letter, answer


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("А", "A"),
        ("В.", "B"),
        ("(С)", "C"),
        ("Ответ: В", "B"),
        ("Ответ В", "B"),
        ("Е)", "E"),
        ("Д", None),  # looks like no Latin letter
        ("В доме кошка и собака", None),  # a preposition, not a letter
        ("А это собака", "B"),  # a conjunction, then an option's text
        ("С корова", "D"),
        ("D", "D"),
        ("B или В", "B"),  # the Latin one is a letter without folding
    ],
)
def test_folding_reads_cyrillic_look_alikes(answer: str, letter: str | None) -> None:
    assert read_choice(answer, CHOICES, fold=True) == letter


def test_without_folding_a_cyrillic_letter_is_unread() -> None:
    assert read_choice("В", CHOICES) is None


def test_the_prompts_alphabet_decides_what_a_look_alike_is() -> None:
    """Where the prompt lists А Б В Г Д, В is the third option and never B."""
    choices = {"А": "кошка", "Б": "собака", "В": "лошадь", "Г": "корова"}
    assert read_choice("В", choices, "АБВГД") == "В"
    assert read_choice("B", choices, "АБВГД") is None
    assert read_choice("B", choices, "АБВГД", fold=True) == "В"
    assert read_choice("C", choices, "АБВГД", fold=True) is None


def test_circular_groups() -> None:
    """Four groups as lmms-eval scores them (0.75), then one incomplete and one without its main row."""
    indices = [1, 1 + CIRCLE, 2, 2 + CIRCLE, 3, 3 + CIRCLE, 4]
    right = [True, True, True, False, True, True, True]
    found = circular(indices, right, [2] * len(indices))
    assert found.hits == {1: 1.0, 2: 0.0, 3: 1.0, 4: 1.0}
    assert (found.incomplete, found.without_main) == (1, 0)
    orphaned = circular([5 + CIRCLE, 5 + 2 * CIRCLE], [True, True], [3, 3])
    assert (orphaned.hits, orphaned.incomplete, orphaned.without_main) == ({}, 1, 1)
