"""Batched answers with shared prefixes against transformers' own `generate`, one question at a time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from PIL import Image

from lorgnette.data.images import read_pixels
from lorgnette.data.rendering import Rendered
from lorgnette.data.sample import Sample, Turn
from lorgnette.inference import engine
from lorgnette.inference.engine import batches, generate
from lorgnette.models.assembly import assemble
from lorgnette.models.forward import prepare_for_rows
from lorgnette.models.loading import Llava
from small import renderer_of

STOP = frozenset({3})


def prompts_of(llava: Llava, samples: list[Sample]) -> list[Rendered]:
    made = renderer_of(llava)
    return [
        made.render_prompt(s.id, s.images, [t for t in s.turns if t.role == "user"][:1])
        for s in samples
        if s.id != "c2"
    ]


def answers(llava: Llava, prompts: list[Rendered], count: int = 6, stop: frozenset[int] = STOP):
    return generate(llava, prompts, lambda path: read_pixels(llava.processor.image_processor, path), count, stop)


def plain_generate(llava: Llava, prompt: Rendered, count: int) -> tuple[int, ...]:
    """transformers' own greedy generation of one prompt."""
    llava.core.model.language_model.set_attn_implementation("sdpa")
    ids = torch.tensor([prompt.input_ids])
    pixels = {}
    if prompt.images:
        images = [Image.open(path).convert("RGB") for path in prompt.images]
        pixels = dict(llava.processor.image_processor(images, return_tensors="pt"))
    made = llava.core.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=count,
        eos_token_id=sorted(STOP),
        pad_token_id=0,
        **pixels,
    )
    prepare_for_rows(llava.core)
    return tuple(token for token in made[0, ids.shape[1] :].tolist() if token not in STOP)


@pytest.mark.parametrize("language_model", ["llama", "qwen2", "gemma"])
def test_answers_equal_transformers_generate_one_by_one(
    parts: Callable[[str, str], tuple[str, str]], samples: list[Sample], language_model: str
) -> None:
    llava = assemble(*parts("siglip", language_model), seed=3)
    prompts = prompts_of(llava, samples)
    together = answers(llava, prompts)
    assert [answer.ids for answer in together] == [plain_generate(llava, prompt, 6) for prompt in prompts]
    assert len({answer.ids for answer in together}) > 3  # random models that all say the same would prove nothing


def test_answers_of_batch_1_and_batch_n_are_identical(llava: Llava, samples: list[Sample]) -> None:
    prompts = prompts_of(llava, samples)
    together = answers(llava, prompts, count=12)
    assert together == [answers(llava, [prompt], count=12)[0] for prompt in prompts]


def test_an_answer_that_ends_early_leaves_the_others_alone(llava: Llava, samples: list[Sample]) -> None:
    prompts = prompts_of(llava, samples)
    free = answers(llava, prompts, count=8, stop=frozenset())
    assert {answer.stopped_by for answer in free} == {"length"}
    ender = free[0].ids[2]  # what the first answer says third now ends answers
    stopped = answers(llava, prompts, count=8, stop=frozenset({ender}))
    for before, after in zip(free, stopped, strict=True):
        cut = before.ids.index(ender) if ender in before.ids else None
        assert after.ids == before.ids[:cut]
        assert after.stopped_by == ("length" if cut is None else "end")


def test_every_image_is_encoded_once(llava: Llava, samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [p for p in prompts_of(llava, samples) if p.images]
    seen = 0
    original = engine.row_embeddings

    def counted(model, row, scale):
        nonlocal seen
        seen += 0 if row.pixel_values is None else row.pixel_values.shape[0]
        return original(model, row, scale)

    monkeypatch.setattr(engine, "row_embeddings", counted)
    for batch in batches(prompts, 3):
        answers(llava, [prompts[index] for index in batch])
    distinct_sets = {prompt.images for prompt in prompts}
    assert seen == sum(len(images) for images in distinct_sets)


def test_batches_keep_images_together_and_split_only_what_is_too_large() -> None:
    prompts = [Rendered(str(n), (image,), (1,), (-100,)) for n, image in enumerate("aabbbacccccccd")]
    made = list(batches(prompts, 4))
    assert sorted(index for batch in made for index in batch) == list(range(len(prompts)))
    assert all(len(batch) <= 4 for batch in made)
    assert made[0] == [0, 1, 5]
    assert made[1] == [2, 3, 4]


def test_the_prompt_of_one_turn_needs_no_image(llava: Llava) -> None:
    prompt = renderer_of(llava).render_prompt("t", (), [Turn("user", "is there a table?")])
    assert answers(llava, [prompt])[0].ids == plain_generate(llava, prompt, 6)
