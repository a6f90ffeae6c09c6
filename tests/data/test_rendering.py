"""Templates against the golden strings, and ids and labels against expectations made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorgnette.data.rendered import IGNORE_INDEX
from lorgnette.data.rendering import Renderer
from lorgnette.data.sample import IMAGE_TAG, Origin, Sample, Turn
from lorgnette.data.templates import TEMPLATES, chat_template, named_like, stop_ids, taking_parts
from lorgnette.errors import DataError, ModelError
from small import conversation, make_tokenizer

# rendered by the reference projects for: user '<image>\nWhat is this?' / assistant 'A cat.' / user 'Where?'
ASKED = (Turn("user", "<image>\nWhat is this?"), Turn("assistant", "A cat."), Turn("user", "Where?"))
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions. "
    "USER: <image>\nWhat is this? ASSISTANT: A cat.</s>USER: Where? ASSISTANT:"
)
CHATML = (
    "<|im_start|>user\n<image>\nWhat is this?<|im_end|>\n<|im_start|>assistant\nA cat.<|im_end|>\n"
    "<|im_start|>user\nWhere?<|im_end|>\n<|im_start|>assistant\n"
)
RENDERED = {
    "vicuna_v1": VICUNA,
    "llava_v1": VICUNA.replace("curious user", "curious human").replace("the user's", "the human's"),
    "chatml": CHATML,
    "qwen1.5": "<|im_start|>system\nYou are a helpful assistant<|im_end|>\n" + CHATML,
    "internlm2": "<s>" + CHATML,
    "gemma": (
        "<s><start_of_turn>user\n<image>\nWhat is this?<end_of_turn>\n<start_of_turn>model\nA cat.<end_of_turn>\n"
        "<start_of_turn>user\nWhere?<end_of_turn>\n<start_of_turn>model\n"
    ),
    "plain": "<image>A cat.\n",
}
# what the model is trained to say in: A cat. / On the table.
SUPERVISED = {
    "vicuna_v1": [" A cat.</s>", " On the table.</s>"],
    "llava_v1": [" A cat.</s>", " On the table.</s>"],
    "chatml": ["A cat.<|im_end|>", "On the table.<|im_end|>"],
    "qwen1.5": ["A cat.<|im_end|>", "On the table.<|im_end|>"],
    "internlm2": ["A cat.<|im_end|>", "On the table.<|im_end|>"],
    "gemma": ["A cat.<end_of_turn>", "On the table.<end_of_turn>"],
    "plain": ["A cat.\n", "On the table.\n"],
}
IMAGE_ID, IMAGE_TOKENS = 400, 5


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory):
    made = make_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    made.add_special_tokens({"additional_special_tokens": ["<image>"]}, replace_extra_special_tokens=False)
    return made


@pytest.fixture(scope="module")
def bos_tokenizer(tmp_path_factory: pytest.TempPathFactory):
    made = make_tokenizer(tmp_path_factory.mktemp("bos"), bos=True)
    made.add_special_tokens({"additional_special_tokens": ["<image>"]}, replace_extra_special_tokens=False)
    return made


def renderer(tokenizer, name: str | None = None, **more) -> Renderer:
    image_id = tokenizer.convert_tokens_to_ids("<image>")
    return Renderer(chat_template(tokenizer, name), image_id, IMAGE_TOKENS, **more)


def spoken(tokenizer, labels) -> list[str]:
    """The runs of supervised tokens as text."""
    runs: list[list[int]] = [[]]
    for label in labels:
        if label == IGNORE_INDEX:
            runs.append([])
        else:
            runs[-1].append(label)
    return [tokenizer.decode(run) for run in runs if run]


def test_every_template_has_an_expectation() -> None:
    assert set(RENDERED) == set(SUPERVISED) == set(TEMPLATES)


@pytest.mark.parametrize("name", RENDERED)
def test_templates_render_as_the_reference_projects_do(tokenizer, name: str) -> None:
    assert chat_template(tokenizer, name).render(ASKED, add_generation_prompt=True) == RENDERED[name]


@pytest.mark.parametrize("name", SUPERVISED)
def test_ids_and_labels_equal_a_hand_made_expectation(tokenizer, name: str) -> None:
    sample = conversation("x", ["a.png"], "What is this?", "A cat.", "Where?", "On the table.")
    found = renderer(tokenizer, name).render(sample)
    image_id = tokenizer.convert_tokens_to_ids("<image>")
    # the text cut into supervised and other pieces by hand, each encoded with its place in the whole known
    text = chat_template(tokenizer, name).render(sample.turns).replace("<image>", "<image>" * IMAGE_TOKENS)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    marks = [False] * len(text)
    start = 0
    for answer in SUPERVISED[name]:
        start = text.index(answer, start)
        marks[start : start + len(answer)] = [True] * len(answer)
        start += len(answer)
    expected = [
        token if all(marks[a:b]) else IGNORE_INDEX
        for token, (a, b) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    ]
    assert list(found.input_ids) == encoded["input_ids"]
    assert list(found.labels) == expected
    assert found.input_ids.count(image_id) == IMAGE_TOKENS
    if name != "plain":  # there both captions follow each other
        assert spoken(tokenizer, found.labels) == SUPERVISED[name]


def test_prompt_is_the_beginning_of_the_training_text(tokenizer) -> None:
    made = renderer(tokenizer, "vicuna_v1")
    sample = conversation("x", ["a.png"], "What is this?", "A cat.")
    trained = made.render(sample)
    prompt = made.render_prompt("x", sample.images, sample.turns[:1])
    first = next(i for i, label in enumerate(trained.labels) if label != IGNORE_INDEX)
    assert prompt.input_ids == trained.input_ids[:first]
    assert set(prompt.labels) == {IGNORE_INDEX}


@pytest.mark.parametrize(
    ("question", "images", "places"),
    [
        ("<image>\nWhat is this?", 1, 1),
        ("What <image> is this?", 1, 1),
        ("What is this?\n<image>", 1, 1),
        ("What is this?", 0, 0),
        ("<image>\n<image>\nWhat is this?", 2, 2),
    ],
)
def test_tags_stand_anywhere(tokenizer, question: str, images: int, places: int) -> None:
    sample = conversation("x", ["a.png", "b.png"][:images], question, "A cat.")
    made = renderer(tokenizer)
    found = made.render(sample)
    assert found.input_ids.count(made.image_token_id) == places * IMAGE_TOKENS
    assert spoken(tokenizer, found.labels) == ["A cat.<|im_end|>"]


def test_the_tokenizers_own_bos_is_put_in_front_once(bos_tokenizer) -> None:
    sample = conversation("x", [], "What is this?", "A cat.")
    bos = bos_tokenizer.bos_token_id
    assert renderer(bos_tokenizer, "vicuna_v1").render(sample).input_ids.count(bos) == 1
    assert renderer(bos_tokenizer, "internlm2").render(sample).input_ids.count(bos) == 1


def test_stop_ids_are_the_end_of_turn_and_eos(tokenizer) -> None:
    ids = stop_ids(chat_template(tokenizer))
    assert ids == {tokenizer.convert_tokens_to_ids("<|im_end|>"), tokenizer.eos_token_id}


def test_white_space_around_an_answer_is_not_learned(tokenizer) -> None:
    sample = conversation("x", [], "What is this?", "  A cat.\n")
    assert spoken(tokenizer, renderer(tokenizer).render(sample).labels) == ["A cat.<|im_end|>"]


@pytest.mark.parametrize(
    ("sample", "says"),
    [
        (conversation("x", ["a.png"], "no <image><image> tag", "A cat."), "2 <image> tags but 1 images"),
        (conversation("x", [], "a <image> tag", "A cat."), "1 <image> tags but 0 images"),
        (conversation("x", [], "What is this?"), "roles are user"),
        (conversation("x", [], "What is this?", " "), "turn 1 (assistant) is empty"),
        (Sample("x", (), (), Origin("f.json", 3)), "f.json, row 3 (id x): roles are none"),
    ],
)
def test_malformed_samples_are_errors_with_their_place(tokenizer, sample: Sample, says: str) -> None:
    with pytest.raises(DataError) as error:
        renderer(tokenizer).render(sample)
    assert says in str(error.value)


def test_an_answer_that_shares_a_token_with_its_surroundings_is_an_error(tokenizer) -> None:
    # without the special token in front of it, 'A' merges with the letters before
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}<|im_end|>{% endif %}{% endfor %}"
    )
    try:
        with pytest.raises(DataError, match="token boundaries"):
            renderer(tokenizer).render(conversation("x", [], "the ta", "ble is red"))
    finally:
        tokenizer.chat_template = TEMPLATES["chatml"].jinja


def test_shortening_takes_text_only_by_policy_and_is_counted(tokenizer) -> None:
    sample = conversation("x", ["a.png"], "What is this?", "A cat.", "Where?", "On the table. " * 9)
    whole = renderer(tokenizer).render(sample)
    first = renderer(tokenizer).render(conversation("x", ["a.png"], "What is this?", "A cat."))
    limit = len(first.input_ids) - IMAGE_TOKENS + 3
    dropped = renderer(tokenizer, max_text_tokens=limit).render(sample)
    assert dropped.input_ids == first.input_ids
    assert dropped.shortened == len(whole.input_ids) - len(first.input_ids)
    cut = renderer(tokenizer, max_text_tokens=limit, too_long="cut_end").render(sample)
    assert cut.input_ids == whole.input_ids[: limit + IMAGE_TOKENS]
    assert cut.shortened == len(whole.input_ids) - len(cut.input_ids)
    with pytest.raises(DataError, match=f"max_text_tokens {limit}"):
        renderer(tokenizer, max_text_tokens=limit, too_long="drop_sample").render(sample)
    with pytest.raises(DataError, match="max_text_tokens 3"):
        renderer(tokenizer, max_text_tokens=3).render(sample)


def test_an_image_at_the_end_survives_cutting(tokenizer) -> None:
    spoken = ["What is this?", "A cat.", "And what is it that you see here <image> this?", "red"]
    sample = conversation("x", ["a.png"], *spoken)
    whole = renderer(tokenizer).render(sample)
    image_id = tokenizer.convert_tokens_to_ids("<image>")
    limit = whole.input_ids.index(image_id) - 3
    found = renderer(tokenizer, max_text_tokens=limit, too_long="cut_end").render(sample)
    assert found.input_ids == whole.input_ids[:limit] + (image_id,) * IMAGE_TOKENS


def test_templates_that_cannot_be_trained_with_are_refused(tokenizer, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="Did you mean 'vicuna_v1'"):
        chat_template(tokenizer, "vicuna_v2")
    other = make_tokenizer(tmp_path)
    # llava-1.5-hf's template ends an answer with a space: nothing teaches the model to stop
    other.chat_template = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ 'USER: ' + m.content + ' ASSISTANT:' }}"
        "{% else %}{{ ' ' + m.content + ' ' }}{% endif %}{% endfor %}"
    )
    with pytest.raises(ModelError, match="never learn to stop"):
        chat_template(other)
    other.chat_template = None
    with pytest.raises(ModelError, match="no chat template"):
        chat_template(other)


def test_what_a_template_adds_after_the_last_answer_only_is_not_its_end_of_turn(tokenizer) -> None:
    tokenizer.chat_template = TEMPLATES["chatml"].jinja + "{% if not add_generation_prompt %}{{ eos_token }}{% endif %}"
    try:
        assert chat_template(tokenizer).end_of_turn == "<|im_end|>"
    finally:
        tokenizer.chat_template = TEMPLATES["chatml"].jinja


@pytest.mark.parametrize(
    ("jinja", "reason"),
    [
        ("{{ 1 / 0 }}", "division by zero"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "Range too big"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion"),
        ("{{ messages[9].content }}", "has no element 9"),
        ("{% for", "end of template"),
        ("{{ '\\ud800' }}", "surrogates not allowed"),
    ],
)
def test_a_template_is_a_program_that_may_fail(tmp_path: Path, jinja: str, reason: str) -> None:
    tokenizer = make_tokenizer(tmp_path)
    tokenizer.chat_template = jinja
    with pytest.raises(ModelError, match=reason) as caught:
        chat_template(tokenizer)
    assert "Next: mend its chat template" in str(caught.value)


OWN = {
    "begins with a line break": "\n  {% for m in messages %}\n  {{ m['content'] }}\n{% endfor %}\n x",
    "looks at the first": (
        "{% if messages[0].role == 'system' %}S{{ messages[0].content }}{% set messages = messages[1:] %}{% endif %}"
        "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}{% endfor %}"
    ),
}


@pytest.mark.parametrize("name", [*TEMPLATES, *OWN])
def test_templates_take_parts_as_the_texts_that_are_trained_with(tmp_path: Path, name: str) -> None:
    tokenizer = make_tokenizer(tmp_path)
    jinja = TEMPLATES[name].jinja if name in TEMPLATES else OWN[name]
    taking = taking_parts(tokenizer, jinja)
    assert taking != jinja
    assert taking_parts(tokenizer, taking) == taking
    assert named_like(taking) == named_like(jinja) == (name if name in TEMPLATES else None)

    def told(template: str, *contents: object) -> str:
        roles = ("user", "assistant", "user")
        messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)]
        return tokenizer.apply_chat_template(
            messages, chat_template=template, tokenize=False, add_generation_prompt=True
        )

    text, image = lambda words: {"type": "text", "text": words}, {"type": "image", "url": "a.png"}
    texts = (f"{IMAGE_TAG}\n{IMAGE_TAG}\nwhat? \n и", "a cat", "where?")
    assert told(taking, *texts) == told(jinja, *texts)
    parts = ([text("what? "), image, text(" и"), image], [text("a cat")], "where?")
    assert told(taking, *parts) == told(jinja, f"{IMAGE_TAG}\n{IMAGE_TAG}\nwhat? \n и", "a cat", "where?")
    placed = [text(f"what {IMAGE_TAG} is"), image]
    assert told(taking, placed) == told(jinja, f"what {IMAGE_TAG} is")


def test_templates_that_take_parts_in_their_own_way_stay(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path)
    only = (
        "{% for m in messages %}{% for c in m.content %}{% if c.type == 'text' %}{{ c.text }}{% else %}<image>"
        "{% endif %}{% endfor %}{% endfor %}"
    )
    for jinja in (only, "{{ raise_exception('no') }}", "{% for"):
        assert taking_parts(tokenizer, jinja) == jinja
