"""What transformers changed about Gemma, and how a LLaVA from before the change is recognised and corrected.

Up to 5.3 Gemma multiplied everything that entered it by the square root of the hidden size: embeddings and, in a LLaVA,
image features too. Since 5.4 the embedding layer does it, so image features stay as the projector gives them. A LLaVA
trained before gives wrong answers about images afterwards, without any error; its text is not affected. What the old
code did to the features is a factor on the projector's last layer, so one multiplication puts it right, exactly once.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from typing import Any

import torch

from lorgnette.errors import ModelError

SCALED_BEFORE_5_4 = ("gemma", "gemma2", "vaultgemma")
"""Language models whose code moved the factor into the embedding layer (4.57.6 compared with 5.23.0)."""
OLD, NEW = "transformers < 5.4", "transformers >= 5.4"
"""For which side of the change a projector's numbers are meant; written into projector folders."""
TANH = "gelu_pytorch_tanh"

_log = logging.getLogger(__name__)


def image_feature_scale(text_config: Any) -> float:
    """Return what transformers before 5.4 multiplied image features by: sqrt(hidden size) in a Gemma, else 1."""
    return math.sqrt(text_config.hidden_size) if text_config.model_type in SCALED_BEFORE_5_4 else 1.0


def saved_before_5_4(config: Any, source: str) -> bool:
    """Tell from a LLaVA's configuration whether its projector is meant for transformers before 5.4.

    Only the version that the folder was saved with can tell: the tensors look alike.

    Raises:
        ModelError: if the language model is one where it matters and the configuration names no version.
    """
    if image_feature_scale(config.text_config) == 1.0:
        return False
    return is_old(config.transformers_version, source)


def is_old(version: Any, source: str) -> bool:
    """Tell whether a version of transformers is before 5.4.

    Raises:
        ModelError: if it is no version.
    """
    numbers = re.match(r"(\d+)\.(\d+)", version) if isinstance(version, str) else None
    if numbers is None:
        raise ModelError(
            f"{source}: config.json has transformers_version {version!r}. A LLaVA on Gemma needs it: image features of "
            "versions before 5.4 are scaled in another way. Next: write the version that the model was trained with "
            'into config.json, for example "transformers_version": "4.42.4".'
        )
    return (int(numbers[1]), int(numbers[2])) < (5, 4)


def side_of(record: Mapping[str, Any], source: str) -> bool | None:
    """Tell from a `lorgnette.json` whether a projector is meant for transformers before 5.4; None if nothing says so.

    Raises:
        ModelError: if it names a version that is none.
    """
    if "meant_for" in record:
        return {OLD: True, NEW: False}.get(record["meant_for"])
    versions = record.get("versions")
    return is_old(versions.get("transformers"), source) if isinstance(versions, Mapping) else None


def correct_projector(model: Any, source: str) -> None:
    """Multiply the projector of a freshly loaded LLaVA where its folder was saved before 5.4, and say so.

    Raises:
        ModelError: if the folder does not say which version saved it, and it matters.
    """
    config = model.config
    if not saved_before_5_4(config, source):
        return
    scale = image_feature_scale(config.text_config)
    last = model.model.multi_modal_projector.linear_2
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.copy_((parameter.float() * scale).to(parameter.dtype))
    _log.warning(
        "%s: saved by transformers %s, which multiplied image features by %.4f (the square root of Gemma's hidden "
        "size). Versions from 5.4 on do not, so the projector's last layer was multiplied instead.",
        source,
        config.transformers_version,
        scale,
    )


def pin_activation(text_config: Any) -> None:
    """Write down the activation that Gemma was trained with, under both of its names.

    The first Gemma files say `hidden_act: gelu` and mean its tanh approximation. Between transformers 4.57 and 5.14 the
    file was taken at its word; an explicit name is read alike by all.
    """
    if text_config.model_type != "gemma":
        return
    asked = text_config.to_dict().get("hidden_activation")
    activation = asked or (TANH if text_config.hidden_act == "gelu" else text_config.hidden_act)
    text_config.hidden_act = activation
    text_config.hidden_activation = activation
