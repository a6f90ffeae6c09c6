"""LLaVA, ShareGPT, XTuner, OpenAI and Hugging Face conversations: a JSON list, JSON lines, or a table; gzipped or not.

Which keys a row uses is seen from the row itself; options override it, and `variant_of` says what was seen.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from lorgnette.data.readers.image_cells import IMAGE_KEYS, cell_of, images_of, is_nothing, kind_of_cell
from lorgnette.data.readers.image_lookup import CocoFolder, FoundImage, ImageFolder
from lorgnette.data.readers.source import ReaderOptions, SourceSpec, folder_of_images, read_options, source_rows
from lorgnette.data.readers.tables import Row, records_of
from lorgnette.data.readers.turns import (
    ROLE_KEYS,
    TEXT_KEYS,
    ImagePart,
    LiteralTags,
    RepeatedTags,
    build_sample,
    content_of,
    id_of,
    key_of,
    role_of,
)
from lorgnette.data.sample import IMAGE_TAG, Origin, Role, Sample, Turn
from lorgnette.errors import DataError, LeftOut, RowError

CONVERSATION_KEYS = ("conversations", "conversation", "messages")
INSTRUCT_KEYS = frozenset({"instruction", "output"})


class LlavaOptions(ReaderOptions):
    """What a row means where it cannot be seen from the row, and what is put right."""

    conversations: str | None = None
    """The key of the turns; null: `conversations`, `conversation` or `messages`, whichever the row has."""
    role: str | None = None
    """The key of who speaks; null: `from` or `role`."""
    text: str | None = None
    """The key of what is said; null: `value` or `content`."""
    image: str | None = None
    """The key of the images; null: `image` or `images`."""
    roles: dict[str, Role] = Field(default={})
    """Names of roles that are not known, or are to mean something else: `{tool: user}`."""
    repeated_tags: RepeatedTags = "remove"
    """Further image tags in a row whose `image` is one path: removed, or the row is refused."""
    literal_tags: LiteralTags = "escape"
    """An image tag that is only text, as in pages from the web: written `< image >`, removed, or the row is refused."""
    leave_out: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Folders at the beginning of image paths whose rows are left out, such as `ocr_vqa`."""


class Variant(NamedTuple):
    """Which of the ways of writing a conversation a row uses."""

    turns: str
    image: str
    tag: str

    def __str__(self) -> str:
        return f"{self.turns}; {self.image}; tag {self.tag}"


def read_llava(spec: SourceSpec) -> Iterator[Sample | DataError]:
    """Yield one conversation a sample; images are looked up under `images`, or beside the file.

    Raises:
        DataError: if the source is missing, empty, truncated or no list of rows, or an option is wrong.
    """
    options = read_options(LlavaOptions, spec)
    folder = folder_of_images(spec, outside=options.outside_images)
    rows = source_rows(spec, options.config)
    yield from records_of(rows, lambda origin, row: _sample(origin, row, folder, options))


def llava_variants(spec: SourceSpec) -> Iterator[str]:
    """Yield for every row which variant it is, in words: what a check of the data counts and prints.

    Raises:
        DataError: as `read_llava`.
    """
    options = read_options(LlavaOptions, spec)
    for found in source_rows(spec, options.config):
        if not isinstance(found, RowError):
            yield str(variant_of(found[1], options))


def variant_of(row: Mapping[str, Any], options: LlavaOptions) -> Variant:
    """Say which variant a row is; it need not be a good row."""
    key = options.conversations or next((k for k in CONVERSATION_KEYS if row.get(k) is not None), None)
    spoken = row.get(key) if key is not None else None
    turns = [turn for turn in spoken if isinstance(turn, dict)] if isinstance(spoken, list) else []
    image = options.image or next((k for k in IMAGE_KEYS if not is_nothing(row.get(k))), None)
    picture = "no image" if image is None else f"{image}: {kind_of_cell(row.get(image))}"
    if not turns:
        return Variant("no turns", picture, "absent")
    role, text = key_of(turns[0], options.role, ROLE_KEYS), key_of(turns[0], options.text, TEXT_KEYS)
    has_parts = any(isinstance(turn.get(text), list) for turn in turns)
    texts = [value for turn in turns if isinstance(value := turn.get(text), str)]
    return Variant(f"{key} of {role}/{text}{', content parts' if has_parts else ''}", picture, _place_of_tag(texts))


def _place_of_tag(texts: list[str]) -> str:
    tagged = [(number, text.strip()) for number, text in enumerate(texts) if IMAGE_TAG in text]
    if not tagged:
        return "absent"
    number, text = tagged[0]
    place = "start" if text.startswith(IMAGE_TAG) else "end" if text.endswith(IMAGE_TAG) else "middle"
    several = sum(text.count(IMAGE_TAG) for _, text in tagged)
    return f"at {place}{' of a later turn' if number > 1 else ''}{', repeated' if several > 1 else ''}"


def _sample(origin: Origin, row: Row, folder: ImageFolder | CocoFolder, options: LlavaOptions) -> Sample:
    name = id_of(row.get("id"), origin)
    where = f"{origin} (id {name})"
    cell = cell_of(row, options.image, where)
    _leave_out(cell, options.leave_out, where)
    spoken = _turns_of(row, options, where)
    turns: list[Turn] = []
    parts: list[ImagePart] = []
    for turn in spoken:
        if not isinstance(turn, dict):
            reason = f"a turn is a {type(turn).__name__}. Allowed: an object with `from` and `value`."
            raise RowError("turn is no object", where, reason)
        role = role_of(turn.get(key_of(turn, options.role, ROLE_KEYS)), options.roles, where)
        text, shown = content_of(turn.get(key_of(turn, options.text, TEXT_KEYS)), where)
        turns.append(Turn(role, text))
        parts += shown
    images = _with_parts(images_of(cell, folder, where), parts, folder, where)
    single = isinstance(cell, str) and not parts
    return build_sample(name, images, turns, origin, single, options.repeated_tags, options.literal_tags)


def _turns_of(row: Mapping[str, Any], options: LlavaOptions, where: str) -> list[Any]:
    keys = CONVERSATION_KEYS if options.conversations is None else (options.conversations,)
    found = [row[key] for key in keys if row.get(key) is not None]
    if len(found) > 1 and any(each != found[0] for each in found):
        names = " and ".join(key for key in keys if row.get(key) is not None)
        reason = f"{names} differ. Next: choose one, options: {{conversations: {keys[0]}}}."
        raise RowError("two conversations", where, reason)
    if not found or not isinstance(found[0], list) or not found[0]:
        is_instruct = row.keys() >= INSTRUCT_KEYS
        step = "format: instruct" if is_instruct else "name the key of the turns, options: {conversations: KEY}"
        has = ", ".join(map(str, row))[:200] or "nothing"
        raise RowError("no conversation", where, f"no `{keys[0]}` list. The row has: {has}. Next: {step}.")
    spoken: list[Any] = found[0]
    return spoken


def _with_parts(
    of_row: list[FoundImage], parts: list[ImagePart], folder: ImageFolder | CocoFolder, where: str
) -> list[FoundImage]:
    """Return the images in the order of their parts: a part without a source stands for the next image of the row."""
    if not parts:
        return of_row
    rest = iter(of_row)
    images: list[FoundImage] = []
    for part in parts:
        given = not is_nothing(part.source)
        own = images_of(part.source, folder, where) if given else list(itertools.islice(rest, 1))
        if len(own) != 1:
            none = "an image part has no image, and the row has none left for it."
            reason = f"an image part has {len(own)} images. Allowed: one." if own else none
            raise RowError("tags and images differ", where, reason)
        images += own
    return [*images, *rest]


def _leave_out(cell: Any, folders: tuple[str, ...], where: str) -> None:
    first = cell[0] if isinstance(cell, list) and cell else cell
    name = first.get("path") if isinstance(first, dict) else first
    for folder in folders:
        if isinstance(name, str) and f"{name}/".startswith(f"{folder.rstrip('/')}/"):
            reason = f"its image is in {folder}, which `leave_out` names."
            raise LeftOut(f"left out: {folder}", where, reason)
