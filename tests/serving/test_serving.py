"""Whoever is served gets the answer that `evaluate` measures: over HTTP, with the official client, many at a time."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletion

from lorgnette.evaluation.asking import Asker
from lorgnette.evaluation.tasks.task import Document
from lorgnette.models.adapted import load_model_or_adapter
from lorgnette.models.adapters import add_lora
from lorgnette.models.assembly import assemble
from lorgnette.models.fingerprint import fingerprint
from lorgnette.models.learner import Learner, load_model
from lorgnette.models.llava import Llava
from lorgnette.models.saving import save_llava
from lorgnette.models.soft_prompt import new_prompt
from lorgnette.training.trained import keep_trained
from small import make_text_to_text
from trained import PLAN, shaken, trained_on

Serve = Callable[..., str]
QUESTIONS = ["what color is the shape?", "is there a circle?", "What is this?", "Где чашка?", "is it blue or red?"]


def url_of(path: str) -> str:
    return "data:image/png;base64," + base64.b64encode(Path(path).read_bytes()).decode()


def ask(address: str, text: str, *images: str, **settings: object) -> ChatCompletion:
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="any", max_retries=0)
    parts = [{"type": "image_url", "image_url": {"url": url_of(path)}} for path in images]
    content = [{"type": "text", "text": text}, *parts]
    return client.chat.completions.create(model="small", messages=[{"role": "user", "content": content}], **settings)


def measured(learner: Learner, documents: list[Document], max_new_tokens: int = 12) -> list[str]:
    asker = Asker(learner, "{question}", max_new_tokens)
    return [made["answer"] for made in asker.answers([asker.question(document) for document in documents])]


def documents_of(pictures: list[str]) -> list[Document]:
    return [
        Document(f"{number}", (pictures[number % 4],) if number % 5 else (), f"{QUESTIONS[number % 5]} {number}", "")
        for number in range(20)
    ]


@pytest.mark.parametrize("settings", [{}, {"quantization": PLAN}], ids=["lora", "4 bits"])
def test_a_soft_prompt_with_lora_answers_served_as_it_was_measured(
    parts: Callable[[str, str], tuple[str, str]], pictures: list[str], tmp_path: Path, serve: Serve, settings: dict
) -> None:
    save_llava(assemble(*parts("clip", "llama"), seed=3), tmp_path / "base", {"kind": "base"})
    trained_on(tmp_path / "base", tmp_path / "stage", **settings)
    learner = load_model_or_adapter(str(tmp_path / "stage" / "trained"))
    documents = documents_of(pictures)
    expected = measured(learner, documents)
    assert len(set(expected)) > 10
    address = serve(load_model_or_adapter(str(tmp_path / "stage" / "trained")))
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda document: ask(address, document.question, *document.images), documents))
    assert [answer.choices[0].message.content for answer in answers] == expected
    plain = measured(replace(learner, soft_prompt=None), documents)
    assert plain != expected  # the soft prompt says something
    prompts = [Asker(learner, "{question}", 1).question(document).prompt for document in documents]
    assert [answer.usage.prompt_tokens for answer in answers] == [len(prompt.input_ids) for prompt in prompts]


def test_a_text_to_text_adapter_with_a_soft_prompt_too(tmp_path: Path, serve: Serve, pictures: list[str]) -> None:
    make_text_to_text(tmp_path / "t5")
    learner = load_model(str(tmp_path / "t5"))
    prompt = new_prompt(learner.core, {"num_virtual_tokens": 3}, learner.source)
    adapted = add_lora(learner.core, {"language_model": "lora"}, {"r": 4, "target_modules": ["q", "v"]})
    learner = shaken(replace(learner, model=adapted, soft_prompt=prompt), 0.5)
    modes = {"language_model": "lora", "soft_prompt": "full"}
    keep_trained(learner, tmp_path / "stage", fingerprint(tmp_path / "t5"), modes, None)
    learner = load_model_or_adapter(str(tmp_path / "stage" / "trained"))
    documents = [Document(f"{n}", (), f"{QUESTIONS[n % 5]} {n}", "") for n in range(12)]
    expected = measured(learner, documents)
    assert len(set(expected)) > 3
    address = serve(learner)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda document: ask(address, document.question), documents))
    assert [answer.choices[0].message.content for answer in answers] == expected
    with pytest.raises(openai.BadRequestError, match="cannot see"):
        ask(address, "What is this?", pictures[0])


def test_a_stream_is_the_whole_answer_in_pieces(llava: Llava, serve: Serve, pictures: list[str]) -> None:
    address = serve(llava)
    for number, question in enumerate(QUESTIONS):
        whole = ask(address, question, pictures[number % 4])
        chunks = list(ask(address, question, pictures[number % 4], stream=True, stream_options={"include_usage": True}))
        said = [chunk.choices[0] for chunk in chunks if chunk.choices]
        assert "".join(choice.delta.content or "" for choice in said) == whole.choices[0].message.content
        assert [choice.finish_reason for choice in said[:-1]] == [None] * (len(said) - 1)
        assert said[-1].finish_reason == whole.choices[0].finish_reason
        assert chunks[-1].usage == whole.usage
        assert len({chunk.id for chunk in chunks}) == 1


def test_length_and_stop_strings_end_an_answer(llava: Llava, serve: Serve) -> None:
    address = serve(llava)
    free = ask(address, "What is this?")
    assert (free.choices[0].finish_reason, free.usage.completion_tokens) == ("length", 12)
    text = free.choices[0].message.content
    long = ask(address, "What is this?", max_tokens=40)  # more than a request that does not say gets
    assert (long.choices[0].finish_reason, long.usage.completion_tokens) == ("length", 40)
    short = ask(address, "What is this?", max_tokens=3)
    assert (short.choices[0].finish_reason, short.usage.completion_tokens) == ("length", 3)
    assert text.startswith(short.choices[0].message.content)
    middle = text[len(text) // 2 :][:2]
    stopped = ask(address, "What is this?", stop=[middle, "never said"])
    assert stopped.choices[0].finish_reason == "stop"
    assert stopped.choices[0].message.content == text[: text.index(middle)].rstrip()
    assert stopped.usage.completion_tokens < 12


def test_the_model_is_found_by_its_name(llava: Llava, serve: Serve) -> None:
    client = openai.OpenAI(base_url=f"{serve(llava)}/v1", api_key="any", max_retries=0)
    assert [model.id for model in client.models.list()] == [client.models.retrieve("small").id] == ["small"]
    with pytest.raises(openai.NotFoundError, match="Did you mean 'small'"):
        client.models.retrieve("smal")


def test_a_seed_draws_the_same_answer_again(llava: Llava, serve: Serve) -> None:
    address = serve(llava)

    def drawn(seed: int | None) -> str:
        return ask(address, "What is this?", temperature=1.5, top_p=0.95, seed=seed).choices[0].message.content

    assert drawn(4) == drawn(4)
    assert len({drawn(seed) for seed in range(5)}) > 1
    assert len({drawn(None) for _ in range(5)}) > 1


def test_a_conversation_with_turns_is_rendered_as_in_training(llava: Llava, serve: Serve, pictures: list[str]) -> None:
    from lorgnette.data.sample import IMAGE_TAG, Turn
    from lorgnette.inference.answers import answer_batch, text_of

    turns = (
        Turn("system", "Be brief."),
        Turn("user", f"{IMAGE_TAG}\n{IMAGE_TAG}\nWhat is this?"),
        Turn("assistant", "A cat."),
        Turn("user", "Where?"),
    )
    prompt = llava.renderer().render_prompt("0", (pictures[0], pictures[1]), turns)
    expected = text_of(llava, answer_batch(llava, [prompt], 12)[0].ids)
    client = openai.OpenAI(base_url=f"{serve(llava)}/v1", api_key="any")
    images = [{"type": "image_url", "image_url": {"url": url_of(path)}} for path in pictures[:2]]
    placed = {"type": "text", "text": f"{IMAGE_TAG}\n{IMAGE_TAG}\nWhat is this?"}
    for content in ([{"type": "text", "text": "What is this?"}, *images], [placed, *images]):
        made = client.chat.completions.create(
            model="small",
            messages=[
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": content},
                {"role": "assistant", "content": " A cat. "},
                {"role": "user", "content": "Where?"},
            ],
        )
        assert made.choices[0].message.content == expected


def test_an_answer_can_be_sent_back_as_it_came(llava: Llava, serve: Serve) -> None:
    client = openai.OpenAI(base_url=f"{serve(llava)}/v1", api_key="any")
    asked = [{"role": "user", "content": "What is this?"}]
    first = client.chat.completions.create(model="small", messages=asked).choices[0].message
    again = {"role": "user", "content": "Where?"}
    plain = {"role": "assistant", "content": first.content}
    answers = [
        client.chat.completions.create(model="small", messages=[*asked, answer, again]).choices
        for answer in (plain, first, first.model_dump())
    ]
    assert answers[0] == answers[1] == answers[2]
    # a model may have answered nothing
    assert client.chat.completions.create(model="small", messages=[*asked, plain | {"content": ""}, again]).choices


def test_a_stream_is_ascii(llava: Llava, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some clients break lines wherever Unicode does, which would break an event in two."""
    said = "Где\u2028чашка\x85?"
    monkeypatch.setattr("lorgnette.serving.answering.text_of", lambda _, ids: said if len(ids) > 2 else "")
    asked = {"messages": [{"role": "user", "content": "?"}], "stream": True, "max_tokens": 4}
    with httpx.stream("POST", f"{serve(llava)}/v1/chat/completions", json=asked, timeout=60) as stream:
        events = [line.removeprefix("data: ") for line in stream.iter_lines() if line]
    assert events.pop() == "[DONE]"
    assert "".join(json.loads(event)["choices"][0]["delta"].get("content", "") for event in events) == said
