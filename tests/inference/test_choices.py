"""Options scored from one forward pass of many questions, against transformers one question at a time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from PIL import Image

from lorgnette.data.rendered import Rendered
from lorgnette.data.rendering import Renderer
from lorgnette.data.sample import Sample, Turn
from lorgnette.data.templates import ChatTemplate
from lorgnette.errors import DataError
from lorgnette.images.opening import read_pixels
from lorgnette.inference.choices import choose, option_tokens
from lorgnette.models.assembly import assemble
from lorgnette.models.forward import prepare_for_rows
from lorgnette.models.loading import Llava
from small import renderer_of

LETTERS = ("A", "B", "C", "D")


def asked(renderer: Renderer, samples: list[Sample]) -> tuple[list[Rendered], list[dict[str, int]]]:
    """Prompts of the samples' first questions, and the tokens of two to four letters for each."""
    prompts, options = [], []
    for number, sample in enumerate(samples):
        turns = [turn for turn in sample.turns if turn.role == "user"][:1]
        if sample.id != "c2":  # its image comes after the first words
            prompts.append(renderer.render_prompt(sample.id, sample.images, turns))
            options.append(option_tokens(renderer, turns, LETTERS[: 2 + number % 3]))
    return prompts, options


def plain_log_probabilities(llava: Llava, prompt: Rendered) -> torch.Tensor:
    """transformers' own forward pass on one prompt: (V)."""
    llava.core.model.language_model.set_attn_implementation("sdpa")
    pixels = {}
    if prompt.images:
        images = [Image.open(path).convert("RGB") for path in prompt.images]
        pixels = dict(llava.processor.image_processor(images, return_tensors="pt"))
    with torch.no_grad():
        logits = llava.core(input_ids=torch.tensor([prompt.input_ids]), **pixels).logits[0, -1]
    prepare_for_rows(llava.core)
    return logits.log_softmax(-1)


@pytest.mark.parametrize("language_model", ["llama", "qwen2", "gemma"])
def test_options_equal_transformers_one_question_at_a_time(
    parts: Callable[[str, str], tuple[str, str]], samples: list[Sample], language_model: str
) -> None:
    llava = assemble(*parts("siglip", language_model), seed=3)
    prompts, options = asked(renderer_of(llava), samples)
    choices = choose(llava, prompts, lambda path: read_pixels(llava.processor.image_processor, path), options)
    for prompt, tokens, choice in zip(prompts, options, choices, strict=True):
        plain = plain_log_probabilities(llava, prompt)
        expected = {letter: float(plain[token]) for letter, token in tokens.items()}
        assert choice.log_probabilities == pytest.approx(expected, abs=1e-4)
        assert choice.option == max(expected, key=lambda letter: expected[letter])
        assert choice.said == (int(plain.argmax()) in tokens.values())
    assert len({choice.option for choice in choices}) > 1  # always the same letter would prove little


def test_an_option_is_said_if_it_is_the_most_likely_token(llava: Llava, samples: list[Sample]) -> None:
    prompts, _ = asked(renderer_of(llava), samples)
    best = [int(plain_log_probabilities(llava, prompt).argmax()) for prompt in prompts]
    options = [{"A": (token + 1) % 300, "B": token} for token in best]
    for choice in choose(llava, prompts, lambda p: read_pixels(llava.processor.image_processor, p), options):
        assert (choice.option, choice.said) == ("B", True)


@pytest.mark.parametrize(("template", "form"), [("chatml", "A"), ("vicuna_v1", "ĠA"), ("gemma", "A")])
def test_an_option_has_the_form_that_it_has_after_the_prompt(llava: Llava, template: str, form: str) -> None:
    renderer = Renderer(llava.template(template), llava.core.config.image_token_id, llava.image_tokens)
    tokens = option_tokens(renderer, [Turn("user", "What is this?\nA. cat\nB. cup")], ["A", "B"])
    assert llava.tokenizer.convert_ids_to_tokens(tokens["A"]) == form


def test_options_that_begin_alike_are_refused(llava: Llava) -> None:
    with pytest.raises(DataError, match="a token of their own"):
        option_tokens(renderer_of(llava), [Turn("user", "which?")], ["A", "A cat"])


def test_an_answer_that_melts_into_the_prompt_is_refused(llava: Llava) -> None:
    jinja = "{% for m in messages %}{{ m.content + (' sha' if m.role == 'user' else eos_token) }}{% endfor %}"
    template = ChatTemplate(llava.tokenizer, "own", jinja, "</s>")
    assert llava.tokenizer.tokenize("which? shape")[-1] == "Ġshape"
    renderer = Renderer(template, llava.core.config.image_token_id, llava.image_tokens)
    with pytest.raises(DataError, match="token boundaries"):
        option_tokens(renderer, [Turn("user", "which?")], ["pe", "B"])
