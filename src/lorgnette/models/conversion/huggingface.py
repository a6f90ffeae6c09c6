"""LLaVA in the layout of Hugging Face: a folder to its parts, and parts to a folder that transformers 4 and 5 read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from transformers import AutoImageProcessor, AutoTokenizer, GenerationConfig, LlavaForConditionalGeneration
from transformers.core_model_loading import revert_weight_conversion

from lorgnette.data.templates import TEMPLATES, set_template
from lorgnette.errors import ModelError
from lorgnette.models.conversion.names import PartMap, join, require_same, shapes_of, split, without_recomputed
from lorgnette.models.conversion.parts import Layer, Projector, folded, projector_from
from lorgnette.models.conversion.weights import LazyTensor, Tensors, read_folder, write_weights
from lorgnette.models.gemma import NEW, OLD, image_feature_scale, pin_activation, saved_before_5_4
from lorgnette.models.loading import bind, explained, load_config
from lorgnette.models.saving import NESTED_TOWERS, finish_generation, write_beside_weights
from lorgnette.models.trainable import PARTS
from lorgnette.run import whole_folder

NESTED = "vision_model."
"""The level that transformers 5.6 dropped from the names of CLIP's and SigLIP's tensors."""
WRITTEN: PartMap = {
    "language_model.model.": ("language_model", "model."),
    "language_model.lm_head.": ("language_model", "lm_head."),
    "vision_tower.": ("vision_tower", ""),
    "multi_modal_projector.": ("projector", ""),
}
"""Names in files, as transformers 4 wrote them and 5 still does."""
MEMORY: PartMap = {
    PARTS["language_model"]: ("language_model", "model."),
    "lm_head.": ("language_model", "lm_head."),
    PARTS["vision_tower"]: ("vision_tower", ""),
    PARTS["projector"]: ("projector", ""),
}
"""Names in the memory of transformers 5, but for the level that it dropped from the tower's; some files have them."""
FILES: PartMap = {**WRITTEN, **MEMORY}
PROJECTOR_NAMES = ("linear_1.", "linear_2.")


@dataclass(frozen=True)
class Whole:
    """A LLaVA with nothing left to ask: what `write_whole` needs.

    Attributes:
        language_model, vision_tower: their tensors, under the names of `parts.py`.
        projector: None in a model that has yet to get one, which cannot be written.
        config: `LlavaConfig`; what it says about the projector is set when it is written.
        image_processor, tokenizer: of transformers.
        generation: how it was set to answer, or None.
        source: what it was made of, for messages.
        notes: what was decided so far.
    """

    language_model: Tensors
    vision_tower: Tensors
    projector: Projector | None
    config: Any
    tokenizer: Any
    image_processor: Any
    generation: Any
    source: str
    notes: tuple[str, ...] = ()


def local_folder(source: str) -> Path:
    """Return the folder or file of a model, downloaded first if it is a name on the hub.

    Raises:
        ModelError: if it is neither.
    """
    if Path(source).exists():
        return Path(source)
    with explained(source, "model"):
        wanted = ["*.json", "*.safetensors", "*.bin", "*.model", "*.jinja", "*.txt"]
        return Path(snapshot_download(source, allow_patterns=wanted))


def read_whole(source: str) -> Whole:
    """Read a LLaVA folder of transformers, any version's.

    Raises:
        ModelError: if tensors are missing, surplus or foreign, or the folder lacks tokenizer or image processor.
    """
    folder = local_folder(source)
    config = load_config(str(folder))
    pin_activation(config.text_config)
    old = saved_before_5_4(config, source)
    tensors, notes = without_recomputed(read_folder(folder))
    parts: dict[str, Tensors] = {"projector": {}} | split(tensors, FILES, source)
    parts["vision_tower"] = nested(parts.get("vision_tower", {}), config.vision_config)
    parts["language_model"] = without_tied_head(parts.get("language_model", {}), config, source)
    require_same(_memory_shapes(parts), expected_shapes(config), source)
    tokenizer, generation = read_tokenizer(folder, source)
    with explained(source, "image processor"):
        image_processor = AutoImageProcessor.from_pretrained(folder, backend="pil", trust_remote_code=False)
    projector = projector_of(parts["projector"], config.projector_hidden_act, old, source)
    return Whole(
        parts["language_model"],
        parts["vision_tower"],
        projector,
        config,
        tokenizer,
        image_processor,
        generation,
        source,
        tuple(notes),
    )


def read_tokenizer(folder: Path, source: str) -> tuple[Any, Any]:
    """Load the tokenizer of a folder and its `generation_config.json`, None if there is none.

    Raises:
        ModelError: if the tokenizer cannot be loaded.
    """
    with explained(source, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        has_settings = (folder / "generation_config.json").is_file()
        return tokenizer, GenerationConfig.from_pretrained(folder) if has_settings else None


def nested(tower: Tensors, vision_config: Any) -> Tensors:
    """Spell the names of a tower's tensors as transformers 4 does."""
    if vision_config.model_type not in NESTED_TOWERS:
        return tower
    return {name if name.startswith(NESTED) else NESTED + name: tensor for name, tensor in tower.items()}


def without_tied_head(language: Tensors, config: Any, where: str) -> Tensors:
    """Leave out a head that is the embedding once more.

    Raises:
        ModelError: if the configuration ties the two and their tensors differ.
    """
    head = language.get("lm_head.weight")
    if head is None or not config.tie_word_embeddings:
        return language
    if not torch.equal(head.read(), language["model.embed_tokens.weight"].read()):
        raise ModelError(
            f"{where}: config.json says tie_word_embeddings, but lm_head.weight is not model.embed_tokens.weight. "
            "Next: set tie_word_embeddings to false if the head was trained apart."
        )
    return {name: tensor for name, tensor in language.items() if name != "lm_head.weight"}


def projector_of(tensors: Tensors, activation: str, old: bool | None, where: str) -> Projector:
    """Read the two layers of transformers' projector; without an activation between them they are folded into one.

    Raises:
        ModelError: naming tensors that are missing or surplus, or an activation that LLaVA never had.
    """
    both = projector_from(tensors, PROJECTOR_NAMES, old, where)
    if activation == "linear":
        return replace(both, layers=(folded(*both.layers),))
    if activation != "gelu":
        raise ModelError(
            f"{where}: the projector's activation is {activation!r}. Allowed: gelu, linear; no other "
            "format has any other."
        )
    return both


def projector_tensors(projector: Projector) -> Tensors:
    """Name the tensors of a projector of two layers, within `multi_modal_projector.`."""
    layers = zip(PROJECTOR_NAMES, projector.layers, strict=True)
    return {key: tensor for name, layer in layers for key, tensor in layer.tensors(name).items()}


def two_layers(projector: Projector) -> tuple[str, Projector]:
    """Return how transformers can hold a projector: the activation between its two layers, and the two layers.

    One layer is held exactly as itself, no activation, and the identity.

    Raises:
        ModelError: if it has more than two layers.
    """
    if len(projector.layers) == 2:
        return "gelu", projector
    if len(projector.layers) > 2:
        raise ModelError(
            f"the projector is {projector.kind}: {len(projector.layers)} layers. LlavaForConditionalGeneration has two "
            "with one activation between them, and no two layers compute the same. Allowed: linear, mlp2x_gelu. Next: "
            "--to llava or --to xtuner keep all layers; Hugging Face's LLaVA cannot."
        )
    only = projector.layers[0]
    width, dtype = only.weight.shape[0], only.weight.dtype
    identity = LazyTensor((width, width), dtype, lambda: torch.eye(width, dtype=dtype))
    zero = LazyTensor((width,), dtype, lambda: torch.zeros(width, dtype=dtype))
    return "linear", replace(projector, layers=(only, Layer(identity, zero if only.bias is not None else None)))


def write_whole(
    whole: Whole, folder: Path, record: dict[str, Any], *, template: str | None, dtype: Any, old: bool
) -> list[str]:
    """Write a LLaVA folder, whole or not at all, and return sentences about what was decided.

    Args:
        template: a named chat template; None for the tokenizer's own.
        dtype: of all tensors; None for each as it is.
        old: for transformers before 5.4; it matters where the language model is a Gemma.

    Raises:
        ModelError: if tensors are missing, surplus or of another shape, the projector cannot be held, or there is no
            chat template.
    """
    config, tokenizer, notes = whole.config, whole.tokenizer, list(whole.notes)
    if whole.projector is None:
        raise ModelError(
            f"{whole.source}: there is no projector, neither in it nor in its base: it is no LLaVA yet. Next: give a "
            "base that has one."
        )
    scale = image_feature_scale(config.text_config)
    if scale != 1.0:
        how = "left as it is" if whole.projector.old == old else f"{'divided' if old else 'multiplied'} by {scale:.4f}"
        notes.append(f"the projector's last layer is {how}: this folder is for {OLD if old else NEW}")
    activation, projector = two_layers(whole.projector.meant_for(old, scale))
    config.projector_hidden_act = activation
    config.multimodal_projector_bias = projector.layers[0].bias is not None
    if activation == "linear":
        notes.append("the linear projector is held as itself, no activation, and the identity; training trains both")
    if template is None and not tokenizer.chat_template:
        raise ModelError(
            f"{whole.source}: the tokenizer has no chat template, and how turns become text is part of a model. Next: "
            f"--template NAME, the one that it was trained with ({', '.join(TEMPLATES)}); LLaVA-1.5's is vicuna_v1."
        )
    if template is not None:
        set_template(tokenizer, template)
    parts = {
        "language_model": whole.language_model,
        "vision_tower": whole.vision_tower,
        "projector": projector_tensors(projector),
    }
    require_same(_memory_shapes(parts), expected_shapes(config), whole.source)
    tensors = {name: tensor.to(dtype) for name, tensor in join(parts, FILES).items()}
    config.dtype = Counter(tensor.dtype for tensor in tensors.values()).most_common(1)[0][0]
    config.architectures = ["LlavaForConditionalGeneration"]
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    llava = bind(model, tokenizer, whole.image_processor, whole.source)
    if whole.generation is not None:
        model.generation_config = whole.generation
    finish_generation(llava)
    with whole_folder(folder) as unfinished:
        write_weights(tensors, unfinished)
        config.save_pretrained(unfinished)
        model.generation_config.save_pretrained(unfinished)
        write_beside_weights(llava, unfinished, record, "5.3.0" if old and scale != 1.0 else None)
    return notes


def require_complete(whole: Whole) -> None:
    """Check language model, tower and the projector's widths against the configuration; its depth may be any.

    Raises:
        ModelError: naming what is missing, surplus, or of another shape.
    """
    parts = {"language_model": whole.language_model, "vision_tower": whole.vision_tower}
    expected = {name: s for name, s in expected_shapes(whole.config).items() if "multi_modal_projector" not in name}
    require_same(_memory_shapes(parts), expected, whole.source)
    config = whole.config
    layers = config.vision_feature_layer
    count = 1 if isinstance(layers, int) else len(layers)
    widths = (config.vision_config.hidden_size * count, config.text_config.hidden_size)
    if whole.projector is None or whole.projector.sizes != widths:
        found = (
            "no projector"
            if whole.projector is None
            else f"a projector from {' to '.join(map(str, whole.projector.sizes))}"
        )
        raise ModelError(f"{whole.source}: there is {found}; needed is one from {widths[0]} to {widths[1]}.")


def expected_shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """Return the names in memory and shapes of all tensors that a configuration asks for; a tied head is none.

    A tower that is called otherwise in files than in memory (DINOv2's attention) has the names of its files.
    """
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    tied = config.tie_word_embeddings
    shapes = {name: t for name, t in model.state_dict().items() if not (tied and name == "lm_head.weight")}
    if config.vision_config.model_type not in NESTED_TOWERS:
        prefix = PARTS["vision_tower"]
        tower = {name.removeprefix(prefix): tensor for name, tensor in shapes.items() if name.startswith(prefix)}
        in_files = revert_weight_conversion(model.model.vision_tower, tower)
        shapes = {name: tensor for name, tensor in shapes.items() if not name.startswith(prefix)}
        shapes |= {prefix + name: tensor for name, tensor in in_files.items()}
    return {name: tuple(tensor.shape) for name, tensor in shapes.items()}


def _memory_shapes(parts: Mapping[str, Tensors]) -> dict[str, tuple[int, ...]]:
    tower = {name.removeprefix(NESTED): tensor for name, tensor in parts["vision_tower"].items()}
    return shapes_of(join({**parts, "vision_tower": tower}, MEMORY))
