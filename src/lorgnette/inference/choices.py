"""Multiple choice from one forward pass: how likely a model is to begin its answer with each option.

The prompts of a batch stand in one row, those about the same images share their prefix, and logits exist at the last
place of each prompt only: nothing is generated, and an option costs no forward pass of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from lorgnette.data.rendered import Rendered
from lorgnette.data.rendering import Renderer
from lorgnette.data.rows import Pixels, build_row
from lorgnette.data.sample import Turn
from lorgnette.errors import DataError
from lorgnette.models.forward import row_logits
from lorgnette.models.llava import Llava


@dataclass(frozen=True, slots=True)
class Choice:
    """Which option a model prefers.

    Attributes:
        option: the most likely one; the first of them where several are equally likely.
        log_probabilities: option -> natural logarithm of the probability, among all tokens, of its first token.
        said: whether that token is the most likely of all, so that generating would begin with it too.
    """

    option: str
    log_probabilities: dict[str, float]
    said: bool


def option_tokens(renderer: Renderer, turns: Sequence[Turn], options: Sequence[str]) -> dict[str, int]:
    """Find the token that each option begins with where it answers these turns.

    "A" and " A" are different tokens; which of them follows the prompt is decided by the chat template and tokenizer.

    Raises:
        DataError: if an option is no text of its own in the tokens, or two of them begin with the same one.
    """
    tokens = {option: renderer.first_answer_token(turns, option) for option in options}
    if len(set(tokens.values())) < len(options):
        raise DataError(
            f"options {', '.join(options)} do not all begin with a token of their own. Allowed: options that differ in "
            "their first token, such as letters."
        )
    return tokens


@torch.inference_mode()
def choose(
    llava: Llava, prompts: Sequence[Rendered], pixels: Pixels, options: Sequence[Mapping[str, int]]
) -> list[Choice]:
    """Score the options of a batch of prompts in one forward pass.

    Args:
        prompts: rendered without labels, up to where the answer begins.
        pixels: reads an image to uint8 (C, H, W).
        options: for each prompt, option -> its first token, from `option_tokens`.

    Returns:
        one choice a prompt, in the order given.
    """
    llava.model.eval()
    device = next(llava.core.parameters()).device
    row = build_row(prompts, pixels, llava.core.config.image_token_id).to(device)
    logits = row_logits(llava.model, llava.core, row, llava.scale, row.last_places, llava.soft_prompt).float()
    likely = logits.log_softmax(-1)  # (prompts, V)
    return [_choice(scores, asked) for scores, asked in zip(likely, options, strict=True)]


def _choice(scores: torch.Tensor, options: Mapping[str, int]) -> Choice:
    values = dict(zip(options, scores[list(options.values())].tolist(), strict=True))
    chosen = max(values, key=lambda option: values[option])
    return Choice(chosen, values, int(scores.argmax()) == options[chosen])
