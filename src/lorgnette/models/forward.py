"""Rows to logits at the labelled positions.

The vision tower runs once per distinct image, outside autograd unless it is trained; the language model runs on the
row's embeddings with block attention; the head runs at the asked positions only.

Shapes: T tokens of a row, U distinct images, N tokens an image, D hidden size of the language model, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lorgnette.data.rows import Row
from lorgnette.errors import ModelError
from lorgnette.models.attention import ROWS
from lorgnette.models.soft_prompt import SoftPrompt


@dataclass(frozen=True)
class PixelScale:
    """How a processor turns bytes into numbers: pixel * factor, less the mean, over the deviation, per channel."""

    factor: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, image_processor: Any) -> PixelScale:
        """Read the scale from an image processor.

        Raises:
            ModelError: if it would make every picture the same, or no number at all.
        """
        channels = 3
        scale = cls(
            float(image_processor.rescale_factor) if image_processor.do_rescale else 1.0,
            tuple(image_processor.image_mean) if image_processor.do_normalize else (0.0,) * channels,
            tuple(image_processor.image_std) if image_processor.do_normalize else (1.0,) * channels,
        )
        finite = all(math.isfinite(number) for number in (scale.factor, *scale.mean, *scale.std))
        if not finite or not scale.factor or not all(scale.std):
            raise ModelError(
                f"the image processor cannot scale pixels: rescale_factor {scale.factor}, image_mean {scale.mean}, "
                f"image_std {scale.std}. Allowed: finite numbers; factor and std not 0."
            )
        return scale

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalise uint8 pixels (U, C, H, W) to float32 of the same shape."""
        mean = torch.tensor(self.mean, device=pixels.device).view(-1, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(-1, 1, 1)
        return (pixels.float() * self.factor - mean) / std


def prepare_for_rows(model: Any) -> None:
    """Switch the language model of a LLaVA to row attention; the vision tower keeps its own."""
    model.model.language_model.set_attn_implementation(ROWS)


def tower_features(model: Any, pixel_values: torch.Tensor) -> torch.Tensor:
    """Run the vision tower and pick its features as `LlavaModel.get_image_features` does.

    Args:
        pixel_values: (U, C, H, W), normalised.

    Returns:
        (U, N, tower's hidden size, times the number of layers where several are picked).
    """
    config = model.config
    trained = any(parameter.requires_grad for parameter in model.model.vision_tower.parameters())
    with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
        hidden = model.model.vision_tower(pixel_values, output_hidden_states=True).hidden_states
    layers = config.vision_feature_layer
    picked = [hidden[layer] for layer in ([layers] if isinstance(layers, int) else layers)]
    if config.vision_feature_select_strategy == "default":
        picked = [layer[:, 1:] for layer in picked]
    return torch.cat(picked, dim=-1)


def image_features(model: Any, pixel_values: torch.Tensor, scale: PixelScale) -> torch.Tensor:
    """Turn uint8 images into features for the language model: (U, C, H, W) -> (U, N, D)."""
    projector = model.model.multi_modal_projector
    tower = next(model.model.vision_tower.parameters())
    features = tower_features(model, scale.normalise(pixel_values.to(tower.device)).to(tower.dtype))
    return projector(features.to(_dtype_at_work(projector)))  # type: ignore[no-any-return]


def _dtype_at_work(module: nn.Module) -> torch.dtype:
    """Return the dtype that a module computes in; PEFT keeps an untrained original in front of the trained copy."""
    *_, last = module.parameters()
    return last.dtype


def row_embeddings(model: Any, row: Row, scale: PixelScale, prompt: SoftPrompt | None = None) -> torch.Tensor:
    """Embed a row's tokens; put the soft prompt and image features where their tokens stand: (1, T, D).

    Raises:
        ModelError: if image tokens and image features differ in number.
    """
    embedding: nn.Module = model.get_input_embeddings()
    embeddings: torch.Tensor = embedding(row.input_ids if prompt is None else row.input_ids.clamp(min=0))
    if prompt is not None:
        embeddings = prompt.fill(row.input_ids, embeddings)
    if row.pixel_values is None:
        return embeddings
    features = image_features(model, row.pixel_values, scale)[row.image_order].flatten(0, 1)  # (M * N, D)
    places = row.input_ids == model.config.image_token_id
    if int(places.sum()) != features.shape[0]:
        raise ModelError(
            f"the row has {int(places.sum())} image tokens but {features.shape[0]} image features "
            f"(samples {', '.join(row.ids[:4])})."
        )
    return embeddings.masked_scatter(places.unsqueeze(-1), features.to(embeddings.dtype))


def row_logits(
    model: Any,
    llava: Any,
    row: Row,
    scale: PixelScale,
    positions: torch.Tensor | None = None,
    prompt: SoftPrompt | None = None,
) -> torch.Tensor:
    """Compute logits at the labelled positions of a row, or at `positions`: (L, V).

    Args:
        model: what to call; the LLaVA itself or a wrapper around it (PEFT, DistributedDataParallel).
        llava: the `LlavaForConditionalGeneration` inside.
        prompt: the soft prompt whose ids the row holds.
    """
    # use_cache=False: a live cache would make transformers think of generation (facts: it drops block masks)
    output = model(
        inputs_embeds=row_embeddings(llava, row, scale, prompt),
        position_ids=row.position_ids,
        use_cache=False,
        logits_to_keep=row.label_positions if positions is None else positions,
        row_layout=row.layout,
    )
    return output.logits[0]  # type: ignore[no-any-return]
