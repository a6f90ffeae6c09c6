"""Every part in every mode: exactly what was asked trains, and what was trained comes back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import LlavaForConditionalGeneration

from lorgnette.data.dataset import RowCollator
from lorgnette.data.sample import Sample
from lorgnette.errors import ModelError
from lorgnette.models.adapters import add_lora, load_trained, merge, require_equal_logits, save_trained
from lorgnette.models.assembly import assemble
from lorgnette.models.forward import prepare_for_rows, row_logits
from lorgnette.models.loading import Llava
from lorgnette.models.lora_targets import lora_targets
from lorgnette.models.saving import save_llava
from lorgnette.models.trainable import part_of, tower_parameters_that_learn
from small import renderer_of

ALL_LORA = {"vision_tower": "lora", "projector": "lora", "language_model": "lora"}


def logits_of(llava: Llava, samples: list[Sample]) -> torch.Tensor:
    row = RowCollator(llava.processor.image_processor, llava.core.config.image_token_id)(
        [renderer_of(llava).render(sample) for sample in samples]
    )["row"]
    llava.model.eval()
    with torch.no_grad():
        return row_logits(llava.model, llava.core, row, llava.scale)


def shaken(model: torch.nn.Module) -> None:
    """Move everything that trains far from its start."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))


@pytest.mark.parametrize("tower", ["clip", "siglip", "dinov2"])
def test_of_the_tower_learns_what_the_projected_layer_depends_on(
    parts: Callable[[str, str], tuple[str, str]], tower: str
) -> None:
    llava = assemble(*parts(tower, "llama"), vision_feature_layer=-2)
    everything = {name for name, _ in llava.core.named_parameters() if part_of(name) == "vision_tower"}
    layers = llava.core.config.vision_config.num_hidden_layers
    found = tower_parameters_that_learn(llava.core, llava.image_size)
    silent = everything - found
    assert silent
    assert found
    assert not any(f".{layers - 2}." in name for name in silent)
    assert all(f".{layers - 1}." in name or "norm" in name or "head" in name or "mask_token" in name for name in silent)
    one = tower_parameters_that_learn(llava.core, llava.image_size, last_layers=1)
    assert one
    assert all(f".{layers - 2}." in name for name in one)
    with pytest.raises(ModelError, match=f"at most {layers - 1}"):
        tower_parameters_that_learn(llava.core, llava.image_size, last_layers=layers)


def test_lora_lands_on_exactly_the_layers_that_were_asked_for(llava: Llava) -> None:
    core = llava.core
    both = lora_targets(core, ALL_LORA | {"projector": "frozen"}, {"target_modules": ["q_proj", "gate_proj"]})
    assert {part_of(name) for name in both} == {"vision_tower", "language_model"}
    assert {name.rpartition(".")[2] for name in both if part_of(name) == "vision_tower"} == {"q_proj"}
    only = ALL_LORA | {"vision_tower": "frozen", "projector": "frozen"}
    assert all(part_of(name) == "language_model" for name in lora_targets(core, only, {"target_modules": ["q_proj"]}))
    first = lora_targets(core, only, {"target_modules": r".*layers\.0\.self_attn\.(q|v)_proj"})
    assert first == [f"model.language_model.layers.0.self_attn.{name}_proj" for name in "qv"]
    assert "lm_head" not in lora_targets(core, only, {})
    assert "lm_head" in lora_targets(core, only, {"target_modules": ["lm_head", "q_proj"]})
    tower = tower_parameters_that_learn(core, llava.image_size)
    layers = core.config.vision_config.num_hidden_layers
    reached = lora_targets(core, ALL_LORA, {}, tower)
    assert not any(f"layers.{layers - 1}." in name for name in reached if part_of(name) == "vision_tower")


def test_lora_in_some_layers_only(llava: Llava) -> None:
    """PEFT alone forgets `layers_to_transform` where targets are full paths."""
    modes = ALL_LORA | {"projector": "frozen", "vision_tower": "frozen"}
    asked = {"target_modules": ["q_proj"], "layers_to_transform": 1}
    adapted = add_lora(llava.core, modes, {"r": 2} | asked)
    trained = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert {name.split(".lora_")[0].rpartition("layers.")[2] for name in trained} == {"1.self_attn.q_proj"}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"layers_to_transform": [0, 99]}, r"layers_to_transform: \[99\] in language_model. Allowed: 0, 1"),
        ({"layers_to_transform": [0], "layers_pattern": "blocks"}, "none, its targets are in no numbered layer"),
        ({"layers_to_transform": [0], "layers_pattern": "(("}, "no regular expression"),
        ({"layers_pattern": "layers"}, "without layers_to_transform"),
        ({"target_modules": "(("}, "no regular expression"),
        ({"rank_pattern": {"nothing": 2}}, "did not match any"),
        ({"lora_bias": True}, r"14 of the 14 targets have no bias.*such as .*q_proj"),
        ({"init_lora_weights": "loftq"}, "PEFT refuses these settings"),
    ],
)
def test_settings_of_lora_that_lead_nowhere_are_refused(llava: Llava, settings: dict, says: str) -> None:
    modes = ALL_LORA | {"projector": "frozen", "vision_tower": "frozen"}
    with pytest.raises(ModelError, match=says) as caught:
        add_lora(llava.core, modes, {"r": 2} | settings)
    assert "folder" not in str(caught.value)


def test_lora_on_a_tied_head_is_refused(parts: Callable[[str, str], tuple[str, str]]) -> None:
    llava = assemble(*parts("clip", "qwen2"))
    with pytest.raises(ModelError, match="tied"):
        lora_targets(llava.core, {"language_model": "lora"}, {"target_modules": ["lm_head"]})


@pytest.mark.parametrize(
    "settings",
    [
        {"use_rslora": True},
        {"use_dora": True},
        {"init_lora_weights": "pissa"},
        {"layers_to_transform": [1], "layers_pattern": "layers"},
        {"rank_pattern": {"q_proj": 2}, "bias": "lora_only"},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_every_kind_of_lora_merges_exactly_and_comes_back(
    llava: Llava, samples: list[Sample], tmp_path: Path, settings: dict
) -> None:
    save_llava(llava, tmp_path / "base", {"kind": "base"})
    modes = {"vision_tower": "frozen", "projector": "full", "language_model": "lora"}
    adapted = replace(llava, model=add_lora(llava.core, modes, {"r": 4, "lora_alpha": 8} | settings))
    shaken(adapted.model)
    before = logits_of(adapted, samples)
    save_trained(adapted.model, tmp_path / "adapter")
    shaken(adapted.model)
    load_trained(adapted.model, tmp_path / "adapter")
    assert torch.equal(logits_of(adapted, samples), before)
    merged = replace(llava, model=merge(adapted.model))
    prepare_for_rows(merged.core)
    assert require_equal_logits(before, logits_of(merged, samples), 1e-5) <= 1e-5


def test_a_tower_in_full_beside_lora_is_trained_in_place_and_comes_back(
    llava: Llava, samples: list[Sample], tmp_path: Path
) -> None:
    modes = {"vision_tower": "full", "projector": "frozen", "language_model": "lora"}
    tower = tower_parameters_that_learn(llava.core, llava.image_size, 1)
    adapted = replace(llava, model=add_lora(llava.core, modes, {"r": 4}, tower=tower))
    training = {n for n, p in adapted.core.named_parameters() if p.requires_grad and part_of(n) == "vision_tower"}
    assert training == tower
    shaken(adapted.model)
    before = logits_of(adapted, samples)
    save_trained(adapted.model, tmp_path / "t")
    assert (tmp_path / "t" / "trained.safetensors").exists()
    shaken(adapted.model)
    assert not torch.equal(logits_of(adapted, samples), before)
    load_trained(adapted.model, tmp_path / "t")
    assert torch.equal(logits_of(adapted, samples), before)
    (tmp_path / "t" / "trained.safetensors").unlink()
    with pytest.raises(ModelError, match="trained weights"):
        load_trained(adapted.model, tmp_path / "t")


def test_lora_on_tower_projector_and_language_model_merges(llava: Llava, samples: list[Sample]) -> None:
    adapted = replace(llava, model=add_lora(llava.core, ALL_LORA, {"r": 4}))
    shaken(adapted.model)
    trained = {part_of(name) for name, p in adapted.model.named_parameters() if p.requires_grad}
    assert trained == set(ALL_LORA)
    before = logits_of(adapted, samples)
    merged = replace(llava, model=merge(adapted.model))
    prepare_for_rows(merged.core)
    require_equal_logits(before, logits_of(merged, samples), 1e-5)


def test_a_projector_of_an_earlier_stage_lies_in_the_folder_of_the_adapter(
    llava: Llava, samples: list[Sample], tmp_path: Path
) -> None:
    save_llava(llava, tmp_path / "base", {"kind": "base"})
    with torch.no_grad():  # an earlier stage
        for parameter in llava.core.model.multi_modal_projector.parameters():
            parameter.mul_(1.5)
    modes = {"vision_tower": "frozen", "projector": "frozen", "language_model": "lora"}
    adapted = replace(llava, model=add_lora(llava.core, modes, {"r": 4}, keep_projector=True))
    assert {part_of(name) for name, p in adapted.model.named_parameters() if p.requires_grad} == {"language_model"}
    shaken(adapted.model)
    save_trained(adapted.model, tmp_path / "adapter")
    base = LlavaForConditionalGeneration.from_pretrained(tmp_path / "base")
    prepare_for_rows(base)
    plain = replace(llava, model=PeftModel.from_pretrained(base, tmp_path / "adapter"))
    assert torch.equal(logits_of(plain, samples), logits_of(adapted, samples))
