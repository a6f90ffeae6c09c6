"""When two samples are the same, or one asks what another asks: keys to compare by.

Images are known by the hash of their bytes, wherever they lie and whatever they are called. Questions and answers are
compared without case, white space, image tags and Unicode's ways to write one letter.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import pairwise

from lorgnette.data.sample import IMAGE_TAG, Sample, Turn

TELLING_CHARACTERS = 100
"""A question with its answer that is shorter can be the same in two data sets that share nothing else ("Is there a
dog? no"); a longer one was copied."""


def row_key(sample: Sample, images: Sequence[str]) -> bytes:
    """Return a key that two rows share if they show the same images and say the same, to the letter.

    Args:
        images: what stands for each image: the hash of its bytes.
    """
    return _digest(*images, "turns", *(part for turn in sample.turns for part in (turn.role, _one_space(turn.text))))


def question_keys(sample: Sample, images: Sequence[str]) -> list[bytes]:
    """Return a key for each question about these images; without images, for each question with its answer."""
    if images:
        questions = (turn.text for turn in sample.turns if turn.role == "user")
        return [_digest(*sorted(set(images)), "question", normalised(question)) for question in questions]
    return [_digest("text", normalised(asked), normalised(said)) for asked, said in pairs(sample.turns)]


def text_keys(sample: Sample) -> list[bytes]:
    """Return a key for each question with its answer that is too long to be the same by chance."""
    texts = ((normalised(asked), normalised(said)) for asked, said in pairs(sample.turns))
    return [_digest("text", *text) for text in texts if sum(map(len, text)) >= TELLING_CHARACTERS]


def pairs(turns: Sequence[Turn]) -> Iterator[tuple[str, str]]:
    """Yield each question with the answer that follows it."""
    for asked, said in pairwise(turns):
        if (asked.role, said.role) == ("user", "assistant"):
            yield asked.text, said.text


def normalised(text: str) -> str:
    """Reduce a text to what it says."""
    return _one_space(unicodedata.normalize("NFKC", text.replace(IMAGE_TAG, " ")).casefold())


def _one_space(text: str) -> str:
    return " ".join(text.split())


def _digest(*parts: str) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        # a length before each part, so that no two lists of parts run together to the same bytes
        content = part.encode("utf-8", "surrogatepass")
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.digest()
