"""Small checkpoints in the layouts of other projects, and what their own code computes from them.

The references below are written from the papers and the projects' modeling files, without the code under test.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    CLIPVisionModel,
    GemmaConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
)

from small import EYES, WORDS, make_tokenizer

Tensors = dict[str, torch.Tensor]
Logits = Callable[[list[int], torch.Tensor], torch.Tensor]
"""(ids with None's place marked by -200, pixels) -> logits."""
IMAGE = -200
LLAMA = WORDS | {"num_key_value_heads": 2, "tie_word_embeddings": False, "initializer_range": 0.2}
DEPTHS = {"linear": 1, "mlp2x_gelu": 2, "mlp3x_gelu": 3}


def random_tensors(shapes: dict[str, tuple[int, ...]], seed: int, scale: float = 0.2) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    return {name: scale * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def projector_tensors(kind: str, seed: int = 7, visual: int = EYES["hidden_size"], width: int = 32) -> Tensors:
    """A projector's tensors with the names of a Sequential; LLaVA's linear one is a Linear, so it has no number."""
    depth = DEPTHS[kind]
    shapes: dict[str, tuple[int, ...]] = {}
    for n in range(depth):
        name = "" if kind == "linear" else f"{2 * n}."
        shapes |= {f"{name}weight": (width, visual if n == 0 else width), f"{name}bias": (width,)}
    return random_tensors(shapes, seed)


def projector_module(tensors: Tensors) -> nn.Module:
    """LLaVA's build_vision_projector: a Linear, or a Sequential of Linear and GELU."""
    if "weight" in tensors:
        module: nn.Module = nn.Linear(tensors["weight"].shape[1], tensors["weight"].shape[0])
    else:
        numbers = sorted({int(name.split(".")[0]) for name in tensors})
        layers: list[nn.Module] = []
        for number in numbers:
            if layers:
                layers.append(nn.GELU())
            out, inside = tensors[f"{number}.weight"].shape
            layers.append(nn.Linear(inside, out))
        module = nn.Sequential(*layers)
    module.load_state_dict(tensors, strict=True)
    return module


def llava_logits(language: nn.Module, tower: nn.Module, projector: nn.Module, ids: list[int], pixels: torch.Tensor):
    """LLaVA's forward: patches of the last layer but one, projected, in the place of the image."""
    with torch.no_grad():
        features = projector(tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:])[0]
        where = ids.index(IMAGE)
        embed = language.get_input_embeddings()
        pieces = [embed(torch.tensor(ids[:where])), features, embed(torch.tensor(ids[where + 1 :]))]
        return language(inputs_embeds=torch.cat(pieces)[None]).logits[0]


def text_model(vocab_size: int, seed: int = 1, kind: str = "llama") -> nn.Module:
    torch.manual_seed(seed)
    if kind == "gemma":
        config = GemmaConfig(
            vocab_size=vocab_size, head_dim=8, initializer_range=0.2, **WORDS | {"num_key_value_heads": 1}
        )
    else:
        config = LlamaConfig(vocab_size=vocab_size, **LLAMA)
    return AutoModelForCausalLM.from_config(config).eval()


@dataclass
class Original:
    """A checkpoint of the original LLaVA on disk, and its own logits."""

    folder: Path
    tensors: Tensors
    language: nn.Module
    tower: nn.Module
    projector: nn.Module
    tokenizer: PreTrainedTokenizerFast

    def logits(self, ids: list[int], pixels: torch.Tensor) -> torch.Tensor:
        return llava_logits(self.language, self.tower, self.projector, ids, pixels)


def make_original(
    folder: Path, tower_folder: str, kind: str = "mlp2x_gelu", *, own_tower: bool = False, pickled: bool = False
) -> Original:
    """Write a full checkpoint as LLaVA does."""
    folder.mkdir(parents=True)
    tokenizer = make_tokenizer(folder, bos=True)
    language = text_model(len(tokenizer))
    tower = CLIPVisionModel.from_pretrained(tower_folder).eval()
    if own_tower:
        tower.load_state_dict({name: value + 0.05 for name, value in tower.state_dict().items()})
    projector = projector_tensors(kind)
    tensors = {name: value.clone() for name, value in language.state_dict().items()}
    tensors |= {f"model.mm_projector.{name}": value for name, value in projector.items()}
    if own_tower:
        prefix = "model.vision_tower.vision_tower.vision_model."
        tensors |= {prefix + name.removeprefix("vision_model."): v for name, v in tower.state_dict().items()}
    if pickled:
        torch.save(tensors, folder / "pytorch_model.bin")
    else:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    write_llava_config(folder, language, tower_folder, kind)
    return Original(folder, tensors, language, tower, projector_module(projector), tokenizer)


def write_llava_config(folder: Path, language: nn.Module, tower: str, kind: str = "mlp2x_gelu") -> None:
    text = language.config.to_dict()
    content = {
        name: text[name]
        for name in (
            *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
            *("num_key_value_heads", "tie_word_embeddings", "rms_norm_eps", "max_position_embeddings"),
        )
    }
    content |= {
        "model_type": "llava_llama",
        "architectures": ["LlavaLlamaForCausalLM"],
        "rope_theta": 10000.0,
        "torch_dtype": "float32",
        "transformers_version": "4.37.2",
        "mm_vision_tower": tower,
        "mm_hidden_size": EYES["hidden_size"],
        "mm_projector_type": kind,
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "mm_patch_merge_type": "flat",
        "image_aspect_ratio": "pad",
        "use_mm_proj": True,
        "tune_mm_mlp_adapter": False,
        "unfreeze_mm_vision_tower": False,
    }
    (folder / "config.json").write_text(json.dumps(content))


def lora_on(
    model: nn.Module, targets: list[str], seed: int, r: int = 4, alpha: int = 8, **more: object
) -> tuple[nn.Module, Tensors]:
    """Put far-from-zero LoRA on a model with PEFT; return it and the matrices with `.default` in their names."""
    torch.manual_seed(seed)
    adapted = get_peft_model(model, LoraConfig(r=r, lora_alpha=alpha, target_modules=targets, **more)).eval()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.2 * torch.randn_like(parameter))
    return adapted, {n: p.detach().clone() for n, p in adapted.named_parameters() if "lora_" in n}


def write_adapter(folder: Path, tensors: Tensors, settings: dict, *, pickled: bool = False) -> None:
    """Write a PEFT folder by hand, as PEFT of 2023 did."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = {name.replace(".default", ""): value for name, value in tensors.items()}
    if pickled:
        torch.save(plain, folder / "adapter_model.bin")
    else:
        save_file(plain, folder / "adapter_model.safetensors")
    content = {"peft_type": "LORA", "bias": "none", "lora_dropout": 0.05, "task_type": "CAUSAL_LM"} | settings
    (folder / "adapter_config.json").write_text(json.dumps(content))


def ids_of(tokenizer: PreTrainedTokenizerFast, before: str = "Что на ", after: str = " фото? red cat") -> list[int]:
    """Token ids with the image between two texts."""
    return [*tokenizer(before)["input_ids"], IMAGE, *tokenizer(after, add_special_tokens=False)["input_ids"]]


def hf_logits(model: nn.Module, ids: list[int], pixels: torch.Tensor, image_tokens: int) -> torch.Tensor:
    """Logits of LlavaForConditionalGeneration, plain or inside PEFT, called as transformers means it."""
    config = model.config if hasattr(model, "config") else model.base_model.config
    spread = [i for piece in ids for i in ([config.image_token_id] * image_tokens if piece == IMAGE else [piece])]
    core = model.get_base_model() if hasattr(model, "get_base_model") else model
    core.model.language_model.set_attn_implementation("eager")
    with torch.no_grad():
        return model(input_ids=torch.tensor([spread]), pixel_values=pixels).logits[0]


def pixels_of(seed: int = 0) -> torch.Tensor:
    return torch.randn(1, 3, EYES["image_size"], EYES["image_size"], generator=torch.Generator().manual_seed(seed))


def largest_difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference relative to the largest logit; a vocabulary that grew is compared where both have rows."""
    width = min(found.shape[-1], expected.shape[-1])
    found, expected = found[..., :width], expected[..., :width]
    return float((found - expected).abs().max() / expected.abs().max())
