"""Turns to token ids and labels, built together from one tokenisation.

Labels come from the character offsets of the supervised spans (each answer with its end of turn). A span that does
not fall on token boundaries is an error: nothing is ever masked by counting tokens of separately encoded pieces.
Knows the tokenizer and the chat template; knows nothing about models, rows or image pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from functools import lru_cache
from typing import Any, Literal

from lorgnette.data.rendered import IGNORE_INDEX, Encoded, Expansion, Rendered
from lorgnette.data.sample import IMAGE_TAG, Sample, Turn, check_sample
from lorgnette.data.templates import ChatTemplate
from lorgnette.errors import DataError, RowError

TooLong = Literal["drop_turns", "cut_end", "drop_sample"]
THE_SAMPLE = "the sample"  # `Renderer.encode` puts file, row and id in its place


class Renderer:
    """Render samples for one tokenizer, chat template and number of tokens an image.

    Args:
        template: the chat template, bound to its tokenizer.
        image_token_id: the id that stands for one image token.
        image_tokens: how many image tokens an image is.
        max_text_tokens: most tokens of a sample that are not image tokens; None for no limit.
        too_long: what happens to a longer sample. `drop_turns` drops question-answer pairs from the end and refuses
            the sample if the first pair alone is too long; `cut_end` cuts text tokens from the end (the last answer
            then has no end of turn); `drop_sample` refuses it. Image tokens are never cut.
        soft_prompt: ids that stand for a soft prompt; they come first in every sample and are no text tokens.
    """

    def __init__(
        self,
        template: ChatTemplate,
        image_token_id: int,
        image_tokens: int,
        max_text_tokens: int | None = None,
        too_long: TooLong = "drop_turns",
        soft_prompt: tuple[int, ...] = (),
    ) -> None:
        self.template = template
        self.image_token_id = image_token_id
        self.max_text_tokens = max_text_tokens
        self.too_long = too_long
        self.expansion = Expansion(image_token_id, image_tokens, soft_prompt)
        # Question-answering data repeats the same few conversations over many images.
        self._encode = lru_cache(maxsize=10_000)(self._encode_uncached)

    @property
    def tokenizer(self) -> Any:
        """Return the template's tokenizer."""
        return self.template.tokenizer

    @property
    def end_of_turn(self) -> str:
        """Return what ends an answer."""
        return self.template.end_of_turn

    def render(self, sample: Sample) -> Rendered:
        """Render a whole conversation with labels.

        Raises:
            RowError: if the sample is malformed, the template refuses it, its spans do not fall on token boundaries,
                nothing in it is supervised, or it is too long and the policy refuses it.
        """
        return self.expansion.rendered(self.encode(sample), sample.id, sample.images)

    def encode(self, sample: Sample) -> Encoded:
        """Render a whole conversation with labels, every image as one token; this depends on its turns alone.

        Raises:
            RowError: as `render`.
        """
        check_sample(sample)
        try:
            return Encoded(*self._shorten(sample.turns))
        except RowError as error:
            raise RowError(error.kind, sample.where, error.reason) from error
        except DataError as error:
            raise RowError("template refuses", sample.where, str(error)) from error

    def render_prompt(self, sample_id: str, images: tuple[str, ...], turns: Sequence[Turn]) -> Rendered:
        """Render turns up to where the model shall answer; no label is set.

        Raises:
            DataError: if tags and images differ in number or the template refuses the turns.
        """
        ids = self._encode_prompt(tuple(turns))
        if ids.count(self.image_token_id) != len(images):
            raise DataError(
                f"{sample_id}: the prompt has {ids.count(self.image_token_id)} {IMAGE_TAG} tags but "
                f"{len(images)} images."
            )
        return self.expansion.rendered(Encoded(ids, (IGNORE_INDEX,) * len(ids)), sample_id, images)

    def decides(self) -> list[Any]:
        """Return all that decides what becomes of a conversation, apart from its turns and our code."""
        tokenizer = self.template.tokenizer
        return [
            self.template.name,
            self.template.jinja,
            self.template.end_of_turn,
            tokenizer.backend_tokenizer.to_str(),
            tokenizer.special_tokens_map,
            self.image_token_id,
            self.max_text_tokens,
            self.too_long,
            # some templates tell the model which day it is
            str(date.today()) if "strftime_now" in self.template.jinja else None,
        ]

    def first_answer_token(self, turns: Sequence[Turn], answer: str) -> int:
        """Return the token that an answer to these turns begins with, in the form that it has right after the prompt.

        Raises:
            DataError: if the answer does not begin on a token boundary, or the prompt reads otherwise before it.
        """
        ids, labels = self._encode_uncached((*turns, Turn("assistant", answer)))
        prompt = self._encode_prompt(tuple(turns))
        if ids[: len(prompt)] != prompt or labels[len(prompt)] == IGNORE_INDEX:
            raise DataError(
                f"the prompt has other tokens when it is followed by {answer!r} in chat template "
                f"'{self.template.name}', so the answer's first token is not defined."
            )
        return ids[len(prompt)]

    def _encode_prompt(self, turns: tuple[Turn, ...]) -> tuple[int, ...]:
        text = self._with_bos(self.template.render(turns, add_generation_prompt=True))
        return tuple(self.template.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _shorten(self, turns: tuple[Turn, ...]) -> tuple[tuple[int, ...], tuple[int, ...], int]:
        ids, labels = self._encode(turns)
        limit = self.max_text_tokens
        length = _text_length(ids, self.image_token_id)
        if limit is None or length <= limit:
            return ids, labels, 0
        if self.too_long == "cut_end":
            ids, labels = _cut_end(ids, labels, length - limit, self.image_token_id)
            if not any(label != IGNORE_INDEX for label in labels):
                raise RowError("no supervised token", THE_SAMPLE, f"no answer is left within max_text_tokens {limit}.")
            return ids, labels, length - limit
        if self.too_long == "drop_turns":
            for end in range(len(turns) - 2, 1, -2):
                if any(IMAGE_TAG in turn.text for turn in turns[end:]):
                    break  # an image is never cut
                ids, labels = self._encode(turns[:end])
                if (shorter := _text_length(ids, self.image_token_id)) <= limit:
                    return ids, labels, length - shorter
        raise RowError(
            "too long",
            THE_SAMPLE,
            f"{length} text tokens. Allowed: max_text_tokens {limit}. Next: raise it, or choose too_long: cut_end.",
        )

    def _encode_uncached(self, turns: tuple[Turn, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        # white space around an answer is no part of it: most templates trim it, and a model should not learn to pad
        turns = tuple(Turn(t.role, t.text.strip()) if t.role == "assistant" else t for t in turns)
        text, spans = self._supervised_spans(turns)
        encoded = self.template.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids = tuple(encoded["input_ids"])
        labels = _labels(ids, encoded["offset_mapping"], spans, text)
        if self.image_token_id in labels:
            raise RowError("image tag in an answer", THE_SAMPLE, f"an answer holds {IMAGE_TAG}.")
        if labels[0] != IGNORE_INDEX:
            raise RowError(
                "nothing before the answer",
                THE_SAMPLE,
                f"nothing stands before the answer in chat template '{self.template.name}'.",
            )
        return ids, labels

    def _supervised_spans(self, turns: tuple[Turn, ...]) -> tuple[str, list[tuple[int, int]]]:
        """Locate every answer with its end of turn in the rendered text: (text, [(start, stop), ...])."""
        text = self._with_bos(self.template.render(turns))
        spans = []
        for number, turn in enumerate(turns):
            if turn.role != "assistant":
                continue
            before = self._with_bos(self.template.render(turns[:number], add_generation_prompt=True))
            start = len(before)
            answer = text.find(turn.text, start)
            stop = text.find(self.template.end_of_turn, answer + len(turn.text))
            exact = (
                text.startswith(before)
                and answer >= 0
                and stop >= 0
                and not text[start:answer].strip()
                and not text[answer + len(turn.text) : stop].strip()
            )
            if not exact:
                raise RowError(
                    "answer not located",
                    THE_SAMPLE,
                    f"the answer of turn {number} cannot be located in the text of chat template "
                    f"'{self.template.name}': {text[start : start + 80]!r}.",
                )
            spans.append((start, stop + len(self.template.end_of_turn)))
        return text, spans

    def _with_bos(self, text: str) -> str:
        """Put the beginning-of-sequence token in front where the tokenizer would and the template did not."""
        tokenizer = self.template.tokenizer
        bos = tokenizer.bos_token
        if bos is None or text.startswith(bos):
            return text
        return bos + text if tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id] else text


def _labels(
    ids: tuple[int, ...], offsets: list[tuple[int, int]], spans: list[tuple[int, int]], text: str
) -> tuple[int, ...]:
    labels = [IGNORE_INDEX] * len(ids)
    position = 0
    for start, stop in spans:
        covered = []
        while position < len(ids) and offsets[position][1] <= start:
            position += 1
        while position < len(ids) and offsets[position][0] < stop:
            covered.append(position)
            position += 1
        if not covered or offsets[covered[0]][0] != start or offsets[covered[-1]][1] != stop:
            raise RowError(
                "answer off token boundaries",
                THE_SAMPLE,
                f"the answer {text[start:stop]!r} does not begin and end on token boundaries; its tokens cover "
                f"{text[offsets[covered[0]][0] : offsets[covered[-1]][1]] if covered else ''!r}. Next: choose a "
                "chat template whose answers begin after a special token, a space or a line break.",
            )
        for index in covered:
            labels[index] = ids[index]
    return tuple(labels)


def _text_length(ids: tuple[int, ...], image_token_id: int) -> int:
    return len(ids) - ids.count(image_token_id)


def _cut_end(
    ids: tuple[int, ...], labels: tuple[int, ...], count: int, image_token_id: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Take `count` text tokens away from the end; image tokens stay."""
    kept = list(range(len(ids)))
    for index in reversed(range(len(ids))):
        if count == 0:
            break
        if ids[index] != image_token_id:
            kept.remove(index)
            count -= 1
    return tuple(ids[i] for i in kept), tuple(labels[i] for i in kept)
