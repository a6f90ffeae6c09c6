"""What commands share: the two consoles, options that several take, and getting the machine ready for torch."""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from lorgnette.errors import InputError
from lorgnette.processes import is_main

SPINS = "2000"
"""How often a waiting thread looks before it sleeps. The library's own 300,000 cost nothing on an idle machine, but a
training step of 5 s took more than 60 s beside one busy process; 2,000 took 5 s and 10 s. With no spinning at all it
took 6.5 s and 8.5 s."""

# peft imports it wherever it is installed, and it then recommends a package that is not needed
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

COMMAND = re.compile(r"\blorgnette (?=(quickstart|run|train|evaluate|compare|score|serve|data|model|recipe)\b)")

console = Console(quiet=not is_main())  # of several processes one talks
errors = Console(stderr=True)

RecipeFile = Annotated[Path, typer.Argument(help="The recipe, a YAML file.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a field: --set stages.0.training.max_steps=50", metavar="FIELD=VALUE"),
]
Output = Annotated[
    Path | None, typer.Option("--output", help="The run folder; runs/RECIPE if not given.", show_default=False)
]


def say(*lines: str) -> None:
    """Print lines as they are: no markup in them, and no line broken where the terminal ends."""
    for line in lines:
        console.print(as_typed(line), markup=False, soft_wrap=True)


def as_typed(text: str) -> str:
    """Let the commands in a text begin as this one did, where the shell would not find `lorgnette`."""
    called = Path(sys.argv[0])
    if called.name not in ("lorgnette", "__main__.py") or shutil.which("lorgnette") is not None:
        return text
    if called.name == "lorgnette":
        return COMMAND.sub(f"{called} ", text)
    return COMMAND.sub("python -m lorgnette ", text) if called.parent.name == "lorgnette" else text


def named_values(options: Sequence[str] | None) -> dict[str, str]:
    """Return what --option NAME=VALUE gave, by name.

    Raises:
        InputError: if one has no name or no `=`.
    """
    given = {}
    for option in options or ():
        name, equals, value = option.partition("=")
        if not name or not equals:
            raise InputError(
                f"--option {option}: must be NAME=VALUE. Next: docs/data.md has the options of readers, "
                "docs/benchmarks.md those of tasks."
            )
        given[name] = value
    return given


def settle() -> None:
    """Do what has to be done before torch is imported: choose how its threads wait, and quiet the libraries."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    _quiet_libraries()


def _quiet_libraries() -> None:
    """Keep the libraries' own bars and hints off the screen; their errors still come through."""
    from transformers.utils import logging  # noqa: PLC0415

    # libraries that call each other by old names; nothing a user can act on
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft|accelerate)\.")
    logging.disable_progress_bar()
    logging.set_verbosity_error()
