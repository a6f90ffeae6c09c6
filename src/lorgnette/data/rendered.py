"""What a sample becomes: ids and labels, before and after its images have their full number of tokens."""

from __future__ import annotations

from dataclasses import dataclass

IGNORE_INDEX = -100


@dataclass(frozen=True, slots=True)
class Rendered:
    """Token ids and labels of a sample.

    Attributes:
        id: the sample's id.
        images: paths of its images, in the order of their tokens.
        input_ids: (T) token ids; every image is its full number of image tokens.
        labels: (T) the same ids where the model is trained to say them, -100 elsewhere. Not shifted.
        shortened: how many text tokens `max_text_tokens` took away.
    """

    id: str
    images: tuple[str, ...]
    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    shortened: int = 0

    @property
    def supervised(self) -> int:
        """Return how many tokens carry loss."""
        return sum(label != IGNORE_INDEX for label in self.labels)


def soft_prompt_ids(length: int) -> tuple[int, ...]:
    """Return the ids that stand for a soft prompt: -1, -2, ... No token has a negative id."""
    return tuple(range(-1, -length - 1, -1))


@dataclass(frozen=True, slots=True)
class Encoded:
    """What `Rendered` is made of: the same, but every image is one token yet.

    Attributes:
        input_ids, labels, shortened: as in `Rendered`.
    """

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    shortened: int = 0


@dataclass(frozen=True, slots=True)
class Expansion:
    """What turns `Encoded` into `Rendered`.

    Attributes:
        image_token_id: the id that stands for one image token.
        image_tokens: how many image tokens an image is.
        soft_prompt: ids that stand for a soft prompt; they come first in every sample and are no text tokens.
    """

    image_token_id: int
    image_tokens: int
    soft_prompt: tuple[int, ...] = ()

    def rendered(self, encoded: Encoded, sample_id: str, images: tuple[str, ...]) -> Rendered:
        """Put the soft prompt in front and give every image its full number of tokens."""
        ids = list(self.soft_prompt)
        labels = [IGNORE_INDEX] * len(ids)
        for token, label in zip(encoded.input_ids, encoded.labels, strict=True):
            times = self.image_tokens if token == self.image_token_id else 1
            ids.extend([token] * times)
            labels.extend([label] * times)
        return Rendered(sample_id, images, tuple(ids), tuple(labels), encoded.shortened)
