"""A model by its shapes alone: tokenizer, renderer, number of tokens an image, parameters. No weights are read.

Modules lie on torch's `meta` device, where tensors have shapes and no values, so that a recipe can be looked at and its
data checked for a model that does not fit on this machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lorgnette.data.rendering import Renderer
from lorgnette.data.templates import chat_template
from lorgnette.models.assembly import add_image_token, load_tokenizer, located
from lorgnette.models.learner import Learner, load_model
from lorgnette.models.loading import load_config


@dataclass(frozen=True)
class LanguageModelAlone:
    """A language model without eyes, as far as data is concerned: an image counts as one token."""

    tokenizer: Any
    image_tokens = 1

    def renderer(self, template: str | None = None, max_text_tokens: int | None = None) -> Renderer:
        """Return what turns samples into ids and labels."""
        image_token_id = add_image_token(self.tokenizer)
        return Renderer(chat_template(self.tokenizer, template), image_token_id, self.image_tokens, max_text_tokens)


def outline(source: str, template: str | None = None) -> Learner | LanguageModelAlone:
    """Outline a finished model, or a language model alone.

    Args:
        source: folder, hub name, or "starter:language-model".
        template: a named chat template that replaces the tokenizer's own.

    Raises:
        ModelError: if it cannot be read, or its tokenizer cannot be trained with.
    """
    config = load_config(located(source))
    if config.model_type == "llava" or config.is_encoder_decoder:
        return load_model(source, template=template, meta=True)
    return LanguageModelAlone(load_tokenizer(located(source), template))
