"""The text of an answer while its tokens come: what is shown of it is certain and never has to be taken back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""What a tokenizer writes for a character of which only the first bytes have come."""


class GrowingText:
    """Text of growing token ids, cut before the first stop string.

    White space around an answer is no part of it, as in training and evaluation. So that all that was shown, joined,
    is the text of the whole answer, the end is held back while it may still change: white space, half a character,
    and what may be the beginning of a stop string.

    Args:
        decode: token ids to text, without white space around it.
        stop: texts that end the answer.

    Attributes:
        shown: what has been returned so far.
        whole: the text of the whole answer, once it has ended. It is what was shown, but for tokenizers that change
            what they wrote before ("it ' s" to "it's"); what such a one changes is not shown.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str] = ()) -> None:
        self._decode = decode
        self._stop = stop
        self.shown = ""
        self.whole = ""

    def grow(self, ids: Sequence[int]) -> tuple[str, bool]:
        """Return what has become certain since the last time, and whether a stop string has come."""
        text = self._decode(ids)
        end = self._first_stop(text)
        if end is not None:
            self.whole = text[:end].rstrip()
            return self._show(self.whole), True
        certain = text.rstrip(UNFINISHED)
        certain = certain[: len(certain) - max((_overlap(certain, stop) for stop in self._stop), default=0)]
        return self._show(certain.rstrip()), False

    def end(self, ids: Sequence[int]) -> str:
        """Return what is left of the text now that no further token comes."""
        text = self._decode(ids)
        self.whole = text[: self._first_stop(text)].rstrip()
        return self._show(self.whole)

    def _first_stop(self, text: str) -> int | None:
        return min((place for stop in self._stop if (place := text.find(stop)) >= 0), default=None)

    def _show(self, text: str) -> str:
        """Show a text that begins with what was shown before; a shorter one waits."""
        new = text[len(self.shown) :] if text.startswith(self.shown) else ""
        self.shown += new
        return new


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of a text may be the beginning of a stop string."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)
