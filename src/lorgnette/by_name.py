"""What a recipe or the command line calls by a name: one of ours, or the user's own as "package.module:Name"."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
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
        return vars(import_module(module))[attribute]
    except (Exception, SystemExit) as error:  # whatever the user's own module does when it is imported
        raise DataError(
            f"{what} '{name}': cannot be imported ({type(error).__name__}: {error}). Next: check that {module} is on "
            f"the Python path and that {attribute} is in it."
        ) from error
