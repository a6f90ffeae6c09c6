"""A batch of prompts to answers, whichever kind of model it is."""

from __future__ import annotations

from collections.abc import Sequence

from lorgnette.data.rendered import Rendered
from lorgnette.data.templates import stop_ids
from lorgnette.inference.engine import Generation, generate
from lorgnette.inference.pairs import generate_pairs
from lorgnette.models.learner import Learner
from lorgnette.models.llava import Llava


def answer_batch(learner: Learner, prompts: Sequence[Rendered], max_new_tokens: int) -> list[Generation]:
    """Answer a batch of prompts greedily, in the order given.

    Args:
        prompts: what the learner's own renderer made, without labels.
        max_new_tokens: most tokens of an answer, the one that ends it included.
    """
    if not isinstance(learner, Llava):
        return generate_pairs(learner, prompts, max_new_tokens)
    return generate(learner, prompts, learner.collator().pixels, max_new_tokens, stop_ids(learner.template()))
