"""A text-to-text model by the same road: padded pairs, LoRA with a soft prompt, PEFT's own numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSeq2SeqLM, T5Config

from lorgnette.data.pairs import PairRenderer
from lorgnette.data.sample import Origin, Sample, Turn
from lorgnette.errors import ModelError, RowError
from lorgnette.inference.answers import answer_batch
from lorgnette.models.adapters import add_lora, load_trained, merge, require_equal_logits, save_trained
from lorgnette.models.learner import load_model, save_model
from lorgnette.models.soft_prompt import new_prompt, save_prompt
from lorgnette.models.text_to_text import TextToText, load_text_to_text
from lorgnette.models.trainable import parts_table
from small import make_text_to_text, make_tokenizer

MODES = {"language_model": "lora"}


def said(name: str, *texts: str) -> Sample:
    turns = tuple(Turn("assistant" if n % 2 else "user", text) for n, text in enumerate(texts))
    return Sample(name, (), turns, Origin("test.json", 0))


SAMPLES = [
    said("a", "what color is the shape?", "blue"),
    said("b", "is there a circle?", "no there is a table"),
    said("c", "What is this?", "A cat.", "Where?", "On the table."),
]


@pytest.fixture
def small(tmp_path: Path) -> TextToText:
    """A random T5 of two layers with a tokenizer that adds no end of sequence by itself."""
    make_text_to_text(tmp_path / "t5")
    return load_text_to_text(str(tmp_path / "t5"))


def batch_of(model: TextToText, samples: list[Sample]):
    return model.collator()([model.renderer().render(sample) for sample in samples])["row"]


def logits_of(model: TextToText, samples: list[Sample]) -> torch.Tensor:
    model.model.eval()
    with torch.no_grad():
        return model.logits(batch_of(model, samples))


def test_source_and_target_are_what_was_said(small: TextToText) -> None:
    rendered = small.renderer().render(SAMPLES[2])
    decode = small.tokenizer.decode
    assert decode(rendered.input_ids) == "What is this?\nA cat.\nWhere?</s>On the table.</s>"
    assert decode([label for label in rendered.labels if label >= 0]) == "On the table.</s>"
    source = sum(label < 0 for label in rendered.labels)
    short = PairRenderer(small.tokenizer, max_text_tokens=source + 2, too_long="cut_end").render(SAMPLES[2])
    assert (short.labels, short.shortened) == (rendered.labels[: source + 2], len(rendered.labels) - source - 2)
    with pytest.raises(RowError, match="max_text_tokens 3"):
        PairRenderer(small.tokenizer, max_text_tokens=3).render(SAMPLES[2])
    with pytest.raises(RowError, match="cannot see"):
        small.renderer().render(
            Sample("i", ("x.png",), (Turn("user", "<image>?"), Turn("assistant", "a")), Origin("f", 0))
        )


def test_a_batch_equals_transformers_own_loss_one_by_one(small: TextToText) -> None:
    together = logits_of(small, SAMPLES)
    pairs = batch_of(small, SAMPLES)
    loss = torch.nn.functional.cross_entropy(together, pairs.labels, reduction="sum")
    alone = 0.0
    for sample in SAMPLES:
        pairs_of_one = batch_of(small, [sample])
        ids, labels = pairs_of_one.input_ids, pairs_of_one.labels[None]
        with torch.no_grad():
            alone += float(small.core(input_ids=ids, labels=labels).loss) * labels.numel()
    assert float(loss) == pytest.approx(alone, rel=1e-5)


def test_a_soft_prompt_equals_peft_in_the_encoder(small: TextToText, tmp_path: Path) -> None:
    torch.manual_seed(2)
    prompted = replace(small, soft_prompt=new_prompt(small.core, {"num_virtual_tokens": 5}, small.source))
    save_prompt(prompted.soft_prompt, tmp_path / "prompt")
    plain = PeftModel.from_pretrained(AutoModelForSeq2SeqLM.from_pretrained(small.source), tmp_path / "prompt").eval()
    pairs = batch_of(small, SAMPLES)
    with torch.no_grad():
        theirs = plain(
            input_ids=pairs.input_ids, attention_mask=pairs.attention_mask, decoder_input_ids=pairs.decoder_input_ids
        ).logits[pairs.supervised]
    assert torch.allclose(logits_of(prompted, SAMPLES), theirs, atol=1e-5)
    assert not torch.allclose(logits_of(small, SAMPLES), theirs, atol=1e-3)


def test_lora_with_a_soft_prompt_is_saved_merged_and_answered_with(small: TextToText, tmp_path: Path) -> None:
    prompt = new_prompt(small.core, {"num_virtual_tokens": 3}, small.source)
    adapted = replace(
        small, model=add_lora(small.core, MODES, {"r": 4, "target_modules": ["q", "v"]}), soft_prompt=prompt
    )
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in adapted.module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    before = logits_of(adapted, SAMPLES)
    save_trained(adapted.module, tmp_path / "trained")
    with torch.no_grad():
        prompt.embedding.weight.zero_()
    load_trained(adapted.module, tmp_path / "trained")
    assert torch.equal(logits_of(adapted, SAMPLES), before)
    merged = adapted.merged(merge(adapted.model))
    require_equal_logits(before, logits_of(merged, SAMPLES), 1e-5)
    save_model(merged, tmp_path / "merged", {"kind": "merged"})
    again = load_model(str(tmp_path / "merged"))
    assert again.soft_prompt is not None
    assert torch.allclose(logits_of(again, SAMPLES), before, atol=1e-5)
    prompts = [again.renderer().render_prompt(s.id, (), s.turns[:1]) for s in SAMPLES]
    together = answer_batch(again, prompts, 6)
    assert together == [answer_batch(again, [one], 6)[0] for one in prompts]
    assert len({answer.ids for answer in together}) > 1


def test_answers_equal_transformers_own_generation(small: TextToText) -> None:
    prompts = [small.renderer().render_prompt(s.id, (), s.turns[:1]) for s in SAMPLES]
    for answer, prompt in zip(answer_batch(small, prompts, 5), prompts, strict=True):
        made = small.core.generate(input_ids=torch.tensor([prompt.input_ids]), max_new_tokens=5, do_sample=False)
        expected = made[0, 1:].tolist()
        end = small.tokenizer.eos_token_id
        assert list(answer.ids) == (expected[: expected.index(end)] if end in expected else expected)


def test_a_written_folder_is_one_that_4_57_reads(small: TextToText, tmp_path: Path) -> None:
    small.save(tmp_path / "m", {"kind": "merged"})
    tokenizer = json.loads((tmp_path / "m" / "tokenizer_config.json").read_text())
    assert tokenizer["tokenizer_class"] != "TokenizersBackend"
    assert not isinstance(tokenizer.get("extra_special_tokens"), list)


def test_a_chat_template_and_eyes_are_refused(small: TextToText) -> None:
    with pytest.raises(ModelError, match="has none"):
        load_model(small.source, template="chatml")
    with pytest.raises(ModelError, match="not possible"):
        load_model(small.source, quantization={})


def test_the_setting_of_rut5_large_has_its_published_number_of_parameters(tmp_path: Path) -> None:
    """24 + 24 layers, r = 8 on q and v, 20 soft tokens in the encoder: 2,379,776 of 740,047,872 (0.32 %)."""
    make_tokenizer(tmp_path)
    T5Config(
        vocab_size=32128, d_model=1024, d_kv=64, d_ff=4096, num_layers=24, num_heads=16, decoder_start_token_id=0
    ).save_pretrained(tmp_path)
    large = load_model(str(tmp_path), meta=True)
    prompt = new_prompt(large.core, {"num_virtual_tokens": 20}, large.source)
    adapted = replace(
        large, model=add_lora(large.core, MODES, {"r": 8, "target_modules": ["q", "v"]}), soft_prompt=prompt
    )
    parts = parts_table(adapted.module, MODES | {"soft_prompt": "full"}, {"language_model": 1e-4, "soft_prompt": 1e-2})
    assert sum(part.trainable for part in parts) == 2_379_776
    assert sum(part.parameters for part in parts) == 740_047_872
    assert {part.part: part.trainable for part in parts} == {"language_model": 2_359_296, "soft_prompt": 20_480}


def test_what_else_ends_an_answer_for_generate_ends_none_here(small: TextToText) -> None:
    """A model's own list of ends may be longer than ours; its loop would end, and nobody would be told."""
    prompt = small.renderer().render_prompt("0", (), (Turn("user", "What is this?"),))
    (expected,) = answer_batch(small, [prompt], 6)
    assert len(expected.ids) > 1
    small.core.generation_config.eos_token_id = [small.tokenizer.eos_token_id, expected.ids[0]]
    assert answer_batch(small, [prompt], 6) == [expected]
