"""What is asked about a picture, and what counts as an answer.

A prompt is a text file: the request, a line `---`, and what is sent back if the answer cannot be used. Those of four
languages are in `prompts/`; one's own is best begun as a copy of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from lorgnette.data.making.log import Answer
from lorgnette.data.sample import IMAGE_TAG
from lorgnette.errors import InputError, nearest

LANGUAGES = ("en", "ru", "zh", "es")
NEEDED = ("{pairs}", '"pairs"', '"question"', '"answer"')
LONGEST = 4_000
"""Characters of a question or an answer; longer ones are a model that cannot stop."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request for `pairs` questions with answers; `repair` has a place for the mistake."""

    ask: str
    repair: str
    pairs: int

    def repaired(self, mistake: str) -> str:
        """Return what is sent back about an answer that cannot be used."""
        return self.repair.replace("{mistake}", mistake)


def read_prompt(name: str, pairs: int) -> Prompt:
    """Read the prompt of a language, or a file of one's own.

    Raises:
        InputError: if there is no such prompt, or it does not say how many pairs and in which form.
    """
    if name in LANGUAGES:
        text = resources.files(__package__).joinpath("prompts", f"{name}.txt").read_text(encoding="utf-8")
    else:
        try:
            text = Path(name).read_text(encoding="utf-8-sig")
        except (OSError, ValueError) as error:
            raise InputError(
                f"--prompt {name}: no such file, or no UTF-8 text ({error}). Allowed: {', '.join(LANGUAGES)}, or a "
                f"text file.{nearest(name, LANGUAGES)}"
            ) from error
    ask, line, repair = text.partition("\n---\n")
    missing = [word for word in NEEDED if word not in ask]
    if missing or (line and "{mistake}" not in repair):
        raise InputError(
            f"--prompt {name}: {', '.join(missing) or '{mistake} below the line ---'} does not occur in it. Allowed: a "
            f"text with {{pairs}} for their number, which asks for "
            '{"pairs": [{"question": "...", "answer": "..."}]}. Next: copy one of lorgnette/data/making/prompts.'
        )
    if not line:
        repair = resources.files(__package__).joinpath("prompts", "en.txt").read_text(encoding="utf-8")
        repair = repair.partition("\n---\n")[2]
    ask, repair = (part.strip().replace("{pairs}", str(pairs)) for part in (ask, repair))
    return Prompt(ask, repair, pairs)


def _usable(text: str) -> str:
    if not text:
        raise ValueError("empty text")
    if len(text) > LONGEST:
        raise ValueError(f"more than {LONGEST} characters")
    if IMAGE_TAG in text:
        raise ValueError(f"the tag {IMAGE_TAG} in the text")
    return text


class Pair(BaseModel):
    """A question and its answer."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True, strict=True)
    question: Annotated[str, AfterValidator(_usable)]
    answer: Annotated[str, AfterValidator(_usable)]


class Pairs(BaseModel):
    """What an endpoint has to answer."""

    model_config = ConfigDict(extra="forbid", strict=True)
    pairs: list[Pair]


def response_format() -> dict[str, Any]:
    """Return the schema as endpoints take it that can hold a model to one.

    The number of pairs and the lengths are not in it: not all endpoints know these words. `judge` checks them.
    """
    schema = {"name": "pairs", "strict": True, "schema": Pairs.model_json_schema()}
    return {"type": "json_schema", "json_schema": schema}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an answer is worth; `reason` says why it is not."""

    outcome: Literal["pairs", "invalid", "refused", "cut"]
    pairs: tuple[Pair, ...] = ()
    reason: str = ""


def judge(answer: Answer, number: int) -> Verdict:
    """Read an answer strictly: the schema, `number` pairs, nothing else but a fence around it."""
    if answer.refusal or answer.finish_reason == "content_filter":
        return Verdict("refused", reason=answer.refusal or "the content filter of the endpoint")
    if answer.finish_reason == "length":
        return Verdict("cut", reason=f"cut off at {answer.max_tokens:,} tokens")
    content = answer.content or ""
    fenced = re.fullmatch(r"\s*```(?:json)?\s*\n(.*)\n\s*```\s*", content, re.DOTALL)
    try:
        pairs = Pairs.model_validate_json(fenced[1] if fenced else content).pairs
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        return Verdict("invalid", reason=f"{place + ': ' if place else ''}{first['msg']}")
    if len(pairs) != number:
        return Verdict("invalid", reason=f"{len(pairs)} pairs instead of {number}")
    return Verdict("pairs", tuple(pairs))


def messages(prompt: Prompt, picture: str, answers: list[Answer]) -> list[dict[str, Any]]:
    """Build the conversation: the request with the picture (a data: URL), and what was answered and found wrong."""
    said: list[dict[str, Any]] = [
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": picture}},
                {"type": "text", "text": prompt.ask},
            ],
        }
    ]
    for answer in answers:
        said.append({"role": "assistant", "content": answer.content or ""})
        said.append({"role": "user", "content": prompt.repaired(judge(answer, prompt.pairs).reason)})
    return said
