"""YAML text -> plain data with the line of every field, and all mistakes; bounded, because text is hostile.

Knows YAML and nothing about recipes. Reads YAML 1.2 where it differs from PyYAML's 1.1: `1e-3` is a number;
`no`, `on`, `1:30` and `2024-01-01` are text.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

FieldPath = tuple[str | int, ...]

MAX_NODES = 10_000
MAX_DEPTH = 40
MAX_NUMBER_LENGTH = 40

_TAG = "tag:yaml.org,2002:"
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_RESOLVERS = (
    ("null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    ("int", re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$"), list("-+0123456789")),
    (
        "float",
        re.compile(
            r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        list("-+.0123456789"),
    ),
)

# What PyYAML says -> what the writer can do about it.
_EXPLANATIONS = (
    ("'\\t' that cannot start any token", "a tab; YAML indents with spaces only"),
    (
        "mapping values are not allowed",
        "a ': ' where no field can start; quote the text, or indent it right",
    ),
    ("could not find expected ':'", "a field name without a ':' after it"),
    ("unexpected end of stream", "the text ends inside a quote"),
    ("expected <block end>", "the indentation does not fit the lines above"),
    ("expected ',' or", "a bracket or brace is not closed, or a comma is missing"),
    ("expected a single document", "a second document ('---'); a recipe is one"),
    ("found undefined alias", "an alias (*name) without its anchor (&name)"),
    ("that cannot start any token", "a character that needs quotes around the text"),
)


class _Loader(yaml.SafeLoader):
    """Resolves plain scalars by `_RESOLVERS` alone."""

    yaml_implicit_resolvers = {}  # noqa: RUF012  (PyYAML's attribute, filled below)


class _Dumper(yaml.SafeDumper):
    """Quotes what YAML 1.1 or our reader would take for something else than text."""


for _name, _regexp, _first in _RESOLVERS:
    _Loader.add_implicit_resolver(_TAG + _name, _regexp, _first)
    _Dumper.add_implicit_resolver(_TAG + _name, _regexp, _first)


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong: where it was written (a line, or a `--set`), the field, and what to do."""

    origin: int | str
    path: FieldPath
    text: str


@dataclass
class Plain:
    """The data of a text (None if it could not be read), where each field was written, and what was wrong."""

    data: Any = None
    origins: dict[FieldPath, int | str] = field(default_factory=lambda: {(): 1})
    mistakes: list[Mistake] = field(default_factory=list)

    def wrong(self, origin: int | str, path: FieldPath, text: str) -> None:
        """Add a mistake."""
        self.mistakes.append(Mistake(origin, path, text))


def parse_yaml(text: str) -> Plain:
    """Read YAML text without trusting it: no tags, no bombs, no key twice. Return mistakes, never raise."""
    plain = Plain()
    try:
        _check_size(text)
        node = yaml.compose(text, Loader=_Loader)
        if node is not None:
            plain.data = _Reading(plain).value(node, (), ())
    except _TooMuchError as error:
        plain.data = None
        plain.wrong(error.line, (), str(error))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        plain.wrong(line, (), f"column {column}: {_explained(error)}")
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        plain.wrong(line, (), f"the character {chr(error.character)!r} is not allowed in YAML")
    except (ValueError, OverflowError) as error:
        # PyYAML lets Python's own errors through for impossible escapes ("\UFFFFFFFF") and version numbers.
        plain.wrong(1, (), f"this is not YAML: {error}")
    return plain


def write_yaml(data: object) -> str:
    """Write plain data as YAML that `parse_yaml` reads back to the same data."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text


class _TooMuchError(Exception):
    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line


def _check_size(text: str) -> None:
    # Events come one by one from a machine without recursion: hostile nesting ends here and not in the stack.
    depth = nodes = 0
    for event in yaml.parse(text, Loader=_Loader):
        nodes += isinstance(event, yaml.NodeEvent)
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        _check_bounds(event.start_mark, nodes, depth)


def _check_bounds(mark: Any, nodes: int, depth: int) -> None:
    if nodes > MAX_NODES:
        raise _TooMuchError(mark.line + 1, f"more than {MAX_NODES:,} values, counting what aliases repeat")
    if depth > MAX_DEPTH:
        raise _TooMuchError(mark.line + 1, f"more than {MAX_DEPTH} levels deep")


def _explained(error: yaml.MarkedYAMLError) -> str:
    said = " ".join(str(part) for part in (error.context, error.problem) if part)
    for phrase, explanation in _EXPLANATIONS:
        if phrase in said:
            return f"{explanation} ({said})"
    return said


class _Reading:
    """The walk over the nodes of one text; collects lines and mistakes in `plain`."""

    def __init__(self, plain: Plain) -> None:
        self.plain = plain
        self.nodes = 0

    def value(self, node: yaml.Node, path: FieldPath, above: tuple[int, ...]) -> Any:
        line = node.start_mark.line + 1
        self.nodes += 1  # an alias counts each time, so that a bomb of aliases stops here
        _check_bounds(node.start_mark, self.nodes, len(above))
        if id(node) in above:
            raise _TooMuchError(line, "an alias (*name) stands inside its own anchor (&name)")
        self.plain.origins.setdefault(path, line)
        above = (*above, id(node))
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self.mapping(node, path, above)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.value(item, (*path, index), above) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            try:
                return _scalar(node)
            except ValueError as error:
                self.plain.wrong(line, path, str(error))
        else:
            self.plain.wrong(line, path, f"the tag {node.tag!r} is not allowed in a recipe")
        return None

    def mapping(self, node: yaml.MappingNode, path: FieldPath, above: tuple[int, ...]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode) or not _is_clean(key):
                self.plain.wrong(line, path, "a field name must be plain text")
            elif key == "<<":
                self.plain.wrong(line, path, "'<<' is not read; write the fields out, or alias a section")
            elif key in found:
                first = self.plain.origins[(*path, key)]
                self.plain.wrong(line, (*path, key), f"given twice; first on line {first}")
            else:
                self.plain.origins[(*path, key)] = line
                found[key] = self.value(value_node, (*path, key), above)
        return found


def _scalar(node: yaml.ScalarNode) -> Any:
    """Return the value of a scalar; raises `ValueError` with the sentence for the user."""
    text: str = node.value
    kind = node.tag.removeprefix(_TAG)
    if kind in ("int", "float") and len(text) > MAX_NUMBER_LENGTH:
        raise ValueError(f"a number of {len(text)} characters")
    if kind == "str":
        if not _is_clean(text):
            raise ValueError("the text holds a character that no file name or terminal can take")
        return text
    if kind == "null":
        return None
    if kind == "bool" and text in _BOOLEANS:
        return _BOOLEANS[text]
    if kind == "int":
        return int(text, 0) if text.startswith(("0o", "0x")) else int(text)
    if kind == "float":
        number = float(text.replace(".inf", "inf").replace(".nan", "nan"))
        if not math.isfinite(number):
            raise ValueError(f"{text} is not a finite number")
        return number
    raise ValueError(f"the tag {node.tag!r} is not allowed in a recipe")


def _is_clean(text: str) -> bool:
    # A NUL or half a surrogate pair, written as an escape, would fail much later: in a path, or when printed.
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
