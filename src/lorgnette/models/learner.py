"""Whatever can be trained, measured and merged: a LLaVA or a text-to-text model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lorgnette.errors import ModelError
from lorgnette.models.llava import Llava
from lorgnette.models.loading import load_config, load_llava
from lorgnette.models.saving import save_llava
from lorgnette.models.text_to_text import TextToText, load_text_to_text

Learner = Llava | TextToText


def load_model(
    source: str,
    dtype: torch.dtype | str = "auto",
    template: str | None = None,
    quantization: Mapping[str, Any] | None = None,
    *,
    meta: bool = False,
) -> Learner:
    """Load a LLaVA or a text-to-text model, whichever the configuration says it is; arguments as in `load_llava`.

    Raises:
        ModelError: if the model cannot be loaded, or what was asked does not go with it.
    """
    if not load_config(source).is_encoder_decoder:
        return load_llava(source, dtype, template, quantization, meta=meta)
    if quantization is not None:
        raise ModelError(f"{source}: quantization of a text-to-text model is not possible. Next: leave it out.")
    loaded = load_text_to_text(source, dtype, meta=meta)
    loaded.template_text(template)
    return loaded


def save_model(learner: Learner, folder: Path, record: dict[str, Any], max_shard_size: str = "4GB") -> None:
    """Write a model and `lorgnette.json` (what the folder is and where it came from), whole or not at all."""
    if isinstance(learner, Llava):
        save_llava(learner, folder, record, max_shard_size)
    else:
        learner.save(folder, record, max_shard_size)
