"""A written folder is an ordinary one: transformers' own usual lines ask it, and get our answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, pipeline

from lorgnette.data.sample import IMAGE_TAG, Turn
from lorgnette.inference.answers import answer_batch, text_of
from lorgnette.models.assembly import assemble
from lorgnette.models.loading import load_llava
from lorgnette.models.saving import save_llava


@pytest.mark.parametrize("template", [None, "vicuna_v1", "gemma"])
def test_the_usual_lines_of_transformers_give_our_answer(
    parts: Callable[[str, str], tuple[str, str]], pictures: list[str], tmp_path: Path, template: str | None
) -> None:
    save_llava(assemble(*parts("clip", "llama"), seed=3, template=template), tmp_path / "m", {"kind": "base"})
    llava = load_llava(str(tmp_path / "m"))
    prompt = llava.renderer().render_prompt("0", (pictures[0],), (Turn("user", f"{IMAGE_TAG}\nWhat is this?"),))
    expected = text_of(llava, answer_batch(llava, [prompt], 8)[0].ids)
    assert expected

    processor = AutoProcessor.from_pretrained(tmp_path / "m", backend="pil")
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "m")
    picture = {"type": "image", "image": Image.open(pictures[0])}
    messages = [{"role": "user", "content": [picture, {"type": "text", "text": "What is this?"}]}]
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    assert tuple(inputs["input_ids"][0].tolist()) == prompt.input_ids
    made = model.generate(**inputs, max_new_tokens=8)
    answer = processor.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert answer.strip() == expected

    ask = pipeline("image-text-to-text", model=model, processor=processor)
    (said,) = ask(text=messages, max_new_tokens=8, return_full_text=False)
    assert said["generated_text"].strip() == expected
