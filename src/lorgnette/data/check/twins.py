"""Rows that stand elsewhere as well: duplicates in the training data, and leaks from what it is measured on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from lorgnette.data.identity import question_keys, row_key, text_keys
from lorgnette.data.sample import Sample

HeldOutPurpose = Literal["validation", "test"]


@dataclass(frozen=True, slots=True)
class Twin:
    """That a row stands elsewhere. `whole`: the row itself, not only its image or its words."""

    kind: str
    reason: str
    whole: bool


@dataclass
class HeldOut:
    """What a model must not learn from: key -> where it stands."""

    questions: dict[bytes, str] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)
    texts: dict[bytes, str] = field(default_factory=dict)

    def add(self, sample: Sample, images: Sequence[str], place: str) -> None:
        """Hold a sample out; `images` are the hashes of its images."""
        for key in question_keys(sample, images):
            self.questions.setdefault(key, place)
        for key in text_keys(sample):
            self.texts.setdefault(key, place)
        for image in images:
            self.images.setdefault(image, place)

    def leaks(self, sample: Sample, images: Sequence[str], purpose: HeldOutPurpose) -> Iterator[Twin]:
        """Yield in which ways a training sample is held out: its question, its image, its words."""
        asked = [self.questions[key] for key in question_keys(sample, images) if key in self.questions]
        shown = [self.images[image] for image in images if image in self.images]
        said = [self.texts[key] for key in text_keys(sample) if key in self.texts]
        if asked:
            what = "the same question about the same image as" if images else "the same question and answer as"
            yield Twin(f"row also in {purpose}", f"{what} {asked[0]}", whole=True)
        elif shown:
            yield Twin(f"image also in {purpose}", f"the same image as {shown[0]}", whole=False)
        if said and not asked:
            yield Twin(f"text also in {purpose}", f"the same long question and answer as {said[0]}", whole=False)


@dataclass
class Seen:
    """The rows before this one: key -> where it stands."""

    rows: dict[bytes, str] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)

    def add(self, sample: Sample, images: Sequence[str], place: str) -> Iterator[Twin]:
        """Remember a sample; yield in which ways it repeats an earlier one."""
        first = self.rows.setdefault(row_key(sample, images), place)
        if first != place:
            yield Twin("duplicate row", f"the same images and words as {first}", whole=True)
        for path, image in zip(sample.images, images, strict=True):
            if self.images.setdefault(image, path) != path:
                yield Twin("duplicate image", f"{path} holds the same bytes as {self.images[image]}", whole=False)
                return
