"""Requests to prompts: rendered as in training and measuring, within bounds, images decoded safely."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from lorgnette.data.rendered import Rendered
from lorgnette.errors import DataError, RowError
from lorgnette.images.opening import MAX_PIXELS, opened, pixels_of, upright_rgb
from lorgnette.inference.decoding import LEAST_TEMPERATURE, Decoding
from lorgnette.models.learner import Learner
from lorgnette.models.llava import Llava
from lorgnette.serving.answering import Asked
from lorgnette.serving.messages import ChatRequest, conversation, image_bytes

UNBOUNDED = 8192
"""Tokens that a model reads which sets no bound itself: attention grows with their square."""


class Prompter:
    """Make prompts of requests for one model.

    Args:
        max_new_tokens: most tokens of an answer where a request asks for no number.

    Attributes:
        context: most tokens of a prompt and its answer together; of an encoder-decoder, of each of the two.
    """

    def __init__(self, learner: Learner, max_new_tokens: int) -> None:
        self.learner = learner
        self.max_new_tokens = max_new_tokens
        self.context = context_of(learner)
        self._renderer = learner.renderer()

    def asked(self, request: ChatRequest) -> Asked:
        """Make a prompt.

        Raises:
            DataError: if the conversation, an image or a number is not one that the model can answer.
        """
        turns, urls = conversation(request.messages)
        images = [image_bytes(url, f"image {number}") for number, url in enumerate(urls)]
        names = tuple(hashlib.sha256(content).hexdigest() for content in images)
        prompt = self._renderer.render_prompt("the conversation", names, turns)
        decoding = self._decoding(request, prompt)
        pixels = self._decoded(dict(zip(names, images, strict=True)))
        return Asked(prompt, pixels, decoding, request.stops)

    def _decoding(self, request: ChatRequest, prompt: Rendered) -> Decoding:
        tokens = len(prompt.input_ids)
        together = isinstance(self.learner, Llava)
        left = self.context - tokens if together else self.context
        if left < 1 or tokens > self.context:
            with_answer = " with the answer" if together else ""
            raise DataError(
                f"messages: {tokens:,} tokens, images included. Allowed: {self.context:,}{with_answer}. Next: leave "
                "out what was said first, or ask with fewer images."
            )
        wanted = request.max_completion_tokens or request.max_tokens
        if wanted is not None and wanted > left:
            raise DataError(f"max_tokens: {wanted:,}. Allowed: {left:,}, of {self.context:,} with the prompt.")
        temperature = request.temperature or 0.0
        return Decoding(
            wanted or min(self.max_new_tokens, left),
            temperature if temperature >= LEAST_TEMPERATURE else 0.0,
            1.0 if request.top_p is None else request.top_p,
            request.seed,
        )

    def _decoded(self, images: dict[str, bytes]) -> dict[str, np.ndarray]:
        if not isinstance(self.learner, Llava):
            return {}
        left = MAX_PIXELS
        pixels = {}
        for number, (name, content) in enumerate(images.items()):
            try:
                with opened(where := f"image {number}", content, left) as image:
                    left -= image.width * image.height
                    pixels[name] = pixels_of(self.learner.processor.image_processor, where, upright_rgb(image))
            except RowError as error:
                raise DataError(f"{error.where}: {error.reason.partition(' Next:')[0]}") from error
        return pixels


def context_of(learner: Learner) -> int:
    """Return the most tokens that a model reads together: what its configuration says, else `UNBOUNDED`.

    T5 has relative positions; its `n_positions` says how it was trained, not what it can read.
    """
    settings: dict[str, Any] = learner.core.config.get_text_config().to_dict()
    bounds = [settings.get(name) for name in ("max_position_embeddings", "sliding_window")]
    return min((bound for bound in bounds if isinstance(bound, int)), default=UNBOUNDED)
