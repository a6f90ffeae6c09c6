"""What a request may hold: OpenAI's chat completions as far as they have a meaning here, and nothing is ignored.

A field that would change the answer and is not supported is refused, never passed over. Images come inside the request
as `data:` URLs; nothing is fetched and no file is opened for a stranger.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lorgnette.data.sample import IMAGE_TAG, Turn
from lorgnette.errors import DataError, nearest

MOST_CHARACTERS = 1_000_000
"""Longer texts are refused before they are tokenised."""
MOST_MESSAGES = 1_000
MOST_PARTS = 2_000
"""Texts and images of all messages together: each costs far more than the bytes that it comes in."""
MOST_STOPS = 32
"""Every token of the answer is compared with all of them."""
MOST_STOP_CHARACTERS = 500

WITHOUT_EFFECT = (
    *("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"),
    *("parallel_tool_calls", "stream_options"),
)
"""Fields that do not change an answer."""
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "top_k": (-1, 0),
    "repetition_penalty": (1,),
    "chat_template_kwargs": ({},),
}
"""Fields that are not supported -> the values that ask for nothing."""
NEUTRAL_OF_MESSAGE: dict[str, tuple[Any, ...]] = {
    "tool_calls": ([],),
    "annotations": ([],),
    **dict.fromkeys(("refusal", "audio", "function_call"), ()),
    "type": ("text", "message"),
}
"""The same of a message: what official clients and harnesses put into it, first of all into an answer sent back."""


class _Strict(BaseModel):
    """Fields that are all known.

    The first one that is not is told and the rest is not looked at: pydantic would tell each of a million.
    """

    model_config = ConfigDict(strict=True)
    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    without_effect: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _refuse_what_would_be_ignored(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        kept = {}
        for name, value in given.items():
            if name in cls.model_fields:
                kept[name] = value
            elif value is not None and name not in cls.without_effect and value not in cls.neutral.get(name, ()):
                raise ValueError(
                    f"{name} is not supported; leave it out."
                    if name in cls.neutral
                    else f"there is no field {str(name)[:50]!r}.{nearest(str(name), cls.model_fields)}"
                )
        return kept


class TextPart(_Strict):
    """A text within a message."""

    type: Literal["text"]
    text: str


class ImageUrl(_Strict):
    """An image as a `data:` URL. `detail` asks for a resolution; every image has that of the vision tower."""

    url: str
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(_Strict):
    """An image within a message."""

    type: Literal["image_url"]
    image_url: ImageUrl


class Message(_Strict):
    """One utterance."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[Annotated[TextPart | ImagePart, Field(discriminator="type")]], Field(fail_fast=True)]
    name: str | None = None
    neutral = NEUTRAL_OF_MESSAGE


Stop = Annotated[str, Field(max_length=MOST_STOP_CHARACTERS)]


class StreamOptions(BaseModel):
    """What a stream ends with."""

    include_usage: bool = False


class ChatRequest(_Strict):
    """A conversation whose next utterance is asked for.

    `temperature` is 0 if not given: the answer is then the one that `lorgnette evaluate` measured.
    """

    model: str | None = None
    messages: list[Message] = Field(min_length=1, max_length=MOST_MESSAGES, fail_fast=True)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = Field(None, ge=-(1 << 63), lt=1 << 63)
    stop: Stop | Annotated[list[Stop], Field(max_length=MOST_STOPS, fail_fast=True)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    neutral = NEUTRAL
    without_effect = WITHOUT_EFFECT

    @model_validator(mode="before")
    @classmethod
    def _refuse_too_many_parts(cls, given: Any) -> Any:
        messages = given.get("messages") if isinstance(given, dict) else None
        if isinstance(messages, list):
            contents = [message.get("content") for message in messages[:MOST_MESSAGES] if isinstance(message, dict)]
            parts = sum(len(content) for content in contents if isinstance(content, list))
            if parts > MOST_PARTS:
                raise ValueError(f"messages: {parts:,} texts and images. Allowed: {MOST_PARTS:,}.")
        return given

    @property
    def stops(self) -> tuple[str, ...]:
        """Return the texts that end the answer."""
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(stop for stop in stops if stop)


def conversation(messages: list[Message]) -> tuple[tuple[Turn, ...], list[str]]:
    """Turn messages to turns with image tags, and the URLs of their images in the order of the tags.

    Images of a message stand before its text, each with a line break, as models are trained and measured; a text may
    place them itself with as many `<image>` tags as it has images.

    Raises:
        DataError: if roles do not run [system] user [assistant user ...], tags and images differ, or it is too long.
    """
    turns, urls = [], []
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        parts = [message.content] if isinstance(message.content, str) else message.content
        texts = [part if isinstance(part, str) else part.text for part in parts if not isinstance(part, ImagePart)]
        images = [part.image_url.url for part in parts if isinstance(part, ImagePart)]
        text = "\n".join(texts).strip()
        if images and message.role != "user":
            raise DataError(f"{where}: only a user's message can hold images; this one is by the {message.role}.")
        tags = text.count(IMAGE_TAG)
        if tags == 0:
            text = f"{IMAGE_TAG}\n" * len(images) + text
        elif tags != len(images):
            raise DataError(
                f"{where}: the text holds {tags} {IMAGE_TAG} tags, the message {len(images)} images. Next: leave the "
                "tags out, or give one for every image."
            )
        if not text and message.role == "user":  # a model may have answered nothing
            raise DataError(f"{where}: is empty.")
        turns.append(Turn("system" if message.role == "developer" else message.role, text))
        urls += images
    characters = sum(len(turn.text) for turn in turns)
    if characters > MOST_CHARACTERS:
        raise DataError(f"messages: {characters:,} characters. Allowed: {MOST_CHARACTERS:,}.")
    roles = [turn.role for turn in turns]
    spoken = roles[1:] if roles[0] == "system" else roles
    if spoken != (["user", "assistant"] * len(spoken))[: len(spoken)] or len(spoken) % 2 == 0:
        raise DataError(
            f"messages: the roles are {', '.join(roles[:20])}. Allowed: an optional system message, then user and "
            "assistant in turn, the last one by the user."
        )
    return tuple(turns), urls


def image_bytes(url: str, where: str) -> bytes:
    """Return the encoded image that a `data:` URL holds.

    Raises:
        DataError: if the URL points elsewhere or is not base64.
    """
    kind, comma, content = url.partition(",")
    if not kind.startswith("data:image/") or not kind.endswith(";base64") or not comma:
        raise DataError(
            f"{where}: the URL begins with {url[:30]!r}. Allowed: data:image/...;base64,...; nothing is fetched from "
            "elsewhere. Next: send the image itself."
        )
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{where}: the URL is not base64 ({error}).") from error
