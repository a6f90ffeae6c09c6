"""Documents to answers: what a model is shown, and how its answer is taken.

Either an answer is generated, or the letters of a multiple choice are scored at the place where it would begin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lorgnette.data.images import read_pixels
from lorgnette.data.rendering import Rendered, Renderer
from lorgnette.data.sample import IMAGE_TAG, Turn
from lorgnette.data.templates import stop_ids
from lorgnette.errors import DataError
from lorgnette.evaluation.prompts import fill
from lorgnette.evaluation.tasks.task import Document
from lorgnette.inference.choices import choose, option_tokens
from lorgnette.inference.engine import generate
from lorgnette.models.loading import Llava


@dataclass(frozen=True, slots=True)
class Question:
    """A document as a model is asked it: the filled prompt, and what it becomes in tokens."""

    document: Document
    text: str
    turn: Turn
    prompt: Rendered


class Asker:
    """Ask one model in one way.

    Args:
        prompt: the text around a question, with fields.
        max_new_tokens: most tokens of an answer; None scores the letters of the document's choices instead.
    """

    def __init__(self, llava: Llava, prompt: str, max_new_tokens: int | None) -> None:
        self.llava = llava
        self.prompt = prompt
        self.max_new_tokens = max_new_tokens
        self.renderer = Renderer(llava.template(), llava.core.config.image_token_id, llava.image_tokens)

    def question(self, document: Document) -> Question:
        """Render a document; its images go before the text.

        Raises:
            DataError: if the prompt names what the document does not have, or the template refuses it.
        """
        text = fill(self.prompt, document)
        turn = Turn("user", f"{IMAGE_TAG}\n" * len(document.images) + text)
        return Question(document, text, turn, self.renderer.render_prompt(document.id, document.images, (turn,)))

    def answers(self, questions: Sequence[Question]) -> list[dict[str, Any]]:
        """Answer a batch: `answer`, `raw` and `stopped_by` of each question, in the order given.

        Raises:
            DataError: if an image cannot be read, or letters are to be scored where there are none.
        """
        return self._generated(questions) if self.max_new_tokens is not None else self._chosen(questions)

    def _generated(self, questions: Sequence[Question]) -> list[dict[str, Any]]:
        assert self.max_new_tokens is not None
        prompts = [question.prompt for question in questions]
        stop = stop_ids(self.llava.template())
        decode = self.llava.tokenizer.decode
        return [
            {
                "answer": decode(made.ids, skip_special_tokens=True).strip(),
                "raw": decode(made.ids, skip_special_tokens=False),
                "stopped_by": made.stopped_by,
            }
            for made in generate(self.llava, prompts, self._pixels, self.max_new_tokens, stop)
        ]

    def _chosen(self, questions: Sequence[Question]) -> list[dict[str, Any]]:
        options = [option_tokens(self.renderer, (q.turn,), _letters(q.document)) for q in questions]
        chosen = choose(self.llava, [question.prompt for question in questions], self._pixels, options)
        return [
            {
                "answer": made.option,
                "raw": ", ".join(f"{letter} {value:.4f}" for letter, value in made.log_probabilities.items()),
                "stopped_by": "end",
            }
            for made in chosen
        ]

    def _pixels(self, path: str) -> Any:
        return read_pixels(self.llava.processor.image_processor, path)


def _letters(document: Document) -> list[str]:
    if not document.choices:
        raise DataError(f"document {document.id}: has no choices whose likelihood could be compared.")
    return list(document.choices)
