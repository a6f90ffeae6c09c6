"""A LLaVA with all that is needed to feed it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import LlavaForConditionalGeneration

from lorgnette.data.dataset import RowCollator
from lorgnette.data.rendering import Renderer, TooLong
from lorgnette.data.rows import Row
from lorgnette.data.templates import ChatTemplate, chat_template
from lorgnette.models.forward import PixelScale, prepare_for_rows, row_logits
from lorgnette.models.picture_shape import Shape, shape_of
from lorgnette.models.soft_prompt import SoftPrompt, Whole
from lorgnette.models.trainable import PARTS, tower_parameters_that_learn


@dataclass(frozen=True)
class Llava:
    """A LLaVA with all that is needed to feed it.

    Attributes:
        model: `LlavaForConditionalGeneration`, or PEFT around it.
        processor: `LlavaProcessor`.
        image_tokens: tokens an image, measured by running the tower once.
        scale: how bytes become the tower's input.
        source: folder or hub name it came from.
        soft_prompt: trained vectors in front of every sample, or None.
        quantization: the plan by which the language model is held in 4 bits, or None.
    """

    model: Any
    processor: Any
    image_tokens: int
    scale: PixelScale
    source: str
    soft_prompt: SoftPrompt | None = None
    quantization: Mapping[str, Any] | None = None

    parts = tuple(PARTS)

    @property
    def module(self) -> nn.Module:
        """Return everything that has parameters as one module: the model, with the soft prompt beside it."""
        plain = self.soft_prompt is None and self.quantization is None
        return self.model if plain else Whole(self.model, self.soft_prompt)

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """Return the ids that stand for the soft prompt in front of every sample."""
        return () if self.soft_prompt is None else self.soft_prompt.ids

    @property
    def image_size(self) -> tuple[int, int]:
        """Return (height, width) of the images that the processor gives."""
        height, width = blank_image(self.processor.image_processor).shape[-2:]
        return height, width

    @property
    def picture_shape(self) -> Shape:
        """Tell what becomes of pictures that are no squares."""
        return shape_of(self.processor.image_processor)

    @property
    def tokenizer(self) -> Any:
        """Return the processor's tokenizer."""
        return self.processor.tokenizer

    @property
    def core(self) -> Any:
        """Return the `LlavaForConditionalGeneration` itself, inside PEFT or not."""
        return self.model if isinstance(self.model, LlavaForConditionalGeneration) else self.model.get_base_model()

    def template(self, name: str | None = None) -> ChatTemplate:
        """Bind the model's own chat template, or a named one."""
        return chat_template(self.tokenizer, name)

    def template_text(self, name: str | None = None) -> str | None:
        """Return the text of a chat template, the model's own or a named one."""
        return self.template(name).jinja

    def renderer(
        self,
        template: str | None = None,
        max_text_tokens: int | None = None,
        too_long: TooLong = "drop_turns",
        soft_prompt: tuple[int, ...] | None = None,
    ) -> Renderer:
        """Return what turns samples into ids and labels."""
        ids = self.prompt_ids if soft_prompt is None else soft_prompt
        image_token_id = self.core.config.image_token_id
        return Renderer(self.template(template), image_token_id, self.image_tokens, max_text_tokens, too_long, ids)

    def collator(self, share_images: bool = True) -> RowCollator:
        """Return what makes rows of rendered samples."""
        return RowCollator(self.processor.image_processor, self.core.config.image_token_id, share_images)

    def logits(self, batch: Row, model: nn.Module | None = None) -> torch.Tensor:
        """Compute logits at the labelled positions of a row: (L, V).

        Args:
            model: what to call; this one's own, or a wrapper around it.
        """
        return row_logits(model or self.model, self.core, batch, self.scale, prompt=self.soft_prompt)

    def learning_tower(self, modes: Mapping[str, str], last_layers: int | None) -> frozenset[str] | None:
        """Name the vision tower's parameters that learn; None where it is frozen.

        Raises:
            ModelError: if it has fewer layers than `last_layers`.
        """
        if modes["vision_tower"] == "frozen":
            return None
        return tower_parameters_that_learn(self.core, self.image_size, last_layers)

    def use_template(self, text: str) -> None:
        """Make a text the model's own chat template, which is saved with it."""
        self.processor.chat_template = self.tokenizer.chat_template = text

    def hold_still(self, modes: Mapping[str, str]) -> None:
        """Switch dropout off in a frozen tower; transformers' trainer switches it on in the whole model."""
        if modes["vision_tower"] == "frozen":
            self.core.model.vision_tower.eval()

    def merged(self, plain: Any) -> Llava:
        """Return the same with a plain model in place of the one with adapters."""
        prepare_for_rows(plain)
        return replace(self, model=plain)


def blank_image(image_processor: Any) -> torch.Tensor:
    """Return a blank image as the processor gives it: (1, 3, H, W), not normalised."""
    blank = image_processor(np.zeros((64, 64, 3), np.uint8), do_rescale=False, do_normalize=False, return_tensors="pt")
    return blank["pixel_values"]  # type: ignore[no-any-return]
