"""Pydantic's errors -> sentences: which field, what was found, what is allowed, which name was perhaps meant.

Knows the recipe's shape; knows neither files nor YAML.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from lorgnette.errors import nearest
from lorgnette.recipe.fields import suggestion
from lorgnette.recipe.sections import Recipe
from lorgnette.recipe.yaml_text import FieldPath

MAX_SHOWN = 80
MAX_CHOICES = 20

_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing_size": "a smaller number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "none_required": "null",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "too_short": "a list of at least {min_length}",
    "string_too_short": "text that is not empty",
    "string_too_long": "at most {max_length} characters",
    "string_pattern_mismatch": "text of the form {pattern}",
}


def validate(data: dict[str, Any]) -> tuple[Recipe | None, dict[FieldPath, str]]:
    """Return the recipe, or None and a sentence for every path that is wrong.

    Sections are compared with each other only when each is right by itself. So that a misspelt field does not
    hide what is wrong behind it, names that do not exist are taken out and the rest is looked at again.
    """
    recipe, errors = _attempt(data)
    removable = [found for path, group in errors.items() if (found := _removable(path, group))]
    if removable:
        _, behind = _attempt(_without(data, removable))
        # A section with an unknown name is judged no further: what it seems to lack may be what was misspelt.
        unclear = {path[:-1] for path, group in errors.items() if group[0]["type"] == "extra_forbidden"}
        errors |= {
            path: group for path, group in behind.items() if path not in errors and not {path, path[:-1]} & unclear
        }
    return recipe, {path: _sentence(path, group) for path, group in errors.items()}


def shown(value: object) -> str:
    """Return a value as a person would write it, short, and with nothing in it that could move a cursor."""
    if isinstance(value, str):
        text = repr(value)
    else:
        text = json.dumps(value, default=str, ensure_ascii=False)
        text = text if text.isprintable() else json.dumps(value, default=str)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."


def dotted(path: FieldPath) -> str:
    """Return a path as `--set` takes it: stages.0.training.learning_rate."""
    steps = (str(step) for step in path)
    return ".".join(step if step.isprintable() and len(step) <= MAX_SHOWN else shown(step) for step in steps)


def _attempt(data: dict[str, Any]) -> tuple[Recipe | None, dict[FieldPath, list[ErrorDetails]]]:
    try:
        return Recipe.model_validate(data), {}
    except ValidationError as error:
        groups: dict[FieldPath, list[ErrorDetails]] = {}
        for each in error.errors(include_url=False):
            if not _is_echo(each):
                groups.setdefault(_data_path(each, data), []).append(each)
        return None, {path: group for path, group in groups.items() if not _is_vague(path, group, groups)}


def _is_echo(error: ErrorDetails) -> bool:
    # Pydantic counts only the entries that are right, and calls a list of one wrong entry too short.
    return error["type"] == "too_short" and len(error["input"]) >= error["ctx"]["min_length"]


def _is_vague(path: FieldPath, group: list[ErrorDetails], all_paths: Iterable[FieldPath]) -> bool:
    # Of "text or a list", a list with a wrong entry fails twice: as text, and at that entry, which says more.
    is_union = len(group[0]["loc"]) > len(path)
    return is_union and any(len(other) > len(path) and other[: len(path)] == path for other in all_paths)


def _data_path(error: ErrorDetails, data: Any) -> FieldPath:
    """Return where in the data an error is: pydantic's location without the names of a union's members."""
    path: list[str | int] = []
    here = data
    for step in error["loc"]:
        is_step = step in here if isinstance(here, dict) else isinstance(here, list) and isinstance(step, int)
        if is_step:
            here = here[step]
        if is_step or error["type"] in ("missing", "mistake"):
            path.append(step)
    return tuple(path)


def _removable(path: FieldPath, group: list[ErrorDetails]) -> FieldPath | None:
    """Return what to take out to check the rest, or None where that would change the meaning of the rest."""
    if len(path) > 3 and path[2] in ("training", "lora"):
        return path[:4]  # nothing else in a recipe is compared with a single one of these fields
    return path if group[0]["type"] == "extra_forbidden" else None


def _without(data: dict[str, Any], paths: Iterable[FieldPath]) -> dict[str, Any]:
    rest = copy.deepcopy(data)
    for path in paths:
        here: Any = rest
        for step in path[:-1]:
            here = here[step]
        here.pop(path[-1], None)
    return rest


def _sentence(path: FieldPath, group: list[ErrorDetails]) -> str:
    error = group[0]
    value = shown(error["input"])
    if error["type"] == "mistake":
        return error["msg"]
    if error["type"] == "unknown_field":
        return f"unknown field (value {value}).{error['ctx']['text']}"
    if error["type"] == "extra_forbidden":
        names = _field_names(path[:-1])
        close = suggestion(str(path[-1]), names)
        allowed = f" Allowed: {', '.join(names)}."
        return f"unknown field (value {value}).{close or allowed}"
    if error["type"] == "missing":
        return "is missing"
    if [each["type"] for each in group] == ["literal_error"]:
        return f"{value} is not allowed.{_choices(error)}"
    expected = list(dict.fromkeys(_expected(each) for each in group))
    return f"must be {' or '.join(expected)}, got {value}"


def _expected(error: ErrorDetails) -> str:
    if error["type"] == "literal_error":
        return str(error["ctx"]["expected"])
    template = _EXPECTED.get(error["type"])
    if template is None:
        return f"something else ({error['msg']})"
    return template.format(**error.get("ctx", {}))


def _choices(error: ErrorDetails) -> str:
    expected = str(error["ctx"]["expected"])
    names = re.findall(r"'([^']*)'", expected) or [expected]
    if len(names) <= MAX_CHOICES:
        return f"{nearest(str(error['input']), names)} Allowed: {', '.join(names)}."
    return suggestion(str(error["input"]), names) or f" Allowed: {', '.join(names)}."


def _field_names(path: Sequence[str | int]) -> list[str]:
    """Return the fields of the section at a path, from the recipe's JSON schema."""
    schema = Recipe.model_json_schema()
    node = schema
    for step in (*path, None):
        for option in node.get("anyOf", [node]):
            # Of `text or mapping` and `mapping or null`, only the mapping has fields.
            node = schema["$defs"][option["$ref"].split("/")[-1]] if "$ref" in option else node
        if isinstance(step, int):
            node = node["items"]
        elif step is not None:
            node = node["properties"][step]
    return list(node["properties"])
