"""The recipe's `model` section: what a run starts from, and how its weights are held."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lorgnette.recipe.fields import raise_all

Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """Refuse unknown fields, converted types and later changes; only lists are converted, to tuples."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Build(Section):
    """A new LLaVA from two models that have never met; the projector between them starts untrained."""

    vision_tower: Text
    """The model that sees: a folder, a hub name, or `starter:vision-tower`."""
    language_model: Text
    """The model that speaks: a folder, a hub name, or `starter:language-model`."""
    vision_feature_layer: int | Annotated[tuple[int, ...], Field(strict=False, min_length=1)] = -2
    """The layer of the tower whose output is projected (-1 is the last); a list joins several layers."""
    vision_feature_select_strategy: Literal["default", "full"] | None = None
    """`default` leaves out the class token, `full` keeps all tokens; null: `default` if the tower has one."""
    image_size: Count | None = None
    """The side in pixels of the square that the image processor gives; null: the tower's own."""
    do_pad: bool = False
    """Images become squares by adding the mean colour at two sides, as in LLaVA and XTuner; false: by the way of the
    tower's own processor, which for CLIP and DINOv2 cuts off what is outside the middle square."""


class Quantization(Section):
    """The language model's linear layers in 4 bits (QLoRA); needs `pip install 'lorgnette[qlora]'`."""

    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4"
    """The 16 values that a weight can take: `nf4` fits weights that are spread like a bell."""
    bnb_4bit_use_double_quant: bool = True
    """The scales are quantized too: 0.4 bits a weight less."""
    bnb_4bit_compute_dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """In which dtype the layers compute."""


class Model(Section):
    """The model to start from: exactly one of `base` and `build`."""

    base: Text | None = None
    """A finished LLaVA: a folder or a hub name."""
    build: Build | None = None
    """The two models of a new LLaVA."""
    chat_template: Text | None = None
    """How turns become text, by name: vicuna_v1, llava_v1, plain, chatml...; null: the tokenizer's own."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """In which dtype frozen weights are held. Weights that train are float32 in any case."""
    quantization: Quantization | None = None
    """Hold the language model in 4 bits, in training and when it is measured; null: in `dtype`."""

    @model_validator(mode="after")
    def _base_or_build(self) -> Self:
        if (self.base is None) == (self.build is None):
            got = "neither is given" if self.base is None else "both are given"
            raise_all("Model", [((), None, f"needs exactly one of base and build; {got}")])
        return self
