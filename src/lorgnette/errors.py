"""Every exception that Lorgnette raises on purpose.

    LorgnetteError
    ├── InputError            what the user gave is wrong: exit code 2
    │   ├── RecipeError       the recipe, all its mistakes at once
    │   ├── DataError         a data file, a sample or an image
    │   │   └── RowError      one row of a data file; the others can still be used
    │   │       └── LeftOut   a row that is left out because an option, or the data set itself, says so
    │   ├── ModelError        a model folder, a tokenizer or a chat template
    │   └── MissingExtra      an optional library is not installed
    └── RunError              the work itself failed: exit code 1
        ├── NonFiniteLoss     the loss became NaN or infinite
        └── GradientError     a part that should learn got no gradient

A message says what is wrong, where, what was found, what is allowed, and what to do next.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable


class LorgnetteError(Exception):
    """Any failure that Lorgnette explains; the command line prints the message and no traceback."""

    exit_code = 1


class InputError(LorgnetteError):
    """What the user gave is wrong; nothing was changed."""

    exit_code = 2


class RecipeError(InputError):
    """A recipe has mistakes; the message lists all of them, each with its line."""


class DataError(InputError):
    """A data file, a sample or an image cannot be used."""


class RowError(DataError):
    """One row of a data set cannot be used; rows of one `kind` are counted together.

    Attributes:
        kind: a few words that do not depend on the row, such as "image missing".
        where: file, row and id.
        reason: what is wrong with this row.
    """

    def __init__(self, kind: str, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.kind = kind
        self.where = where
        self.reason = reason


class LeftOut(RowError):
    """A row that is left out on purpose: an option of the source or a mark of the data set says so.

    Counted by kind, but not as a bad row.
    """


class ModelError(InputError):
    """A model folder, a tokenizer or a chat template cannot be used."""


class MissingExtra(InputError):
    """An optional library is missing; the message names the `pip install`."""

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(
            f"{library} is not installed, and this needs it. Next: pip install {library}, or all that such work takes: "
            f"pip install 'lorgnette[{extra}]'"
        )


class RunError(LorgnetteError):
    """The work failed although the input was right."""


class NonFiniteLoss(RunError):
    """The loss became NaN or infinite; the last whole checkpoint is untouched."""


class GradientError(RunError):
    """A part that the recipe trains received no gradient in the first step."""


def first_line(error: BaseException) -> str:
    """Return the first line of what a library says, or the error's name where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def typed(path: object) -> str:
    """Return a path as it is typed in a shell, for the command that a message suggests."""
    return shlex.quote(str(path))


def without_advice(message: str) -> str:
    """Return what a message says is wrong, without what is allowed and what to do: that of the message around it."""
    return re.split(r"\s(?:Allowed|Next): ", message)[0]


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether memory ran out, of the machine or of an accelerator: torch says so in a `RuntimeError`."""
    said = str(error)
    return isinstance(error, MemoryError) or "out of memory" in said or "can't allocate memory" in said


def nearest(word: str, allowed: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for the closest allowed name, or an empty string if none is close."""
    found = difflib.get_close_matches(word, list(allowed), n=1, cutoff=0.6)
    return f" Did you mean '{found[0]}'?" if found else ""
