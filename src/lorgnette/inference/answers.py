"""A batch of prompts to answers, whichever kind of model it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from transformers import LogitsProcessor

from lorgnette.data.rendered import Rendered
from lorgnette.data.templates import stop_ids
from lorgnette.inference.decoding import Decoding, Generation, Growing, next_tokens
from lorgnette.inference.engine import generate
from lorgnette.models.learner import Learner
from lorgnette.models.llava import Llava
from lorgnette.models.text_to_text import TextToText

Choose = Callable[[list[int], torch.Tensor], Sequence[int | None]]
"""(numbers of the N prompts still asked, logits (N, V)) -> the next token of each; None where one is asked no more."""
MOST_STEPS = 1 << 20
"""More than any answer has: `choose` ends them, and without a number `generate` would take one of its own."""


def answer_batch(learner: Learner, prompts: Sequence[Rendered], max_new_tokens: int) -> list[Generation]:
    """Answer a batch of prompts greedily, in the order given.

    Args:
        prompts: what the learner's own renderer made, without labels.
        max_new_tokens: most tokens of an answer, the one that ends it included.
    """
    if isinstance(learner, Llava):
        return generate(learner, prompts, learner.collator().pixels, max_new_tokens, ending_ids(learner))
    answers = [Growing(Decoding(max_new_tokens), ending_ids(learner)) for _ in prompts]
    choose_pairs(learner, prompts, lambda asked, logits: next_tokens([answers[n] for n in asked], logits))
    return [answer.generation for answer in answers]


def ending_ids(learner: Learner) -> frozenset[int]:
    """Return the token ids that end an answer."""
    return stop_ids(learner.template()) if isinstance(learner, Llava) else frozenset([learner.tokenizer.eos_token_id])


def text_of(learner: Learner, ids: Sequence[int]) -> str:
    """Return the text of an answer; white space around it is no part of it."""
    return str(learner.tokenizer.decode(ids, skip_special_tokens=True)).strip()


@torch.inference_mode()
def choose_pairs(model: TextToText, prompts: Sequence[Rendered], choose: Choose) -> None:
    """Answer a batch of sources, token by token, until none is asked any more."""
    model.model.eval()
    pairs = model.collator()(prompts)["row"].to(model.core.device)
    chosen = _Chosen(choose, len(prompts), model.tokenizer.eos_token_id)
    model.core.generate(
        **model.encoder_inputs(pairs),
        do_sample=False,
        num_beams=1,
        max_new_tokens=MOST_STEPS,
        eos_token_id=chosen.end,  # a model's own list may have more, at which it would end what `choose` does not
        logits_processor=[chosen],
        stopping_criteria=[chosen.is_over],
    )


class _Chosen(LogitsProcessor):  # type: ignore[misc]
    """Leave `generate` no choice but the tokens that were chosen; an answer that is complete gets its end."""

    def __init__(self, choose: Choose, prompts: int, end: int) -> None:
        self.choose = choose
        self.asked = list(range(prompts))
        self.end = end

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        tokens = self.choose(self.asked, scores[self.asked].float())
        goes_on = {number: token for number, token in zip(self.asked, tokens, strict=True) if token is not None}
        self.asked = list(goes_on)
        chosen = torch.tensor([[goes_on.get(row, self.end)] for row in range(len(scores))], device=scores.device)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen, 0.0)

    def is_over(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: object) -> torch.Tensor:
        return torch.full((len(input_ids),), not self.asked, device=input_ids.device)
