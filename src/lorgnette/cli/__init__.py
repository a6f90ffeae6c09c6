"""The command line: this page is the table of commands; the functions are in the modules beside it.

Commands import what they need when they run: `lorgnette --help` should not wait for torch.
"""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Callable
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from rich.text import Text
from safetensors import SafetensorError

from lorgnette import __version__
from lorgnette.cli import comparisons, data, making, model, recipes, results, road, serving
from lorgnette.cli.terminal import as_typed, console, errors
from lorgnette.errors import LorgnetteError, is_out_of_memory
from lorgnette.processes import is_main

app = typer.Typer(
    help="Give a language model eyes, teach it your pictures and your language, and prove that it got better.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
model_app = typer.Typer(help="Look at models, put them together, merge, convert.", no_args_is_help=True)
data_app = typer.Typer(help="Check data, split it, gather it, make it.", no_args_is_help=True)
recipe_app = typer.Typer(help="Look at recipes.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(model_app, name="model")
app.add_typer(recipe_app, name="recipe")

COMMANDS: dict[typer.Typer, tuple[Callable[..., Any], ...]] = {
    app: (road.quickstart, road.run, road.train, results.evaluate, results.score, comparisons.compare, serving.serve),
    data_app: (data.check, data.split, making.prepare, making.make),
    model_app: (model.inspect, model.build, model.merge, model.convert),
    recipe_app: (recipes.schema, recipes.show),
}
for group, commands in COMMANDS.items():
    for command in commands:
        group.command()(command)


INTERRUPTED, TERMINATED = 130, 143
"""Exit codes of a command that was stopped from outside, as shells count: 128 and the number of the signal."""
OF_A_PATH = (
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP),
    *(errno.EACCES, errno.EPERM, errno.EROFS),
)
"""What the system says where a path that was given cannot be used."""


def main() -> None:
    """Run a command; explain what went wrong in one message, with exit code 2 for wrong input and 1 otherwise."""
    terminated = False

    def terminate(*_: object) -> None:
        nonlocal terminated
        terminated = True
        raise KeyboardInterrupt  # nothing half done stays, and the cursor comes back

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without Cyrillic must not end an hour's work
    signal.signal(signal.SIGTERM, terminate)
    try:
        app()
    except LorgnetteError as error:
        # of several processes the main one talks; another's trouble may be its own
        label = "error: " if is_main() else "error in another process: "
        _tell(label, str(error))
        sys.exit(error.exit_code)
    except (OSError, SafetensorError) as error:
        of_a_path = isinstance(error, OSError) and error.errno in OF_A_PATH
        _tell("error: ", f"the system refused: {error}{_remedy(error, of_a_path)}")
        sys.exit(2 if of_a_path else 1)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).strip().partition("\n")[0] or "Python could not get any more"
        step = "Next: a smaller batch or image size, shorter texts, fewer processes, or a machine with more memory."
        _tell("error: ", f"out of memory: {reason} {step}")
        sys.exit(1)
    except SystemExit as stop:
        if stop.code != INTERRUPTED:  # typer's way of passing on Ctrl-C
            raise
        if is_main():
            how = "terminated" if terminated else "interrupted"
            errors.print(f"\n{how}. Call the same command again: it goes on from here.", soft_wrap=True)
        sys.exit(TERMINATED if terminated else INTERRUPTED)


def _remedy(error: OSError | SafetensorError, of_a_path: bool) -> str:
    if of_a_path:
        return "\nNext: give another path."
    full = f"os error {errno.ENOSPC}" in str(error) or (isinstance(error, OSError) and error.errno == errno.ENOSPC)
    return "\nNext: free space, or give another output; then call the same command again." if full else ""


def _tell(label: str, message: str) -> None:
    """Print a message; what it quotes of files and their names must not drive the terminal."""
    message = as_typed(message)
    clean = "".join(letter if letter.isprintable() or letter in "\n\t" else repr(letter)[1:-1] for letter in message)
    errors.print(Text.assemble((label, "bold red"), clean), soft_wrap=True)


def _version(value: bool) -> None:
    if value:
        console.print(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Hold the options of every command."""
