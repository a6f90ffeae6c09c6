"""A soft prompt in rows equals PEFT's own on one sample after another; it is shared, saved and answered with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from lorgnette.data.dataset import RowCollator
from lorgnette.data.rows import Row
from lorgnette.data.sample import Sample
from lorgnette.errors import ModelError
from lorgnette.images.opening import read_pixels
from lorgnette.inference.engine import generate
from lorgnette.models.adapters import load_trained, save_trained
from lorgnette.models.forward import row_embeddings, row_logits
from lorgnette.models.loading import Llava, load_llava
from lorgnette.models.saving import save_llava
from lorgnette.models.soft_prompt import load_prompt, new_prompt, read_prompt, save_prompt
from small import renderer_of


@pytest.fixture
def prompted(llava: Llava, tmp_path: Path) -> Llava:
    """The small LLaVA from a folder, with five vectors in front of every sample."""
    save_llava(llava, tmp_path / "base", {"kind": "base"})
    loaded = load_llava(str(tmp_path / "base"))
    torch.manual_seed(4)
    return replace(loaded, soft_prompt=new_prompt(loaded.core, {"num_virtual_tokens": 5}, loaded.source))


def row_of(llava: Llava, samples: list[Sample], share_images: bool = True) -> Row:
    rendered = [renderer_of(llava, soft_prompt=llava.prompt_ids).render(sample) for sample in samples]
    collator = RowCollator(llava.processor.image_processor, llava.core.config.image_token_id, share_images)
    return collator(rendered)["row"]


def logits_of(llava: Llava, row: Row) -> torch.Tensor:
    with torch.no_grad():
        return row_logits(llava.model.eval(), llava.core, row, llava.scale, prompt=llava.soft_prompt)


@pytest.mark.filterwarnings("ignore:Position ids are not supported")
def test_rows_with_a_soft_prompt_equal_plain_peft_one_by_one(
    prompted: Llava, samples: list[Sample], tmp_path: Path
) -> None:
    save_prompt(prompted.soft_prompt, tmp_path / "prompt")
    base = load_llava(str(tmp_path / "base"))
    base.core.model.language_model.set_attn_implementation("sdpa")
    plain = PeftModel.from_pretrained(base.core, tmp_path / "prompt").eval()
    for sample in samples:
        ours = logits_of(prompted, row_of(prompted, [sample]))
        row = row_of(base, [sample])
        with torch.no_grad():
            embeddings = row_embeddings(base.core, row, base.scale)
            mask = torch.ones(embeddings.shape[:2], dtype=torch.long)
            theirs = plain(inputs_embeds=embeddings, attention_mask=mask).logits[0]
        assert torch.allclose(ours, theirs[row.label_positions + prompted.soft_prompt.length], atol=1e-5)
    assert not torch.allclose(
        logits_of(base, row_of(base, samples[:1])), logits_of(prompted, row_of(prompted, samples[:1]))
    )


def test_samples_that_share_an_image_share_the_prompt_and_its_gradient(prompted: Llava, samples: list[Sample]) -> None:
    gradients = []
    for share in (True, False):
        row = row_of(prompted, samples, share)
        prompted.module.zero_grad()
        logits = row_logits(prompted.model, prompted.core, row, prompted.scale, prompt=prompted.soft_prompt)
        torch.nn.functional.cross_entropy(logits, row.labels, reduction="sum").backward()
        gradients.append(prompted.soft_prompt.embedding.weight.grad.clone())
    assert gradients[0].abs().max() > 1e-3
    assert torch.allclose(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)
    shared = row_of(prompted, samples).input_ids
    assert int((shared == -1).sum()) < len(samples) == int((row_of(prompted, samples, False).input_ids == -1).sum())


def test_answers_with_a_soft_prompt_do_not_depend_on_the_batch_and_survive_saving(
    prompted: Llava, samples: list[Sample], tmp_path: Path
) -> None:
    def answers(llava: Llava, count: int) -> list:
        renderer = renderer_of(llava, soft_prompt=llava.prompt_ids)
        made = [renderer.render_prompt(s.id, s.images, s.turns[:1]) for s in samples if len(s.turns) == 2]
        read = lambda path: read_pixels(llava.processor.image_processor, path)  # noqa: E731
        batches = [made[n : n + count] for n in range(0, len(made), count)]
        return [answer for batch in batches for answer in generate(llava, batch, read, 6, frozenset({3}))]

    together = answers(prompted, 100)
    assert together == answers(prompted, 1)
    save_llava(prompted, tmp_path / "merged", {"kind": "merged"})
    again = load_llava(str(tmp_path / "merged"))
    assert again.soft_prompt is not None
    assert answers(again, 100) == together
    assert answers(replace(again, soft_prompt=None), 100) != together


def test_the_start_can_be_words(prompted: Llava, tmp_path: Path) -> None:
    settings = {"num_virtual_tokens": 3, "prompt_tuning_init": "TEXT", "prompt_tuning_init_text": "what color"}
    prompt = new_prompt(prompted.core, settings, str(tmp_path / "base"))
    ids = prompted.tokenizer("what color")["input_ids"]
    expected = prompted.core.get_input_embeddings().weight[(ids * 3)[:3]]
    assert torch.equal(prompt.embedding.weight, expected)
    with pytest.raises(ModelError, match="prompt_tuning: PEFT refuses"):
        new_prompt(prompted.core, {"num_virtual_tokens": 3, "prompt_tuning_init": "TEXT"}, str(tmp_path / "base"))


def test_prompts_come_back_bitwise_and_broken_ones_are_refused(prompted: Llava, tmp_path: Path) -> None:
    save_trained(prompted.module, tmp_path / "trained")
    before = prompted.soft_prompt.embedding.weight.clone()
    with torch.no_grad():
        prompted.soft_prompt.embedding.weight.zero_()
    load_trained(prompted.module, tmp_path / "trained")
    assert torch.equal(prompted.soft_prompt.embedding.weight, before)
    longer = new_prompt(prompted.core, {"num_virtual_tokens": 6}, prompted.source)
    with pytest.raises(ModelError, match=r"a soft prompt of \(5, "):
        load_prompt(longer, tmp_path / "trained" / "prompt")
    file = tmp_path / "trained" / "prompt" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ModelError, match="no soft prompt that can be read"):
        read_prompt(prompted.core, tmp_path / "trained" / "prompt")
