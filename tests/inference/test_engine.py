"""Batched answers with shared prefixes against transformers' own `generate`, one question at a time."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lorgnette.data.rendered import Rendered
from lorgnette.data.rows import build_row
from lorgnette.data.sample import IMAGE_TAG, Sample, Turn
from lorgnette.images.opening import read_pixels
from lorgnette.inference import engine
from lorgnette.inference.decoding import Decoding, Growing, next_tokens
from lorgnette.inference.engine import RowDecoder, batches, generate
from lorgnette.models.assembly import assemble
from lorgnette.models.forward import prepare_for_rows
from lorgnette.models.loading import Llava
from small import renderer_of

STOP = frozenset({3})
MANY_STOPS = frozenset(range(0, 420, 9))  # so that answers of random models end at many different steps


def prompts_of(llava: Llava, samples: list[Sample]) -> list[Rendered]:
    made = renderer_of(llava)
    return [
        made.render_prompt(s.id, s.images, [t for t in s.turns if t.role == "user"][:1])
        for s in samples
        if s.id != "c2"
    ]


def answers(llava: Llava, prompts: list[Rendered], count: int = 6, stop: frozenset[int] = STOP):
    return generate(llava, prompts, lambda path: read_pixels(llava.processor.image_processor, path), count, stop)


def plain_generate(llava: Llava, prompt: Rendered, count: int, stop: frozenset[int] = STOP) -> tuple[int, ...]:
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
        eos_token_id=sorted(stop),
        pad_token_id=0,
        **pixels,
    )
    prepare_for_rows(llava.core)
    return tuple(token for token in made[0, ids.shape[1] :].tolist() if token not in stop)


@pytest.mark.parametrize("language_model", ["llama", "qwen2", "gemma"])
def test_answers_equal_transformers_generate_one_by_one(
    parts: Callable[[str, str], tuple[str, str]], samples: list[Sample], language_model: str
) -> None:
    llava = assemble(*parts("siglip", language_model), seed=3)
    prompts = prompts_of(llava, samples)
    together = answers(llava, prompts)
    assert [answer.ids for answer in together] == [plain_generate(llava, prompt, 6) for prompt in prompts]
    assert len({answer.ids for answer in together}) > 3  # random models that all say the same would prove nothing


QUESTIONS = ["what color is the shape?", "is there a circle?", "What is this?", "Где чашка?", "is it blue or red?"]


@pytest.fixture
def many(llava: Llava, pictures: list[str]) -> list[Rendered]:
    """Forty-eight prompts about four pictures and none, scattered: 1 to 26 about each, of several lengths."""
    made = renderer_of(llava)
    prompts = []
    for number in range(48):
        images = ((pictures[0],), (pictures[1],), (pictures[2],), (pictures[3], pictures[0]), ())
        chosen = images[(0, 1, 0, 1, 0, 2, 0, 0)[number % 8] if number not in {5, 21, 40} else (3, 4, 4)[number % 3]]
        text = f"{IMAGE_TAG}\n" * len(chosen) + QUESTIONS[number % 5] + " no" * (number % 4) + f" {number}"
        prompts.append(made.render_prompt(str(number), chosen, [Turn("user", text)]))
    return prompts


def test_unsorted_questions_about_several_images_in_one_forward_equal_generate(
    llava: Llava, many: list[Rendered]
) -> None:
    together = answers(llava, many, 12, MANY_STOPS)
    assert [answer.ids for answer in together] == [plain_generate(llava, prompt, 12, MANY_STOPS) for prompt in many]
    assert len({answer.ids for answer in together}) > 24
    assert len({len(answer.ids) for answer in together}) > 3  # they end at different steps


def test_shared_and_unshared_images_give_the_same_answers(llava: Llava, many: list[Rendered], tmp_path: Path) -> None:
    shared = answers(llava, many, 12, MANY_STOPS)
    copies = []
    for number, prompt in enumerate(many):  # the same pictures under names of their own share nothing
        names = [shutil.copy(path, tmp_path / f"{number}-{place}.png") for place, path in enumerate(prompt.images)]
        copies.append(replace(prompt, images=tuple(map(str, names))))
    row = build_row(copies, lambda _: np.zeros((3, 16, 16), np.uint8), llava.core.config.image_token_id)
    assert all(group.prefix == 0 for group in row.groups)
    assert answers(llava, copies, 12, MANY_STOPS) == shared


@pytest.mark.parametrize("batch_size", [1, 7, 20])
def test_batches_of_any_size_give_the_same_answers(llava: Llava, many: list[Rendered], batch_size: int) -> None:
    together = answers(llava, many, 8, MANY_STOPS)
    found = {}
    for batch in batches(many, batch_size):
        made = answers(llava, [many[index] for index in batch], 8, MANY_STOPS)
        found.update(zip(batch, made, strict=True))
    assert [found[index] for index in range(len(many))] == together


def test_a_step_costs_a_token_a_question_still_asked_and_few_calls_of_attention(
    llava: Llava, pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = renderer_of(llava)
    prompts = [
        made.render_prompt(f"{path}-{text}", (path,), [Turn("user", f"{IMAGE_TAG}\n{text}")])
        for text in QUESTIONS
        for path in pictures
    ]
    steps = []
    original = engine._forward

    def seen(llava, cache, embeddings, positions, layout, keep):
        steps.append((embeddings.shape[1], len(layout.blocks)))
        return original(llava, cache, embeddings, positions, layout, keep)

    monkeypatch.setattr(engine, "_forward", seen)
    given = answers(llava, prompts, 8, MANY_STOPS)
    lengths = [len(answer.ids) for answer in given]
    expected = [sum(length > step for length in lengths) for step in range(7)]
    assert [tokens for tokens, _ in steps[1:]] == expected
    assert expected[0] > expected[-1]  # some answers end early
    assert {blocks for _, blocks in steps[1:]} == {1}  # four images of five questions each: one stack


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

    def counted(model, row, scale, prompt):
        nonlocal seen
        seen += 0 if row.pixel_values is None else row.pixel_values.shape[0]
        return original(model, row, scale, prompt)

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


def answers_while_joining(llava: Llava, prompts: list[Rendered], joining: list[int]) -> tuple[list, int]:
    """Answers of prompts of which `joining[n]` join before step n, the rest with the last; most keys ever cached."""
    left = list(prompts)
    decoder, given, most = RowDecoder(llava), [], 0
    counts = iter(joining)
    while left or decoder.asked:
        count = next(counts, len(left))
        if count and left:
            batch, left = left[:count], left[count:]
            decoder.join(batch, lambda path: read_pixels(llava.processor.image_processor, path))
            given += [Growing(Decoding(12), MANY_STOPS) for _ in batch]
        if decoder.asked:
            most = max(most, decoder._cache.get_seq_length())
            decoder.step(next_tokens([given[number] for number in decoder.asked], decoder.logits))
    return [answer.generation for answer in given], most


@pytest.mark.parametrize("most_unseen", [0.0, 0.5, 2.0], ids=["always forgetting", "forgetting", "never forgetting"])
def test_prompts_that_join_while_others_are_answered_change_no_answer(
    llava: Llava, many: list[Rendered], most_unseen: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "MOST_UNSEEN", most_unseen)
    expected = answers(llava, many, 12, MANY_STOPS)
    random = np.random.default_rng(5)
    for _ in range(4):
        joining = [1, *random.choice([0, 0, 1, 2, 7], size=60).tolist()]
        assert answers_while_joining(llava, many, joining)[0] == expected


def test_what_is_cached_of_prompts_that_are_gone_is_forgotten(
    llava: Llava, many: list[Rendered], monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = max(len(prompt.input_ids) for prompt in many) + 12
    one_by_one = [1, 0] * len(many)  # some are always being answered
    forgetting = answers_while_joining(llava, many, one_by_one)[1]
    monkeypatch.setattr(engine, "MOST_UNSEEN", 2.0)
    keeping = answers_while_joining(llava, many, one_by_one)[1]
    assert forgetting < 8 * longest
    assert keeping > 3 * forgetting


def test_a_seed_draws_the_same_answer_whoever_else_is_asked(llava: Llava, many: list[Rendered]) -> None:
    def drawn(prompts: list[Rendered], seed: int | None) -> list[tuple[int, ...]]:
        given = [Growing(Decoding(12, temperature=1.0, top_p=0.9, seed=seed), MANY_STOPS) for _ in prompts]
        decoder = RowDecoder(llava)
        decoder.join(prompts, lambda path: read_pixels(llava.processor.image_processor, path))
        while decoder.asked:
            decoder.step(next_tokens([given[number] for number in decoder.asked], decoder.logits))
        return [tuple(answer.ids) for answer in given]

    together = drawn(many[:8], 7)
    assert together == [drawn([prompt], 7)[0] for prompt in many[:8]]
    assert together != drawn(many[:8], 8)
    assert drawn(many[:8], None) != drawn(many[:8], None)
