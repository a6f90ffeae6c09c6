"""Alpaca-like instructions: `instruction`, `input`, `output`, as JSON, JSON lines, TSV, CSV or Parquet.

`lksy/ru_instruct_gpt4` adds `full_output`, the answer with all that the model said around it; which of the two is
learned is a choice, as is how instruction and input become one question.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

from pydantic import Field

from lorgnette.data.readers.cells import is_missing
from lorgnette.data.readers.image_cells import cell_of, images_of
from lorgnette.data.readers.image_lookup import CocoFolder, ImageFolder
from lorgnette.data.readers.source import ReaderOptions, SourceSpec, folder_of_images, read_options, source_rows
from lorgnette.data.readers.tables import Row, records_of
from lorgnette.data.readers.turns import LiteralTags, build_sample, checked_text, id_of
from lorgnette.data.sample import Origin, Sample, Turn
from lorgnette.errors import DataError, LeftOut, RowError

Column = Literal["instruction", "input", "output", "full_output", "system", "history", "id", "image"]
COLUMNS: tuple[Column, ...] = get_args(Column)


class InstructOptions(ReaderOptions):
    """How a row becomes a question and an answer."""

    question: Literal["instruction", "instruction+input"] = "instruction+input"
    """What is asked: the instruction alone, or with its input where it has one."""
    joiner: str = "\n"
    """What stands between instruction and input."""
    target: Literal["output", "full_output", "longer"] = "output"
    """What is learned: `output`, `full_output`, or whichever of the two is longer (`output` where they are equal)."""
    empty_target: Literal["refuse", "leave_out"] = "refuse"
    """A row whose target is empty: a bad row, or left out and counted apart from the bad ones."""
    columns: dict[Column, str] = Field(default={}, strict=False)
    """The file's own names of columns: `{instruction: prompt, output: response}`."""
    literal_tags: LiteralTags = "escape"
    """An image tag that is only text: written `< image >`, removed, or the row is refused."""


def read_instruct(spec: SourceSpec) -> Iterator[Sample | DataError]:
    """Yield one instruction and its answer a sample, with `history` turns before it where the row has them.

    Raises:
        DataError: if the source is missing, empty, truncated or no table, or an option is wrong.
    """
    options = read_options(InstructOptions, spec)
    folder = folder_of_images(spec, outside=options.outside_images)
    rows = source_rows(spec, options.config)
    yield from records_of(rows, lambda origin, row: _sample(origin, row, folder, options))


def instruct_variants(spec: SourceSpec) -> Iterator[str]:
    """Yield for every row which of the known columns it fills, in words: what a check of the data counts and prints.

    Raises:
        DataError: as `read_instruct`.
    """
    options = read_options(InstructOptions, spec)
    for found in source_rows(spec, options.config):
        if not isinstance(found, RowError):
            _, row = found
            names = [options.columns.get(column, column) for column in COLUMNS]
            filled = [name for name in names if not is_missing(row.get(name)) and row.get(name) != []]
            yield f"{' + '.join(filled) or 'no known column'}; {options.question} -> {options.target}"


def _sample(origin: Origin, row: Row, folder: ImageFolder | CocoFolder, options: InstructOptions) -> Sample:
    named: dict[str, Any] = {column: row.get(options.columns.get(column, column)) for column in COLUMNS}
    name = id_of(None if is_missing(named["id"]) else named["id"], origin)
    where = f"{origin} (id {name})"
    has = ", ".join(map(str, row))[:200] or "nothing"
    question = _text(named, "instruction", where)
    more = _text(named, "input", where) if options.question == "instruction+input" else ""
    question = options.joiner.join(filter(None, [question, more]))
    if not question.strip():
        next_step = "Next: name its column, options: {columns: {instruction: NAME, output: NAME}}."
        raise RowError("no instruction", where, f"the row has no instruction. It has: {has}. {next_step}")
    answer = _target(named, options, where)
    if not answer.strip():
        kind = LeftOut if options.empty_target == "leave_out" else RowError
        next_step = "Next: choose another target, or set empty_target: leave_out."
        raise kind("empty target", where, f"the target {options.target} is empty. The row has: {has}. {next_step}")
    system = _text(named, "system", where)
    turns = [Turn("system", system)] if system.strip() else []
    turns += [*_history(named["history"], where), Turn("user", question), Turn("assistant", answer)]
    key = options.columns.get("image")
    cell = cell_of(row, key, where)
    images = images_of(None if is_missing(cell) else cell, folder, where)
    return build_sample(name, images, turns, origin, isinstance(cell, str), "remove", options.literal_tags)


def _target(row: Mapping[str, Any], options: InstructOptions, where: str) -> str:
    output, full = _text(row, "output", where), _text(row, "full_output", where)
    if options.target == "longer":
        return full if len(full) > len(output) else output
    return full if options.target == "full_output" else output


def _text(row: Mapping[str, Any], column: str, where: str) -> str:
    """Return the text of a column, empty where a table has nothing there."""
    value = row[column]
    if is_missing(value):
        return ""
    if not isinstance(value, str):
        reason = f"`{column}` is a {type(value).__name__}. Allowed: text. Got: {value!r:.80}."
        raise RowError(f"{column} is no text", where, reason)
    return checked_text(value, where)


def _history(value: Any, where: str) -> Iterator[Turn]:
    """Yield the turns of [[question, answer], ...]."""
    pairs = [] if is_missing(value) or value == "" else value
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise RowError("history", where, f"`history` is {value!r:.80}. Allowed: a list of [question, answer].")
    for question, answer in pairs:
        if not isinstance(question, str) or not isinstance(answer, str):
            raise RowError("history", where, "a turn of `history` is no text.")
        yield Turn("user", checked_text(question, where))
        yield Turn("assistant", checked_text(answer, where))
