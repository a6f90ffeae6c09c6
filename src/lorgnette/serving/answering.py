"""One thread owns the model and answers whoever asks, together: a prompt joins those that are being answered.

Text-to-text models answer batch after batch: who comes while one is answered waits for the next.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from lorgnette.data.rendered import Rendered
from lorgnette.errors import RunError
from lorgnette.inference.answers import choose_pairs, ending_ids, text_of
from lorgnette.inference.decoding import Decoding, Growing, next_tokens
from lorgnette.inference.engine import RowDecoder
from lorgnette.models.learner import Learner
from lorgnette.models.llava import Llava
from lorgnette.serving.text import GrowingText

log = logging.getLogger(__name__)

MOST_WAITING = 256
"""Prompts that may wait; more are turned away at once."""
MOST_JOINING = 8192
"""Tokens of the prompts that join together, unless one alone has more: those that are being answered wait for them."""


STOPPING = "The server is being stopped."


class Busy(RunError):
    """No answer now: too many prompts are waiting, or the server is being stopped."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt and how it is to be answered.

    Attributes:
        prompt: rendered without labels.
        pixels: image of the prompt -> uint8 (C, H, W).
        stop: texts that end the answer.
    """

    prompt: Rendered
    pixels: Mapping[str, np.ndarray]
    decoding: Decoding
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Said:
    """What has come of an answer since the last time.

    Attributes:
        text: its new text.
        tokens: how many tokens it has by now, the one that ended it included.
        finished: what ended it; None while it goes on.
        whole: the text of the whole answer, once it has ended.
    """

    text: str
    tokens: int
    finished: Literal["stop", "length"] | None
    whole: str = ""


Hear = Callable[[Said | Exception], object]
"""Is told, in the thread that answers or stops, what has come, or why nothing more comes; must not raise."""


class Ticket:
    """One prompt that waits or is being answered."""

    def __init__(self, asked: Asked, growing: Growing, text: GrowingText, hear: Hear) -> None:
        self.asked = asked
        self.growing = growing
        self.text = text
        self.hear = hear
        self.left = False

    def leave(self) -> None:
        """Say that nobody listens any more; the answer ends at its next token."""
        self.left = True

    def tell(self, token: int | None) -> int | None:
        """Tell what a token has brought, and return it; None if no further one is wanted."""
        if self.left:
            return None
        ids, by = self.growing.ids, self.growing.stopped_by
        new, stopped = self.text.grow(ids)
        if token is not None and not stopped:
            if new:
                self.hear(Said(new, len(ids), None))
            return token
        new += self.text.end(ids)
        finished: Literal["stop", "length"] = "length" if by == "length" and not stopped else "stop"
        self.hear(Said(new, len(ids) + (by == "end"), finished, self.text.whole))
        return None


class Answering:
    """Answer prompts in a thread of its own.

    Args:
        most: prompts that are answered at a time.
    """

    def __init__(self, learner: Learner, most: int) -> None:
        learner.model.eval()
        self._learner = learner
        self._ending = ending_ids(learner)
        self._most = most
        self._waiting: deque[Ticket] = deque()
        self._changed = threading.Condition()
        self._closed = False
        work = self._answer_rows if isinstance(learner, Llava) else self._answer_pairs
        self._thread = threading.Thread(target=work, name="answering", daemon=True)
        self._thread.start()

    def ask(self, asked: Asked, hear: Hear) -> Ticket:
        """Put a prompt into the queue.

        Raises:
            Busy: if too many wait.
        """
        text = GrowingText(lambda ids: text_of(self._learner, ids), asked.stop)
        ticket = Ticket(asked, Growing(asked.decoding, self._ending), text, hear)
        with self._changed:
            if len(self._waiting) >= MOST_WAITING:  # whoever has hung up does not count
                self._waiting = deque(waiting for waiting in self._waiting if not waiting.left)
            if self._closed or len(self._waiting) >= MOST_WAITING:
                raise Busy(STOPPING if self._closed else f"{MOST_WAITING} requests are waiting. Next: ask again later.")
            self._waiting.append(ticket)
            self._changed.notify()
        return ticket

    def stop(self) -> None:
        """Give up what waits, and what is being answered at its next token."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            waiting, self._waiting = self._waiting, deque()
        _give_up(waiting, Busy(STOPPING))

    def close(self) -> None:
        """Stop, and wait for the end of the thread."""
        self.stop()
        self._thread.join()

    def _next(self, answering: int) -> list[Ticket] | None:
        """Take those that may join so many; wait for one where nobody is being answered. None when closed."""
        with self._changed:
            while not answering and not self._waiting and not self._closed:
                self._changed.wait()
            if self._closed:
                return None
            taken: list[Ticket] = []
            tokens = 0
            while self._waiting and answering + len(taken) < self._most:
                tokens += len(self._waiting[0].asked.prompt.input_ids)
                if taken and tokens > MOST_JOINING:
                    break
                taken.append(self._waiting.popleft())
        return [ticket for ticket in taken if not ticket.left]

    def _answer_rows(self) -> None:
        assert isinstance(self._learner, Llava)
        decoder = RowDecoder(self._learner)
        answered: dict[int, Ticket] = {}
        while (joining := self._next(len(answered))) is not None:
            try:
                if joining:
                    pixels = {name: image for ticket in joining for name, image in ticket.asked.pixels.items()}
                    numbers = decoder.join([ticket.asked.prompt for ticket in joining], pixels.__getitem__)
                    answered.update(zip(numbers, joining, strict=True))
                if answered:
                    decoder.step(_told([answered[number] for number in decoder.asked], decoder.logits))
                    answered = {number: answered[number] for number in decoder.asked}
            except Exception as error:  # whatever happened to these, the next are answered
                log.exception("answers were given up")
                _give_up([*joining, *answered.values()], error)
                decoder, answered = RowDecoder(self._learner), {}
        _give_up(answered.values(), Busy(STOPPING))

    def _answer_pairs(self) -> None:
        assert not isinstance(self._learner, Llava)
        while (batch := self._next(0)) is not None:

            def choose(asked: list[int], logits: torch.Tensor, batch: Sequence[Ticket] = batch) -> list[int | None]:
                if self._closed:
                    raise Busy(STOPPING)
                return _told([batch[number] for number in asked], logits)

            try:
                if batch:
                    choose_pairs(self._learner, [ticket.asked.prompt for ticket in batch], choose)
            except Busy as stopping:
                _give_up(batch, stopping)
            except Exception as error:
                log.exception("answers were given up")
                _give_up(batch, error)


def _told(tickets: Sequence[Ticket], logits: torch.Tensor) -> list[int | None]:
    """Let each answer take its next token and tell it; None for those that go on no further."""
    tokens = next_tokens([ticket.growing for ticket in tickets], logits)
    return [ticket.tell(token) for ticket, token in zip(tickets, tokens, strict=True)]


def _give_up(tickets: Iterable[Ticket], error: Exception) -> None:
    for ticket in tickets:
        ticket.hear(error)
