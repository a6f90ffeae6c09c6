"""How tokens are drawn: the distribution itself, against the formula."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import chisquare

from lorgnette.inference.decoding import Decoding, Growing, next_tokens

LOGITS = torch.tensor([2.0, 1.0, 0.5, -1.0, -3.0])


def drawn(decoding: Decoding, count: int) -> torch.Tensor:
    answer = Growing(decoding, frozenset())
    for _ in range(count):
        next_tokens([answer], LOGITS[None])
    return torch.tensor(answer.ids).bincount(minlength=len(LOGITS))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_drawn_with_the_probability_at_their_temperature(temperature: float) -> None:
    counts = drawn(Decoding(10_000, temperature, seed=1), 5_000)
    expected = (LOGITS.double() / temperature).softmax(-1) * 5_000
    assert chisquare(counts, expected).pvalue > 0.001


def test_top_p_draws_from_the_fewest_tokens_that_reach_it() -> None:
    probabilities = LOGITS.double().softmax(-1)  # 0.61, 0.22, 0.14, 0.03, 0.004
    counts = drawn(Decoding(10_000, 1.0, top_p=0.7, seed=1), 5_000)
    assert counts[2:].sum() == 0
    nucleus = probabilities[:2] / probabilities[:2].sum()
    assert chisquare(counts[:2], nucleus * 5_000).pvalue > 0.001


def test_greedy_takes_the_likeliest_and_stops_at_its_end_or_length() -> None:
    answer = Growing(Decoding(3), frozenset({4}))
    taken = [next_tokens([answer], torch.eye(5)[token][None]) for token in (2, 0, 1)]
    assert taken == [[2], [0], [None]]
    assert (answer.generation.ids, answer.generation.stopped_by) == ((2, 0, 1), "length")
    ended = Growing(Decoding(3), frozenset({4}))
    assert [next_tokens([ended], torch.eye(5)[token][None]) for token in (2, 4)] == [[2], [None]]
    assert (ended.generation.ids, ended.generation.stopped_by) == ((2,), "end")
