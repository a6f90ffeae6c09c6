"""Documents to answers: what a model is shown, and how its answer is taken.

A prompt is data: a text with fields that every document fills. Either an answer is generated, or the letters of a
multiple choice are scored at the place where it would begin.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lorgnette.data.rendered import Rendered
from lorgnette.data.sample import IMAGE_TAG, Turn
from lorgnette.errors import DataError, nearest
from lorgnette.evaluation.tasks.task import Document, is_unicode
from lorgnette.inference.answers import answer_batch, text_of
from lorgnette.inference.choices import choose, option_tokens
from lorgnette.models.learner import Learner
from lorgnette.models.llava import Llava

FIELD = re.compile(r"\{([A-Za-z_][A-Za-z_0-9]*)\}(\s*)")


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

    Raises:
        DataError: if letters are to be scored by a model that cannot.
    """

    def __init__(self, learner: Learner, prompt: str, max_new_tokens: int | None) -> None:
        self.learner = learner
        self.prompt = prompt
        self.max_new_tokens = max_new_tokens
        self.renderer = learner.renderer()
        if max_new_tokens is None and not isinstance(learner, Llava):
            raise DataError(
                f"{learner.source}: likelihoods of letters are asked of models with images only. Next: --option "
                "protocol=generate"
            )

    def question(self, document: Document) -> Question:
        """Render a document; its images go before the text.

        Raises:
            DataError: if the prompt names what the document does not have, the template refuses it, or letters are to
                be scored where there are none.
        """
        text = fill(self.prompt, document)
        if self.max_new_tokens is None and not document.choices:
            raise DataError(f"document {document.id}: has no choices whose likelihood could be compared.")
        turn = Turn("user", f"{IMAGE_TAG}\n" * len(document.images) + text)
        return Question(document, text, turn, self.renderer.render_prompt(document.id, document.images, (turn,)))

    def answers(self, questions: Sequence[Question]) -> list[dict[str, Any]]:
        """Answer a batch: `answer`, `raw` and `stopped_by` of each question, in the order given.

        Raises:
            DataError: if an image cannot be read.
        """
        return self._generated(questions) if self.max_new_tokens is not None else self._chosen(questions)

    def _generated(self, questions: Sequence[Question]) -> list[dict[str, Any]]:
        assert self.max_new_tokens is not None
        prompts = [question.prompt for question in questions]
        return [
            {
                "answer": text_of(self.learner, made.ids),
                "raw": self.learner.tokenizer.decode(made.ids, skip_special_tokens=False),
                "stopped_by": made.stopped_by,
            }
            for made in answer_batch(self.learner, prompts, self.max_new_tokens)
        ]

    def _chosen(self, questions: Sequence[Question]) -> list[dict[str, Any]]:
        assert isinstance(self.learner, Llava)
        renderer = self.learner.renderer()
        options = [option_tokens(renderer, (q.turn,), list(q.document.choices)) for q in questions]
        prompts = [question.prompt for question in questions]
        chosen = choose(self.learner, prompts, self.learner.collator().pixels, options)
        return [
            {
                "answer": made.option,
                "raw": ", ".join(f"{letter} {value:.4f}" for letter, value in made.log_probabilities.items()),
                "stopped_by": "end",
            }
            for made in chosen
        ]


def fill(prompt: str, document: Document) -> str:
    """Put a document's texts into a prompt.

    An empty field takes the white space after it along, so that `{hint} {question}` is the question alone where there
    is no hint. Braces around anything but a name are text, and so is whatever a document brings.

    Raises:
        DataError: if the prompt names a field that the document does not have, cannot be tokenised, or an image tag
            comes from a text.
    """
    fields = {"question": document.question, **document.fields}

    def text_of(found: re.Match[str]) -> str:
        name, space = found.groups()
        if name not in fields:
            raise DataError(
                f"document {document.id}: the prompt names {{{name}}}. Allowed: "
                f"{', '.join(f'{{{field}}}' for field in fields)}.{nearest(name, fields)}"
            )
        return fields[name] + space if fields[name] else ""

    text = FIELD.sub(text_of, prompt)
    if IMAGE_TAG in text:
        raise DataError(
            f"document {document.id}: the prompt or question holds {IMAGE_TAG}, which stands for an image; images go "
            "before the text by themselves. Next: take it out."
        )
    if not is_unicode(text):
        raise DataError(f"document {document.id}: the prompt holds half of a surrogate pair, which is no character.")
    return text
