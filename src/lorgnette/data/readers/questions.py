"""What readers of questions about one image share: their options, and the sample of a question."""

from __future__ import annotations

from pydantic import field_validator

from lorgnette.data.readers.source import ReaderOptions
from lorgnette.data.sample import IMAGE_TAG, Origin, Sample, Turn

QUESTION = "{question}"


class QuestionOptions(ReaderOptions):
    """How a question is asked."""

    prompt: str = QUESTION
    """The words around a question, `{question}` in its place; those of the benchmark that will measure, best."""

    @field_validator("prompt")
    @classmethod
    def _has_a_place(cls, prompt: str) -> str:
        if prompt.count(QUESTION) != 1 or IMAGE_TAG in prompt:
            raise ValueError(f"must hold {QUESTION} once, and no {IMAGE_TAG}")
        return prompt


def question_sample(
    name: str, image: str, question: str, answer: str, origin: Origin, mended: tuple[str, ...], prompt: str
) -> Sample:
    """Return the conversation of one question and its answer, the image before the question."""
    asked = prompt.replace(QUESTION, question)
    turns = (Turn("user", f"{IMAGE_TAG}\n{asked}"), Turn("assistant", answer))
    return Sample(name, (image,), turns, origin, mended)
