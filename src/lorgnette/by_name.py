"""What a recipe or the command line calls by a name: one of ours, or the user's own as "package.module:Name"."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import FunctionType
from typing import Any, TypeVar

from lorgnette.errors import DataError, nearest

Found = TypeVar("Found")


def find_by_name(what: str, name: str, ours: Mapping[str, Found], where: str = "") -> Found | Any:
    """Return one of ours by its name, or import the user's own.

    Args:
        what: what is looked for, as messages call it, such as "task".
        where: what the message about an unknown name begins with, such as the file that it is for and a colon.

    Raises:
        DataError: if there is none of that name, or it cannot be imported.
    """
    if name in ours:
        return ours[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise DataError(
            f"{where}there is no {what} '{name}'. Allowed: {', '.join(ours)}, or your own as package.module:Name."
            f"{nearest(name, ours)}"
        )
    try:
        there = vars(import_module(module))
    except (Exception, SystemExit) as error:  # whatever the user's own module does when it is imported
        raise DataError(
            f"{what} '{name}': cannot be imported ({type(error).__name__}: {error}). Next: check that {module} is on "
            "the Python path (PYTHONPATH=. for the folder where you are)."
        ) from error
    if attribute not in there:
        made = [each for each, found in there.items() if not each.startswith("_") and _is_of(found, module)]
        has = f" It has: {', '.join(made)}." if made else ""
        raise DataError(f"{what} '{name}': {module} has no '{attribute}'.{has}{nearest(attribute, there)}")
    return there[attribute]


def _is_of(found: Any, module: str) -> bool:
    """Tell whether a class or function was written in a module, not imported into it."""
    return isinstance(found, type | FunctionType) and found.__module__ == module
