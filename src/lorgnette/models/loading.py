"""A LLaVA folder or hub name to a model and its processor, strictly.

Every unexplained missing, unexpected or wrongly shaped tensor is an error: a tower that was silently initialised anew
looks like a model that cannot see. What a folder holds is decided by its files, never by its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoTokenizer,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedConfig,
)

from lorgnette.data.templates import set_template, taking_parts
from lorgnette.errors import LorgnetteError, ModelError, first_line, is_out_of_memory, nearest, typed
from lorgnette.models.conversion.weights import wants_more
from lorgnette.models.forward import PixelScale, prepare_for_rows, tower_features
from lorgnette.models.gemma import correct_projector, pin_activation
from lorgnette.models.hub import require_reachable
from lorgnette.models.llava import Llava, blank_image
from lorgnette.models.quantization import four_bit, hold_to_plan
from lorgnette.models.soft_prompt import PROMPT_FOLDER, read_prompt

STARTER = "starter:"
"""How the names of the two models inside the package begin."""
REFUSED_PICKLE = "Weights only load failed"
"""How torch begins when a pickle asks for more than tensors; its advice is to open it all the same."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def dtype_name(dtype: torch.dtype | str) -> str:
    """Return a dtype's name as configurations have it: bfloat16."""
    return str(dtype).removeprefix("torch.")


def load_llava(
    source: str,
    dtype: torch.dtype | str = "auto",
    template: str | None = None,
    quantization: Mapping[str, Any] | None = None,
    *,
    meta: bool = False,
) -> Llava:
    """Load a LLaVA strictly, with the soft prompt that its folder may hold.

    Args:
        source: folder or hub name.
        dtype: of the weights; "auto" keeps that of the file.
        template: a named chat template that replaces the tokenizer's own.
        quantization: how the language model's linear layers are held in 4 bits, see `models/quantization.py`.
        meta: only the shapes, on the meta device; no weights are read.

    Raises:
        ModelError: if the folder is missing, incomplete, truncated, or holds something else.
        MissingExtra: if it is to be quantized and bitsandbytes is not installed.
    """
    config = load_config(source)
    if config.model_type != "llava":
        raise ModelError(
            f"{source}: this is a '{config.model_type}' model. Allowed: a Hugging Face LLaVA (model_type llava). Next: "
            "put one together with model.build in a recipe."
        )
    pin_activation(config.text_config)
    with explained(source, "model"):
        if meta:
            with torch.device("meta"):
                model = LlavaForConditionalGeneration(config)
        else:
            model, report = LlavaForConditionalGeneration.from_pretrained(
                source,
                config=config,
                dtype=dtype,
                quantization_config=None if quantization is None else four_bit(quantization),
                output_loading_info=True,
            )
            require_clean_load(source, report)
    if quantization is not None and not meta:
        hold_to_plan(model)
    if not meta:
        correct_projector(model, source)
    with explained(source, "processor"):
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        image_processor = AutoImageProcessor.from_pretrained(source, backend="pil", trust_remote_code=False)
    if template is not None:
        set_template(tokenizer, template)
    with explained(source, "model with its processor"):
        llava = replace(bind(model.eval(), tokenizer, image_processor, source), quantization=quantization)
    prompt = Path(source) / PROMPT_FOLDER
    return replace(llava, soft_prompt=read_prompt(model, prompt)) if prompt.is_dir() else llava


def bind(model: Any, tokenizer: Any, image_processor: Any, source: str) -> Llava:
    """Bring model, tokenizer and image processor together, counting the tokens of an image by running the tower.

    Raises:
        ModelError: if the tower refuses the processor's image size, or the tokenizer lacks the image token.
    """
    image_token = tokenizer.convert_ids_to_tokens(model.config.image_token_id)
    if image_token is None or image_token == tokenizer.unk_token:
        raise ModelError(
            f"{source}: the tokenizer has no token {model.config.image_token_id}, the model's image token. Next: take "
            "the tokenizer that the model was saved with."
        )
    if isinstance(tokenizer.chat_template, str):
        tokenizer.chat_template = taking_parts(tokenizer, tokenizer.chat_template)
    image_tokens, size = image_tokens_of(model, image_processor, source)
    processor = _processor(model.config, tokenizer, image_processor, image_token, image_tokens, size)
    prepare_for_rows(model)
    return Llava(model, processor, image_tokens, PixelScale.of(image_processor), source)


def image_tokens_of(model: Any, image_processor: Any, source: str) -> tuple[int, tuple[int, int]]:
    """Run the tower on a blank image: (tokens that it gives, (height, width) of the processor's images).

    Raises:
        ModelError: if the tower refuses images of this size.
    """
    tower = next(model.model.vision_tower.parameters())
    pixels = PixelScale.of(image_processor).normalise(blank_image(image_processor)).to(tower.device, tower.dtype)
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
    if source.startswith(STARTER):
        raise ModelError(
            f"{source}: is half of a model that comes with the package. Allowed: a whole model. Next: lorgnette model "
            f"build {STARTER}vision-tower {STARTER}language-model OUTPUT"
        )
    if not path.exists() and (why := _looks_local(source)) is not None:
        near = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise ModelError(f"{source}: there is no such folder{why}.{nearest(path.name, near)} Next: check the path.")
    if not path.exists():
        require_reachable(source)
    if path.is_dir() and not (path / "config.json").is_file() and (inside := _models_in(path)):
        raise ModelError(f"{source}: the folder has no config.json; it holds models. Next: give {' or '.join(inside)}")
    if path.exists() and not (path / "config.json").is_file():
        raise ModelError(
            f"{source}: {'the folder has no config.json' if path.is_dir() else 'this is a file'}. Allowed: a Hugging "
            "Face model folder. Next: point to the folder that holds config.json and the safetensors files."
        )
    with explained(source, "config.json"):
        content, _ = PreTrainedConfig.get_config_dict(source)
        for holds, what in (
            ("mm_vision_tower" in content, "a model in the layout of the original LLaVA"),
            (content.get("model_type") == "internlm2", "InternLM2, which needs code from its folder"),
        ):
            if holds:
                raise ModelError(
                    f"{source}: this is {what}. Allowed: what transformers knows by itself. Next: lorgnette model "
                    f"convert {typed(source)} OUTPUT --to hf"
                )
        return AutoConfig.from_pretrained(source, trust_remote_code=False)


def _looks_local(source: str) -> str | None:
    """Return why a name can only be that of a folder, as an addition to a sentence; None if the hub may know it."""
    if source.startswith(("/", "./", "../", "~")) or source.count("/") > 1:  # hub names have one slash at most
        return ""
    first, slash, _ = source.partition("/")
    return f" in {first}/, which is a folder here" if slash and Path(first).is_dir() else None


def _models_in(folder: Path) -> list[str]:
    """Return what the folder of a run or of a stage holds that can be used as a model."""
    found = [folder / name for name in ("merged", "trained") if (folder / name).is_dir()]
    return [str(place) for place in found or sorted(folder.glob("stages/*/trained"))]


@contextmanager
def explained(source: str, what: str) -> Iterator[None]:
    """Explain what libraries raise on a broken or missing model.

    Raises:
        ModelError: in its place, with what the folder holds and what to do.
    """
    try:
        yield
    except LorgnetteError:
        raise
    except Exception as error:  # what a broken folder makes the libraries raise has no common class
        if is_out_of_memory(error):
            raise
        if REFUSED_PICKLE in str(error):
            raise ModelError(f"{source}: cannot load the {what}: {wants_more(error)}") from error
        reason = first_line(error)
        if not reason.endswith((".", "!", "?", ":")):
            reason += "."
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
