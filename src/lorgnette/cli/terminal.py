"""What commands share: the two consoles, options that several take, and getting the machine ready for torch."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import psutil
import typer
from rich.console import Console

from lorgnette.errors import InputError
from lorgnette.processes import is_main

BUSY_PERCENT = 25
"""Threads that spin while they wait are 1.3 times as fast on an idle machine, but 2 to 15 times as slow where other
work shares the cores (a training step of 4 s took 15 to 110 s beside one busy process, 7 s with sleeping threads)."""

# peft imports it wherever it is installed, and it then recommends a package that is not needed
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

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
        console.print(line, markup=False, soft_wrap=True)


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
    if psutil.cpu_percent(interval=0.2) > BUSY_PERCENT:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _quiet_libraries()


def _quiet_libraries() -> None:
    """Keep the libraries' own bars and hints off the screen; their errors still come through."""
    from transformers.utils import logging  # noqa: PLC0415

    # libraries that call each other by old names; nothing a user can act on
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft|accelerate)\.")
    logging.disable_progress_bar()
    logging.set_verbosity_error()
