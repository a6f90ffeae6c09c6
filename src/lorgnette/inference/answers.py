"""A batch of prompts to answers, whichever kind of model it is."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lorgnette.data.rendered import Rendered
from lorgnette.data.templates import stop_ids
from lorgnette.inference.engine import Generation, generate
from lorgnette.models.learner import Learner
from lorgnette.models.llava import Llava
from lorgnette.models.text_to_text import TextToText


def answer_batch(learner: Learner, prompts: Sequence[Rendered], max_new_tokens: int) -> list[Generation]:
    """Answer a batch of prompts greedily, in the order given.

    Args:
        prompts: what the learner's own renderer made, without labels.
        max_new_tokens: most tokens of an answer, the one that ends it included.
    """
    if not isinstance(learner, Llava):
        return generate_pairs(learner, prompts, max_new_tokens)
    return generate(learner, prompts, learner.collator().pixels, max_new_tokens, stop_ids(learner.template()))


@torch.inference_mode()
def generate_pairs(model: TextToText, prompts: Sequence[Rendered], max_new_tokens: int) -> list[Generation]:
    """Answer a batch of sources greedily, in the order given.

    Args:
        max_new_tokens: most tokens of an answer, the one that ends it included.
    """
    model.model.eval()
    pairs = model.collator()(prompts)["row"].to(model.core.device)
    made = model.core.generate(
        **model.encoder_inputs(pairs), do_sample=False, num_beams=1, max_new_tokens=max_new_tokens
    )
    end = model.tokenizer.eos_token_id
    answers = []
    for row in made[:, 1:].tolist():  # the first is the decoder's start
        ended = end in row
        ids = row[: row.index(end)] if ended else row
        answers.append(Generation(tuple(ids), "end" if ended else "length"))
    return answers
