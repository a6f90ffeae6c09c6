"""A LLaVA folder or hub name to a model and its processor, strictly.

Every unexplained missing, unexpected or wrongly shaped tensor is an error: a tower that was silently initialised anew
looks like a model that cannot see. What a folder holds is decided by its files, never by its name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, LlavaForConditionalGeneration, LlavaProcessor

from lorgnette.data.templates import TEMPLATES, ChatTemplate, chat_template
from lorgnette.errors import LorgnetteError, ModelError, nearest
from lorgnette.models.forward import PixelScale, prepare_for_rows, tower_features

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Llava:
    """A LLaVA with all that is needed to feed it.

    Attributes:
        model: `LlavaForConditionalGeneration`, or PEFT around it.
        processor: `LlavaProcessor`.
        image_tokens: tokens an image, measured by running the tower once.
        scale: how bytes become the tower's input.
        source: folder or hub name it came from.
    """

    model: Any
    processor: Any
    image_tokens: int
    scale: PixelScale
    source: str

    @property
    def tokenizer(self) -> Any:
        """Return the processor's tokenizer."""
        return self.processor.tokenizer

    @property
    def core(self) -> Any:
        """Return the `LlavaForConditionalGeneration` itself, inside PEFT or not."""
        return self.model if isinstance(self.model, LlavaForConditionalGeneration) else self.model.get_base_model()

    @property
    def image_token_id(self) -> int:
        """Return the id that stands for one image token."""
        return int(self.core.config.image_token_id)

    def template(self, name: str | None = None) -> ChatTemplate:
        """Bind the model's own chat template, or a named one."""
        return chat_template(self.tokenizer, name)


def load_llava(source: str, dtype: torch.dtype | str = "auto", template: str | None = None) -> Llava:
    """Load a LLaVA strictly.

    Args:
        source: folder or hub name.
        dtype: of the weights; "auto" keeps that of the file.
        template: a named chat template that replaces the tokenizer's own.

    Raises:
        ModelError: if the folder is missing, incomplete, truncated, or holds something else.
    """
    config = load_config(source)
    if config.model_type != "llava" or "mm_vision_tower" in config.to_dict():
        raise ModelError(
            f"{source}: this is a '{config.model_type}' model"
            f"{' in the layout of the original LLaVA' if 'mm_vision_tower' in config.to_dict() else ''}. "
            "Allowed: a Hugging Face LLaVA (model_type llava). Next: put one together with model.build in a recipe."
        )
    with explained(source, "model"):
        model, report = LlavaForConditionalGeneration.from_pretrained(source, dtype=dtype, output_loading_info=True)
    require_clean_load(source, report)
    with explained(source, "processor"):
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        image_processor = AutoImageProcessor.from_pretrained(source, backend="pil", trust_remote_code=False)
    if template is not None:
        chat_template(tokenizer, template)  # refuses a template that this tokenizer cannot end
        tokenizer.chat_template = TEMPLATES[template].jinja
    return bind(model.eval(), tokenizer, image_processor, source)


def bind(model: Any, tokenizer: Any, image_processor: Any, source: str) -> Llava:
    """Bring model, tokenizer and image processor together, counting the tokens of an image by running the tower.

    Raises:
        ModelError: if the tower refuses the processor's image size, or the tokenizer lacks the image token.
    """
    image_token = tokenizer.convert_ids_to_tokens(model.config.image_token_id)
    if image_token is None or image_token == tokenizer.unk_token:
        raise ModelError(
            f"{source}: the tokenizer has no token {model.config.image_token_id}, the model's image token."
        )
    image_tokens, size = image_tokens_of(model, image_processor, source)
    processor = _processor(model.config, tokenizer, image_processor, image_token, image_tokens, size)
    prepare_for_rows(model)
    return Llava(model, processor, image_tokens, PixelScale.of(image_processor), source)


def image_tokens_of(model: Any, image_processor: Any, source: str) -> tuple[int, tuple[int, int]]:
    """Run the tower on a blank image: (tokens that it gives, (height, width) of the processor's images).

    Raises:
        ModelError: if the tower refuses images of this size.
    """
    blank = image_processor(np.zeros((64, 64, 3), np.uint8), do_rescale=False, do_normalize=False, return_tensors="pt")
    tower = next(model.model.vision_tower.parameters())
    pixels = PixelScale.of(image_processor).normalise(blank["pixel_values"]).to(tower.device, tower.dtype)
    height, width = pixels.shape[-2:]
    try:
        with torch.no_grad():
            return tower_features(model, pixels).shape[1], (height, width)
    except (ValueError, RuntimeError, IndexError) as error:
        raise ModelError(
            f"{source}: the vision tower gives no features for images of {height} x {width} pixels: {error} "
            "Next: leave image_size and vision_feature_layer out of model.build to use the tower's own."
        ) from error


def _processor(
    config: Any, tokenizer: Any, image_processor: Any, image_token: str, image_tokens: int, size: tuple[int, ...]
) -> Any:
    patch = config.vision_config.patch_size
    class_tokens = 1 if config.vision_feature_select_strategy == "default" else 0
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=patch,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        num_additional_image_tokens=image_tokens + class_tokens - (size[0] // patch) * (size[1] // patch),
        image_token=image_token,
        chat_template=tokenizer.chat_template,
    )


def load_config(source: str) -> Any:
    """Load the configuration of a folder or hub name.

    Raises:
        ModelError: if there is none, or it cannot be read.
    """
    path = Path(source)
    if path.exists() and not (path / "config.json").is_file():
        raise ModelError(
            f"{source}: {'the folder has no config.json' if path.is_dir() else 'this is a file'}. Allowed: a Hugging "
            "Face model folder. Next: point to the folder that holds config.json and the safetensors files."
        )
    with explained(source, "config.json"):
        return AutoConfig.from_pretrained(source, trust_remote_code=False)


@contextmanager
def explained(source: str, what: str) -> Iterator[None]:
    """Turn what libraries raise on a broken or missing model into a ModelError that says what to do."""
    try:
        yield
    except LorgnetteError:
        raise
    except Exception as error:  # what a broken folder makes the libraries raise has no common class
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        path = Path(source)
        if path.is_dir():
            files = ", ".join(sorted(entry.name for entry in path.iterdir())) or "nothing"
            remedy = f"The folder holds: {files}. Next: copy the folder anew; a file is missing, truncated or foreign."
        else:
            near = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
            remedy = (
                f"There is no such folder.{nearest(path.name, near)} Next: check the path, or the hub name and network."
            )
        raise ModelError(f"{source}: cannot load the {what}: {reason} {remedy}") from error


def require_clean_load(source: str, report: dict[str, Any], allowed_unexpected: tuple[str, ...] = ()) -> None:
    """Refuse a load with tensors that are missing, of another shape, or left over.

    Raises:
        ModelError: naming the first tensors of each kind.
    """
    unexpected = [key for key in report["unexpected_keys"] if not key.startswith(allowed_unexpected or ("\0",))]
    found = {
        "missing": sorted(report["missing_keys"]),
        "of another shape": sorted(str(key) for key in report["mismatched_keys"]),
        "unexpected": sorted(unexpected),
    }
    problems = [f"{len(keys)} tensors {kind} ({', '.join(keys[:3])})" for kind, keys in found.items() if keys]
    if problems:
        raise ModelError(
            f"{source}: {'; '.join(problems)}. Nothing may be missing or left over. Next: check that all shards are "
            "there and that config.json belongs to them."
        )


def fingerprint(source: str | Path) -> str:
    """Hash what decides a local model's answers: its configuration, tokenizer and weights. Hub names stay names.

    Returns:
        "sha256:..." over the names and contents of the folder's files, or "hub:NAME".
    """
    path = Path(source)
    if not path.is_dir():
        return f"hub:{source}"
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()):
        if file.suffix in {".json", ".safetensors", ".jinja", ".model"} and file.name != "lorgnette.json":
            digest.update(json.dumps([file.name, file.stat().st_size]).encode())
            with file.open("rb") as stream:
                while chunk := stream.read(1 << 22):
                    digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"
