"""The turns of a conversation in a data file: whose keys, whose roles, which content parts; and its image tags."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from lorgnette.data.readers.cells import holds_half_pair
from lorgnette.data.readers.image_lookup import FoundImage
from lorgnette.data.sample import IMAGE_TAG, Origin, Role, Sample, Turn
from lorgnette.errors import RowError, nearest

ROLES: Mapping[str, Role] = {
    **dict.fromkeys(("human", "user", "question"), "user"),
    **dict.fromkeys(("gpt", "assistant", "bot", "model", "chatgpt", "answer"), "assistant"),
    "system": "system",
}
TOOL_ROLES = frozenset({"tool", "tool_call", "tool_response", "function", "function_call", "observation", "ipython"})
ROLE_KEYS = ("from", "role")
TEXT_KEYS = ("value", "content")
ESCAPED_TAG = "< image >"

LiteralTags = Literal["escape", "remove", "refuse"]
RepeatedTags = Literal["remove", "refuse"]


class ImagePart(NamedTuple):
    """An image among the content parts of a turn: its source as the part gives it, None for the next of the row."""

    source: Any


def key_of(turn: Mapping[str, Any], given: str | None, known: Sequence[str]) -> str:
    """Return which key of a turn holds its role or text: the given one, else the first known one that it has."""
    return given or next((key for key in known if key in turn), known[0])


def role_of(value: Any, more: Mapping[str, Role], where: str) -> Role:
    """Return the role that a name stands for; `more` are the user's own names.

    Raises:
        RowError: if it stands for none.
    """
    if isinstance(value, str):
        role = more.get(value) or ROLES.get(value.strip().lower())
        if role is not None:
            return role
        if value.lower() in TOOL_ROLES:
            reason = f"a turn of the role '{value}', which is neither a question nor an answer."
            next_step = f"Next: leave the row out, or say what it is: options: {{roles: {{{value}: user}}}}."
            raise RowError("tool or function role", where, f"{reason} {next_step}")
    known = {*ROLES, *more}
    near = nearest(value.lower(), known) if isinstance(value, str) else ""
    allowed = ", ".join(sorted(known))
    reason = f"unknown role. Allowed: {allowed}. Got: {value!r:.80}.{near}"
    if isinstance(value, str):  # the remedy first: a table of many kinds of bad rows cuts reasons
        roles = shlex.quote(f"roles={{{_as_key(value[:80])}: assistant}}")
        reason = f"unknown role; say what it is with --option {roles} (`options:` in a recipe). {reason[14:]}"
    raise RowError("unknown role", where, reason)


def _as_key(text: str) -> str:
    """Return a text as YAML reads it before a colon."""
    return text if re.fullmatch(r"[^\W\d]\w*", text) else json.dumps(text, ensure_ascii=False)


def content_of(content: Any, where: str) -> tuple[str, list[ImagePart]]:
    """Return the text of a turn with a tag for every image part, and those parts in their order.

    Parts stand on lines of their own, as LLaVA writes its tags.

    Raises:
        RowError: if the content is neither text nor parts of text and images.
    """
    if isinstance(content, str):
        return checked_text(content, where), []
    if not isinstance(content, list):
        reason = f"the text of a turn is a {type(content).__name__}. Allowed: a string, or a list of content parts."
        raise RowError("content of a turn", where, reason)
    texts: list[str] = []
    images: list[ImagePart] = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(checked_text(part["text"], where))
        elif kind == "image":
            images.append(
                ImagePart(next((part[key] for key in ("image", "url", "path", "base64") if part.get(key)), None))
            )
            texts.append(IMAGE_TAG)
        elif kind == "image_url":
            address = part.get("image_url")
            images.append(ImagePart(address.get("url") if isinstance(address, Mapping) else address))
            texts.append(IMAGE_TAG)
        else:
            allowed = "Allowed: text, image, image_url."
            raise RowError("kind of content part", where, f"a content part of type {kind!r:.40}. {allowed}")
    return "\n".join(texts), images


def checked_text(text: str, where: str) -> str:
    """Return a text unless it cannot be tokenised.

    Raises:
        RowError: if it holds half of a surrogate pair.
    """
    if holds_half_pair(text):
        reason = "the text of a turn holds half of a surrogate pair, which is no character."
        raise RowError("broken text", where, reason)
    return text


def id_of(value: Any, origin: Origin) -> str:
    """Return the id of a row as text, its number where it has none.

    Raises:
        RowError: if it is neither text nor number.
    """
    if value is None:
        return str(origin.row)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RowError("id", str(origin), f"the id is {value!r:.80}. Allowed: text or a number.")
    text = str(value)
    if holds_half_pair(text):
        raise RowError("id", str(origin), "the id holds half of a surrogate pair, which is no character.")
    return text


def build_sample(
    name: str,
    images: Sequence[FoundImage],
    turns: list[Turn],
    origin: Origin,
    single: bool,
    repeated: RepeatedTags,
    literal: LiteralTags,
) -> Sample:
    """Put turns and images together, mended where only one way is meant, and say what was mended.

    Args:
        single, repeated, literal: as `mend_tags`.
    """
    turns, order = mend_order(turns)
    turns, tags = mend_tags(turns, len(images), single=single, repeated=repeated, literal=literal)
    lookups = [image.mended for image in images if image.mended is not None]
    mended = tuple(dict.fromkeys([*order, *tags, *lookups]))
    return Sample(name, tuple(image.path for image in images), tuple(turns), origin, mended)


def mend_order(turns: list[Turn]) -> tuple[list[Turn], list[str]]:
    """Drop answers to no question at the beginning, and a last question that nobody answers.

    LLaVA does the first, and the second carries no loss. Two turns of one role in a row are left for the check of the
    sample to refuse: nobody can say whether a turn is missing between them.
    """
    system, spoken = (turns[:1], turns[1:]) if turns and turns[0].role == "system" else ([], turns)
    mended = []
    first = next((n for n, turn in enumerate(spoken) if turn.role != "assistant"), len(spoken))
    if first:
        mended.append("leading answer dropped")
    spoken = spoken[first:]
    *before, last = spoken or [Turn("system", "")]
    if before and before[-1].role == "assistant" and last.role == "user" and IMAGE_TAG not in last.text:
        spoken = before
        mended.append("last question without an answer dropped")
    return system + spoken, mended


def mend_tags(
    turns: list[Turn], images: int, *, single: bool, repeated: RepeatedTags, literal: LiteralTags
) -> tuple[list[Turn], list[str]]:
    """Bring tags and images together where only one way is meant; what stays apart, the check of the sample refuses.

    Args:
        turns: the conversation.
        images: how many it has.
        single: the format gives one image a row (`image` is a path), so that further tags can only repeat it.
        repeated: what happens to such tags.
        literal: what happens to a tag that is plainly text: in an answer or system turn where the questions ask for
            all images, or, in a row without images, in the middle of a question. At the start or end of a question a
            tag asks for an image that is missing.
    """
    mended = []
    asked = sum(turn.text.count(IMAGE_TAG) for turn in turns if turn.role == "user")
    if literal != "refuse" and (not images or asked >= images):
        written = [_without_literal(turn, images, literal) for turn in turns]
        if written != turns:
            mended.append(f"literal {IMAGE_TAG} in the text {'escaped' if literal == 'escape' else 'removed'}")
            turns = written
    tags = sum(turn.text.count(IMAGE_TAG) for turn in turns)
    first = next((number for number, turn in enumerate(turns) if turn.role == "user"), None)
    if images and tags == 0 and first is not None:
        turns = [*turns[:first], Turn("user", f"{IMAGE_TAG}\n" * images + turns[first].text), *turns[first + 1 :]]
        mended.append("image tag inserted")
    elif single and images == 1 and tags > 1 and repeated == "remove":
        turns = _first_tag_only(turns)
        mended.append("repeated image tag removed")
    return turns, mended


def _without_literal(turn: Turn, images: int, literal: LiteralTags) -> Turn:
    if IMAGE_TAG not in turn.text:
        return turn
    text = turn.text.strip()
    asks = turn.role == "user" and (images or text.startswith(IMAGE_TAG) or text.endswith(IMAGE_TAG))
    return turn if asks else Turn(turn.role, turn.text.replace(IMAGE_TAG, ESCAPED_TAG if literal == "escape" else ""))


def _first_tag_only(turns: list[Turn]) -> list[Turn]:
    kept, found = [], False
    for turn in turns:
        text = turn.text
        if found or text.count(IMAGE_TAG) > 1:
            head, tag, rest = text.partition(IMAGE_TAG) if not found else ("", "", text)
            # a tag on a line of its own goes with its line
            text = head + tag + rest.replace(f"{IMAGE_TAG}\n", "").replace(f"\n{IMAGE_TAG}", "").replace(IMAGE_TAG, "")
        found = found or IMAGE_TAG in turn.text
        kept.append(Turn(turn.role, text))
    return kept
