"""A recipe file -> `Recipe`, with all mistakes at once, and back: `--set`, the resolved text, differences.

Knows files and `--set`. `yaml_text.py` reads the YAML itself, `mistakes.py` makes the sentences.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lorgnette.errors import RecipeError, nearest
from lorgnette.recipe.mistakes import dotted, shown, validate
from lorgnette.recipe.sections import Recipe
from lorgnette.recipe.yaml_text import MAX_DEPTH, FieldPath, Mistake, Plain, parse_yaml, write_yaml

MAX_BYTES = 1_000_000
_ABSENT = object()


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file, put the `--set` overrides over it, and check everything before anything is loaded.

    Raises:
        RecipeError: the file cannot be read, or the recipe has mistakes: all of them, each with its line.
    """
    plain = parse_yaml(_text_of(path))
    is_mapping = isinstance(plain.data, dict)
    is_yaml = is_mapping or not plain.mistakes
    if not is_mapping and not plain.mistakes:
        got = "empty" if plain.data is None else f"not a mapping but {shown(plain.data)}"
        plain.wrong(1, (), f"the recipe is {got}; it needs at least `model:`")
    if not is_mapping:
        plain.data = {}  # so that mistakes of the overrides themselves are still found
    for override in overrides:
        _override(plain, override)
    recipe = None
    if is_mapping:
        recipe, sentences = validate(plain.data)
        # What could not be read is None in the data: neither that nor its section can be judged.
        known = {mistake.path[:end] for mistake in plain.mistakes for end in range(1, len(mistake.path) + 1)}
        plain.mistakes += [Mistake(_origin(plain, at), at, text) for at, text in sentences.items() if at not in known]
    if recipe is None or plain.mistakes:
        raise RecipeError(_report(path, plain.mistakes, is_yaml=is_yaml))
    return recipe


def resolved_yaml(recipe: Recipe) -> str:
    """Return the recipe as YAML with every default filled in; it reads back to an equal recipe."""
    return write_yaml(recipe.model_dump(mode="json"))


def differences(a: Recipe, b: Recipe) -> list[str]:
    """Return one line for every field that differs: its dotted path, the value in `a`, the value in `b`."""
    left, right = _leaves(a.model_dump(mode="json")), _leaves(b.model_dump(mode="json"))
    found = []
    for path in dict.fromkeys([*left, *right]):
        one, other = left.get(path, _ABSENT), right.get(path, _ABSENT)
        if one != other:
            values = " -> ".join("absent" if value is _ABSENT else shown(value) for value in (one, other))
            found.append(f"{dotted(path)}: {values}")
    return found


def _text_of(path: Path) -> str:
    """Return the text of a recipe file. Raises `RecipeError` for anything that is not a small UTF-8 file."""
    try:
        if path.is_dir():
            raise RecipeError(f"{path} is a folder. Next: give the file, such as {path / 'recipe.yaml'}")
        if not path.exists():
            folder = path.parent
            beside = [each.name for each in folder.iterdir() if each.is_file()] if folder.is_dir() else []
            near = nearest(path.name, beside)
            raise RecipeError(f"{path} does not exist.{near or ' Next: check the path of the recipe file'}")
        if not path.is_file():
            raise RecipeError(f"{path} is not a file (a device or a pipe)")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(content) > MAX_BYTES:
        raise RecipeError(f"{path} is larger than {MAX_BYTES:,} bytes; is it a recipe, or a data file?")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise RecipeError(f"{path} is not UTF-8 (line {line}). Next: save it as UTF-8") from error


def _override(plain: Plain, override: str) -> None:
    """Put one `PATH=VALUE` over the data; what is wrong with it joins the mistakes."""
    origin = f"--set {override if override.isprintable() else shown(override)}"
    name, equals, text = override.partition("=")
    if not equals or not all(name.split(".")):
        plain.wrong(origin, (), "must be PATH=VALUE, such as stages.0.lora.r=16")
        return
    if name.count(".") >= MAX_DEPTH:
        plain.wrong(f"--set {shown(name)}", (), f"more than {MAX_DEPTH} levels deep")
        return
    value = parse_yaml(text)
    path = _place(plain, name.split("."), value.data, origin)
    for mistake in value.mistakes:
        plain.wrong(origin, (*path, *mistake.path), mistake.text)
    for old in [known for known in plain.origins if path and known[: len(path)] == path]:
        del plain.origins[old]
    plain.origins |= {(*path, *inner): origin for inner in value.origins if path}


def _place(plain: Plain, steps: list[str], value: Any, origin: str) -> FieldPath:
    """Put a value at its path, making absent mappings on the way; return the path, () if it leads nowhere."""
    here = plain.data
    path: FieldPath = ()
    for index, step in enumerate(steps):
        if isinstance(here, list):
            if not (step.isascii() and step.isdecimal() and len(step) < 7 and int(step) < len(here)):
                allowed = f"0 to {len(here) - 1}" if here else "none, it is empty"
                why = f"{dotted(path)} is a list; '{step}' is none of its entries. Allowed: {allowed}"
                plain.wrong(origin, (), why)
                return ()
            path = (*path, int(step))
        elif isinstance(here, dict):
            path = (*path, step)
        else:
            at = dotted(path)
            why = f"{at} is {shown(here)}, which has no fields; set it whole: {at}={{...}}"
            plain.wrong(origin, (), why)
            return ()
        key: Any = path[-1]
        if index == len(steps) - 1:
            here[key] = value
        elif isinstance(here, list) or here.get(key) is not None:
            here = here[key]
        else:
            here[key] = {}
            here = here[key]
            plain.origins[path] = origin
    return path


def _origin(plain: Plain, path: FieldPath) -> int | str:
    """Return where a field was written; a missing field is looked for where its section is."""
    while path not in plain.origins:
        path = path[:-1]
    return plain.origins[path]


def _report(path: Path, mistakes: Sequence[Mistake], *, is_yaml: bool) -> str:
    in_file = sorted((each for each in mistakes if isinstance(each.origin, int)), key=operator.attrgetter("origin"))
    in_overrides = [each for each in mistakes if isinstance(each.origin, str)]
    lines = [f"  {_place_of(mistake)}: {mistake.text}" for mistake in in_file + in_overrides]
    count = "1 mistake" if len(lines) == 1 else f"{len(lines)} mistakes"
    next_step = "Next: lorgnette recipe schema   (all fields, for your editor)"
    if not is_yaml:
        next_step = (
            "Next: mend the YAML there, or in the line above; a text with ': ', ' #' or quotes in it goes in quotes."
        )
    return "\n".join([f"{path} has {count}:", *lines, next_step])


def _place_of(mistake: Mistake) -> str:
    field = dotted(mistake.path)
    if isinstance(mistake.origin, int):
        return f"line {mistake.origin}, {field}" if field else f"line {mistake.origin}"
    is_said = not field or mistake.origin.startswith(f"--set {field}=")
    return mistake.origin if is_said else f"{mistake.origin}, {field}"


def _leaves(data: object, path: FieldPath = ()) -> dict[FieldPath, Any]:
    """Return every value that holds no other, by its path; an empty list or mapping is a value."""
    if not data or not isinstance(data, (dict, list)):
        return {path: data}
    entries = data.items() if isinstance(data, dict) else enumerate(data)
    return {at: leaf for key, value in entries for at, leaf in _leaves(value, (*path, key)).items()}
