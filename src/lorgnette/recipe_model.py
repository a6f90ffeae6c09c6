"""The model of a recipe: built, by its shapes alone, and what each stage would train of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lorgnette.models.assembly import assemble
from lorgnette.models.learner import Learner, load_model
from lorgnette.models.llava import Llava
from lorgnette.models.loading import DTYPES
from lorgnette.models.trainable import Part, parts_table
from lorgnette.recipe.model import Model
from lorgnette.recipe.sections import Recipe
from lorgnette.training.arguments import rates_of, training_arguments
from lorgnette.training.stages import modes_of, prepare


def built(model: Model, seed: int, *, meta: bool = False) -> Llava:
    """Put together what a `build` section asks for.

    Args:
        seed: of the new projector.
        meta: only the shapes; no weights are read.

    Raises:
        ModelError: if a part cannot be loaded, or the two do not go together.
    """
    build = model.build
    assert build is not None
    return assemble(
        build.vision_tower,
        build.language_model,
        vision_feature_layer=build.vision_feature_layer,
        vision_feature_select_strategy=build.vision_feature_select_strategy,
        image_size=build.image_size,
        do_pad=build.do_pad,
        template=model.chat_template,
        dtype=DTYPES[model.dtype],
        seed=seed,
        meta=meta,
    )


def outline_of(model: Model) -> Learner:
    """Outline the model of a recipe: its shapes, tokenizer and renderer, without weights.

    Raises:
        ModelError: if its tokenizer or configuration cannot be used.
    """
    if model.build is not None:
        return built(model, 0, meta=True)
    return load_model(str(model.base), template=model.chat_template, meta=True)


def outlines(recipe: Recipe) -> Iterator[tuple[str, Learner, list[Part], str]]:
    """Yield for every stage its title, model, table of parts and dtype, by shapes alone."""
    for stage in recipe.stages:
        prepared = prepare(stage, outline_of(recipe.model))
        rates = rates_of(stage, training_arguments(stage, Path(stage.name), recipe.seed).learning_rate)
        parts = parts_table(prepared.module, modes_of(stage, prepared), rates)
        held = "4 bits in the language model" if recipe.model.quantization else recipe.model.dtype
        yield f"stage {stage.name}", prepared, parts, held


def plan_of(model: Model) -> dict[str, Any] | None:
    """Return how the language model is held in 4 bits while it is trained and measured before, or None."""
    return model.quantization.model_dump() if model.quantization else None
