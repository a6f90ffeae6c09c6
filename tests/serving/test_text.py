"""The text of a growing answer: what is shown is never taken back, and all of it is the text of the whole."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lorgnette.serving.text import GrowingText


def decode(ids: Sequence[int]) -> str:
    """A tokenizer with one token a byte."""
    return bytes(ids).decode("utf-8", "replace").strip()


def shown(text: str, stop: Sequence[str]) -> tuple[list[str], bool]:
    ids = list(text.encode())
    growing = GrowingText(decode, stop)
    pieces = []
    for length in range(1, len(ids) + 1):
        new, stopped = growing.grow(ids[:length])
        pieces.append(new)
        if stopped:
            return pieces, True
    return [*pieces, growing.end(ids)], False


def cut(text: str, stop: Sequence[str]) -> str:
    """The same from the whole text."""
    text = text.strip()
    found = [text.find(end) for end in stop if end in text]
    return text[: min(found, default=len(text))].rstrip()


LETTERS = st.text(alphabet="ab \nя猫\U0001f600", max_size=30)


@given(text=LETTERS, stop=st.lists(st.text(alphabet="ab \nя", min_size=1, max_size=4), max_size=3))
@example(text="aab", stop=["ab"])
@example(text="one  \n", stop=["\n\n"])
@example(text="abababb", stop=["ababb"])
def test_what_is_shown_is_the_text_of_the_whole(text: str, stop: list[str]) -> None:
    # each byte is a token, so the earliest stop string is the one that is complete first
    pieces, stopped = shown(text, stop)
    first = next((n for n in range(len(text) + 1) if any(end in text[:n].strip() for end in stop)), None)
    expected = cut(text if first is None else text[:first], stop)
    assert "".join(pieces) == expected
    assert stopped == (first is not None)


def test_text_comes_as_soon_as_it_is_certain() -> None:
    assert shown("a cat", [])[0] == ["a", "", " c", "a", "t", ""]
    assert shown("猫", [])[0] == ["", "", "猫", ""]
    assert shown("no. END", ["END"]) == (["n", "o", ".", "", "", "", ""], True)
    assert shown("no. ENTER", ["END"])[0] == ["n", "o", ".", "", "", "", " ENT", "", "ER", ""]


@pytest.mark.parametrize("text", ["", " ", "\n"])
def test_an_answer_without_text_shows_nothing(text: str) -> None:
    assert "".join(shown(text, ["a"])[0]) == ""


def test_a_tokenizer_that_changes_what_it_wrote_loses_nothing_of_the_whole() -> None:
    texts = ["it", "it '", "it's", "it's a", "it's a cat"]
    growing = GrowingText(lambda ids: texts[len(ids) - 1])
    for length in range(1, 6):
        assert growing.grow(range(length))[1] is False
    growing.end(range(5))
    assert growing.whole == "it's a cat"
