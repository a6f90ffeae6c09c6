"""Several adapters on one base: a sum of what each of them changes of it, or a refusal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lorgnette.errors import InputError
from lorgnette.models.adapters import add_lora
from lorgnette.models.assembly import assemble
from lorgnette.models.fingerprint import fingerprint
from lorgnette.models.learner import Learner, load_model
from lorgnette.models.merging import merge_adapters
from lorgnette.models.saving import save_llava
from lorgnette.models.soft_prompt import new_prompt
from lorgnette.training.trained import keep_trained
from trained import PLAN, shaken

WORDS = {"dtype": "float32", "max_shard_size": "4GB"}
LANGUAGE = {"language_model": "lora"}


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def base(parts: Callable[[str, str], tuple[str, str]], tmp_path: Path) -> Path:
    save_llava(assemble(*parts("clip", "llama"), seed=3), tmp_path / "base", {"kind": "base"})
    return tmp_path / "base"


def leave(
    base: Path,
    folder: Path,
    modes: dict,
    *,
    size: float,
    template: str = "vicuna_v1",
    plan: dict | None = None,
    prompt: bool = False,
    **settings: object,
) -> Path:
    """Leave an adapter of random numbers, of the size that is given, as a stage does."""
    learner = load_model(str(base), torch.float32, template, plan)
    adapted = add_lora(learner.core, modes, {"r": 4, **settings})
    start = new_prompt(learner.core, {"num_virtual_tokens": 3}, str(base)) if prompt else None
    learner = shaken(replace(learner, model=adapted, soft_prompt=start), size)
    keep_trained(learner, folder, fingerprint(base), modes | ({"soft_prompt": "full"} if prompt else {}), None)
    return folder / "trained"


def weights(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: value.detach() for name, value in learner.core.named_parameters()}


def merged(base: Path, *adapters: Path) -> dict[str, torch.Tensor]:
    output = base.parent / "-".join(["merged", *(adapter.parent.name for adapter in adapters)])
    merge_adapters(str(base), adapters, output, **WORDS)
    return weights(load_model(str(output)))


@pytest.mark.parametrize(
    ("first", "second", "plan"),
    [
        ({}, {"use_rslora": True}, None),
        ({"use_dora": True}, {"init_lora_weights": "pissa"}, None),
        ({"init_lora_weights": "olora"}, {"use_dora": True}, None),
        ({}, {}, PLAN),
    ],
    ids=["lora", "dora and pissa", "olora and dora", "4 bits"],
)
def test_each_changes_the_base_by_what_it_changes_alone(
    base: Path, tmp_path: Path, first: dict, second: dict, plan: dict | None
) -> None:
    one = leave(base, tmp_path / "one", LANGUAGE, size=0.05, plan=plan, **first)
    two = leave(base, tmp_path / "two", LANGUAGE | {"vision_tower": "lora"}, size=0.1, plan=plan, **second)
    start = weights(load_model(str(base)))
    if plan is not None:
        from bitsandbytes.functional import dequantize_4bit

        for name, layer in load_model(str(base), torch.float32, None, plan).core.named_modules():
            if type(layer).__name__ == "Linear4bit":
                start[f"{name}.weight"] = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    alone = [merged(base, one), merged(base, two)]
    for both in (merged(base, one, two), merged(base, two, one)):
        changed = 0
        for name, value in both.items():
            expected = start[name] + sum(each[name] - start[name] for each in alone)
            assert torch.allclose(value, expected, rtol=0, atol=2e-6), name
            changed += all(not torch.equal(each[name], start[name]) for each in alone)
        assert changed > 10


def test_what_only_one_changes_is_taken_bit_for_bit(base: Path, tmp_path: Path) -> None:
    one = leave(base, tmp_path / "one", LANGUAGE, size=0.05)
    tower = {"vision_tower": "lora", "projector": "full"}
    two = leave(base, tmp_path / "two", tower, size=0.1, prompt=True)
    both, first, second = merged(base, one, two), merged(base, one), merged(base, two)
    for name, value in both.items():
        assert torch.equal(value, (first if "language_model" in name or "lm_head" in name else second)[name]), name
    assert (tmp_path / "merged-one-two" / "prompt").is_dir()


@pytest.mark.parametrize(
    ("second", "says"),
    [
        ({"modes": LANGUAGE | {"projector": "full"}}, "multi_modal_projector.*at least one of the two holds it whole"),
        ({"modes": LANGUAGE, "plan": PLAN}, "trained with another quantization"),
        ({"modes": LANGUAGE, "template": "chatml"}, "trained with another chat template"),
        ({"modes": LANGUAGE, "prompt": True}, "changes the soft prompt"),
    ],
    ids=["projector", "4 bits", "template", "prompt"],
)
def test_what_has_no_sum_is_refused(base: Path, tmp_path: Path, second: dict, says: str) -> None:
    modes = LANGUAGE | {"projector": "full"}
    one = leave(base, tmp_path / "one", modes, size=0.05, prompt=True)
    two = leave(base, tmp_path / "two", size=0.1, **second)
    with pytest.raises(InputError, match=says):
        merge_adapters(str(base), [one, two], tmp_path / "m", **WORDS)
    assert not (tmp_path / "m").exists()


def test_a_projector_that_both_bring_along_is_no_conflict(base: Path, tmp_path: Path) -> None:
    modes = LANGUAGE | {"projector": "full"}
    one = leave(base, tmp_path / "one", modes, size=0.05)
    two = leave(base, tmp_path / "two", modes, size=0.05, target_modules=["q_proj", "gate_proj"])
    files = [each / "adapter_model.safetensors" for each in (one, two)]
    from safetensors.torch import load_file, save_file

    theirs = {name: value for name, value in load_file(files[0]).items() if "multi_modal_projector" in name}
    save_file(load_file(files[1]) | theirs, files[1], metadata={"format": "pt"})
    both, alone = merged(base, one, two), merged(base, one)
    for name, value in both.items():
        if "multi_modal_projector" in name:
            assert torch.equal(value, alone[name])


def test_an_adapter_given_twice_is_refused(base: Path, tmp_path: Path) -> None:
    one = leave(base, tmp_path / "one", LANGUAGE, size=0.05)
    with pytest.raises(InputError, match="is given twice"):
        merge_adapters(str(base), [one, tmp_path / "one" / ".." / "one" / "trained"], tmp_path / "m", **WORDS)
