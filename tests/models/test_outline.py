"""The outline of a model, made without its weights, equals what the model itself says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lorgnette.errors import ModelError
from lorgnette.models.adapters import add_lora
from lorgnette.models.assembly import assemble
from lorgnette.models.loading import load_llava
from lorgnette.models.outline import outline
from lorgnette.models.saving import save_llava
from lorgnette.recipe.model import Build, Model
from lorgnette.recipe_model import outline_of

Parts = Callable[[str, str], tuple[str, str]]


@pytest.mark.parametrize("tower", ["clip", "siglip", "dinov2"])
@pytest.mark.parametrize("more", [{}, {"image_size": 32, "vision_feature_layer": (-2, -1)}])
def test_the_outline_of_two_models_is_that_of_the_assembled_one(parts: Parts, tower: str, more: dict) -> None:
    if tower != "dinov2":
        more = {name: value for name, value in more.items() if name != "image_size"}  # their size is fixed
    names = parts(tower, "llama")
    built = assemble(*names, template="vicuna_v1", **more)
    given = Model(build=Build(vision_tower=names[0], language_model=names[1], **more), chat_template="vicuna_v1")
    found = outline_of(given)
    assert {parameter.device.type for parameter in found.core.parameters()} == {"meta"}
    shapes = {name: parameter.shape for name, parameter in found.core.named_parameters()}
    assert shapes == {name: parameter.shape for name, parameter in built.core.named_parameters()}
    assert found.image_tokens == built.image_tokens
    assert found.renderer().expansion == built.renderer().expansion
    assert (
        found.tokenizer("What <image> is this?")["input_ids"] == built.tokenizer("What <image> is this?")["input_ids"]
    )
    assert found.template().jinja == built.template().jinja


def test_the_outline_of_a_folder_is_that_of_the_loaded_model(parts: Parts, tmp_path: Path) -> None:
    save_llava(assemble(*parts("clip", "llama")), tmp_path / "model", {"kind": "base"})
    loaded = load_llava(str(tmp_path / "model"))
    (tmp_path / "model" / "model.safetensors").unlink()
    assert outline(str(tmp_path / "model")).renderer().expansion == loaded.renderer().expansion


def test_a_language_model_alone_counts_an_image_as_one_token(parts: Parts) -> None:
    found = outline(parts("clip", "llama")[1], "chatml").renderer().expansion
    assert found.image_tokens == 1
    tokenizer = outline(parts("clip", "llama")[1], "chatml").renderer().tokenizer
    assert tokenizer.convert_ids_to_tokens(found.image_token_id) == "<image>"


def test_no_memory_is_taken_for_weights() -> None:
    found = outline_of(Model(build=Build(vision_tower="starter:vision-tower", language_model="starter:language-model")))
    assert all(parameter.device == torch.device("meta") for parameter in found.core.parameters())


class _OnCpu(TorchDispatchMode):
    """Remember the largest tensor that anything makes outside the meta device."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, torch.Tensor) and tensor.device.type == "cpu":
                self.largest = max(self.largest, tensor.numel())
        return made


@pytest.mark.parametrize("start", [True, "pissa", "olora"])
def test_no_memory_is_taken_for_lora_either(start: object) -> None:
    found = outline_of(Model(build=Build(vision_tower="starter:vision-tower", language_model="starter:language-model")))
    width = found.core.get_input_embeddings().weight.shape[1]
    with _OnCpu() as watch:
        add_lora(found.core, {"language_model": "lora"}, {"r": 16, "init_lora_weights": start})
    assert watch.largest < 16 * width


def test_what_is_no_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        outline(str(tmp_path / "none"))
