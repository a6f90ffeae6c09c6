"""What rendering needs of a model: tokenizer, image token, number of tokens an image. Without its weights.

The tower runs on torch's `meta` device, where tensors have shapes and no values, so that data can be checked for a
model that does not fit on this machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoImageProcessor, LlavaForConditionalGeneration

from lorgnette.data.templates import ChatTemplate, chat_template
from lorgnette.models.assembly import (
    add_image_token,
    composed_config,
    feature_strategy,
    load_tokenizer,
    located,
    set_image_size,
    vision_config_of,
)
from lorgnette.models.loading import explained, image_tokens_of, load_config


@dataclass(frozen=True)
class Outline:
    """A model as far as its data is concerned; `image_tokens` is how many tokens an image is."""

    tokenizer: Any
    image_token_id: int
    image_tokens: int

    def template(self, name: str | None = None) -> ChatTemplate:
        """Bind the model's own chat template, or a named one."""
        return chat_template(self.tokenizer, name)


def outline(source: str, template: str | None = None) -> Outline:
    """Outline a finished LLaVA, or a language model alone, for which an image is one token.

    Args:
        source: folder, hub name, or "starter:language-model".
        template: a named chat template that replaces the tokenizer's own.

    Raises:
        ModelError: if it cannot be read, or its tokenizer cannot be trained with.
    """
    source = located(source)
    config = load_config(source)
    tokenizer = load_tokenizer(source, template)
    if config.model_type != "llava":
        return Outline(tokenizer, add_image_token(tokenizer), 1)
    with explained(source, "image processor"):
        image_processor = AutoImageProcessor.from_pretrained(source, backend="pil", trust_remote_code=False)
    tokens, _ = image_tokens_of(_shapes(config, source), image_processor, source)
    return Outline(tokenizer, config.image_token_id, tokens)


def outline_build(
    vision_tower: str,
    language_model: str,
    *,
    vision_feature_layer: int | Sequence[int] = -2,
    vision_feature_select_strategy: str | None = None,
    image_size: int | None = None,
    template: str | None = None,
) -> Outline:
    """Outline the LLaVA that `assemble` would put together of two models.

    Raises:
        ModelError: as `assemble`, as far as configurations and the tokenizer tell.
    """
    tower, words = located(vision_tower), located(language_model)
    tokenizer = load_tokenizer(words, template)
    with explained(tower, "image processor"):
        image_processor = AutoImageProcessor.from_pretrained(tower, backend="pil", trust_remote_code=False)
    if image_size is not None:
        set_image_size(image_processor, image_size)
    image_token_id = add_image_token(tokenizer)
    vision = vision_config_of(load_config(tower))
    model = _shapes(composed_config(vision, load_config(words), image_token_id, vision_feature_layer), tower)
    strategy = vision_feature_select_strategy or feature_strategy(model, image_processor, vision_tower)
    model.config.vision_feature_select_strategy = strategy
    return Outline(tokenizer, image_token_id, image_tokens_of(model, image_processor, vision_tower)[0])


def _shapes(config: Any, source: str) -> Any:
    with explained(source, "model's shapes"), torch.device("meta"):
        return LlavaForConditionalGeneration(config)
