"""Vision tower + language model -> LLaVA.

Any tower that `AutoModel` loads and that returns hidden states; any causal language model of transformers. The
projector is new. What depends on the tower (class token, number of tokens, patch size) is found by running it once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from typing import Any

import torch
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from lorgnette.data.sample import IMAGE_TAG
from lorgnette.data.templates import chat_template, set_template
from lorgnette.errors import LorgnetteError, ModelError, is_out_of_memory
from lorgnette.models.gemma import pin_activation
from lorgnette.models.llava import Llava
from lorgnette.models.loading import STARTER, bind, explained, image_tokens_of, load_config, require_clean_load
from lorgnette.models.picture_shape import padded, set_side

STARTER_MODELS = ("vision-tower", "language-model")


def assemble(
    vision_tower: str,
    language_model: str,
    *,
    vision_feature_layer: int | Sequence[int] = -2,
    vision_feature_select_strategy: str | None = None,
    image_size: int | None = None,
    do_pad: bool = False,
    template: str | None = None,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    meta: bool = False,
) -> Llava:
    """Put a LLaVA together; all tensors but the projector's and the new image token's are the given models' own.

    Args:
        vision_tower: folder, hub name, or "starter:vision-tower".
        language_model: folder, hub name, or "starter:language-model".
        vision_feature_layer: hidden state(s) of the tower that become image tokens.
        vision_feature_select_strategy: "default" drops the class token, "full" keeps every token; None drops a class
            token where the tower has one.
        image_size: side in pixels that images are brought to; None for the tower's own.
        do_pad: images become squares by padding, whatever the tower's own processor does.
        template: named chat template; None for the tokenizer's own.
        seed: of the projector's and the image token's initial values.
        meta: only the shapes, on the meta device; no weights are read.

    Raises:
        ModelError: if a part cannot be loaded, or the two do not go together.
    """
    tower, image_processor = load_tower(located(vision_tower), image_size, dtype, meta=meta)
    language, tokenizer = _load_language_model(located(language_model), template, dtype, meta)
    if do_pad:
        image_processor = padded(image_processor)
    image_token_id = add_image_token(tokenizer)
    both = f"{vision_tower} + {language_model}"
    with _together(both):
        with torch.random.fork_rng(), torch.device("meta" if meta else "cpu"):
            torch.manual_seed(seed)
            if len(tokenizer) > language.get_input_embeddings().num_embeddings:
                # new rows are drawn around the mean of the old ones; multiples of 64 are what tensor cores want
                language.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=64, mean_resizing=not meta)
            model = _compose(tower, language, image_token_id, vision_feature_layer)
        strategy = vision_feature_select_strategy or _strategy(model, image_processor, vision_tower)
        model.config.vision_feature_select_strategy = strategy
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        model.config.pad_token_id = tokenizer.pad_token_id
        return bind(model.to(dtype).eval(), tokenizer, image_processor, both)


@contextmanager
def _together(both: str) -> Iterator[None]:
    """Turn what two models that do not fit make the libraries raise into a ModelError."""
    try:
        yield
    except LorgnetteError:
        raise
    except Exception as error:  # it has no common class
        if is_out_of_memory(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"{both}: do not make a LLaVA ({reason:.300}). Allowed: a tower that gives hidden states, and a causal "
            "language model that transformers knows."
        ) from error


def located(source: str) -> str:
    """Resolve "starter:NAME" to the folder inside the package; leave other sources as they are.

    Raises:
        ModelError: if there is no such starter model.
    """
    if not source.startswith(STARTER):
        return source
    name = source.removeprefix(STARTER)
    if name not in STARTER_MODELS:
        raise ModelError(f"{source}: no such starter model. Allowed: {', '.join(STARTER + n for n in STARTER_MODELS)}.")
    return str(resources.files("lorgnette") / "starter" / name)


def add_image_token(tokenizer: Any) -> int:
    """Give a tokenizer the image token if it has none, and return its id."""
    if tokenizer.convert_tokens_to_ids(IMAGE_TAG) in (None, tokenizer.unk_token_id):
        tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TAG]}, replace_extra_special_tokens=False)
    return int(tokenizer.convert_tokens_to_ids(IMAGE_TAG))


def load_tower(source: str, image_size: int | None, dtype: torch.dtype | str, *, meta: bool = False) -> tuple[Any, Any]:
    """Load a vision tower and its image processor.

    Args:
        image_size: side in pixels that images are brought to; None for the tower's own.
        dtype: of the weights; "auto" keeps that of the file.
        meta: only the shapes, on the meta device.

    Raises:
        ModelError: if it cannot be loaded, or tensors are missing or left over.
    """
    config = load_config(source)
    # a two-sided model (CLIP, SigLIP) carries its tower's configuration inside
    vision_config = (config.to_dict().get("vision_config") and config.vision_config) or config
    two_sided = vision_config is not config
    if not two_sided and "vocab_size" in config.to_dict():
        raise ModelError(
            f"{source}: is a language model ({config.model_type}), and a vision tower is expected here. Next: the "
            "tower comes first: lorgnette model build VISION_TOWER LANGUAGE_MODEL OUTPUT; in a recipe it is "
            "model.build.vision_tower."
        )
    with explained(source, "vision tower"):
        with torch.device("meta"):
            shapes = AutoModel.from_config(vision_config)
        tower, report = shapes, None
        if not meta:
            tower_class = type(shapes) if two_sided else AutoModel
            tower, report = tower_class.from_pretrained(
                source, config=vision_config, dtype=dtype, output_loading_info=True
            )
        image_processor = AutoImageProcessor.from_pretrained(source, backend="pil", trust_remote_code=False)
    other_side = ("text_model.", "text_projection.", "visual_projection.", "logit_scale", "logit_bias")
    if report is not None:
        require_clean_load(source, report, other_side if two_sided else ())
    if image_size is not None:
        set_side(image_processor, image_size)
    return tower, image_processor


def _load_language_model(source: str, template: str | None, dtype: torch.dtype, meta: bool) -> tuple[Any, Any]:
    config = load_config(source)
    pin_activation(config)
    with explained(source, "language model"):
        if meta:
            with torch.device("meta"):
                language = AutoModelForCausalLM.from_config(config)
        else:
            language, report = AutoModelForCausalLM.from_pretrained(
                source, config=config, dtype=dtype, output_loading_info=True, trust_remote_code=False
            )
            require_clean_load(source, report)
    return language, load_tokenizer(source, template)


def load_tokenizer(source: str, template: str | None) -> Any:
    """Load a tokenizer that can be trained with; a named chat template replaces its own.

    Raises:
        ModelError: if it has no character offsets, or no chat template that ends a turn.
    """
    with explained(source, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        if not tokenizer.is_fast:
            raise ModelError(
                f"{source}: the tokenizer has no character offsets (it is not a fast one), so labels cannot be exact. "
                "Next: choose a language model whose folder has tokenizer.json."
            )
        if template is None:
            chat_template(tokenizer)  # refuses early what cannot be trained with
        else:
            set_template(tokenizer, template)
    return tokenizer


def _strategy(model: Any, image_processor: Any, source: str) -> str:
    """Decide by running the tower: tokens beyond the patch grid mean that a class token stands in front."""
    model.config.vision_feature_select_strategy = "full"
    tokens, (height, width) = image_tokens_of(model, image_processor, source)
    patch = model.config.vision_config.patch_size
    return "default" if tokens > (height // patch) * (width // patch) else "full"


def _compose(tower: Any, language: Any, image_token_id: int, layer: int | Sequence[int]) -> Any:
    config = LlavaConfig(
        vision_config=tower.config,
        text_config=language.config,
        image_token_index=image_token_id,
        vision_feature_layer=layer if isinstance(layer, int) else list(layer),
        projector_hidden_act="gelu",
        tie_word_embeddings=language.config.tie_word_embeddings,
    )
    model = LlavaForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(tower.state_dict(), strict=True)
    model.model.language_model.load_state_dict(language.get_decoder().state_dict(), strict=True)
    if not config.tie_word_embeddings:
        model.lm_head.load_state_dict(language.get_output_embeddings().state_dict(), strict=True)
    model.tie_weights()
    model.generation_config = language.generation_config
    return model
