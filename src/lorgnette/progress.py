"""The one look of progress bars, and tables on terminals of any width."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

Row = TypeVar("Row")

LEAST_NAME = 8
"""Characters of a name that still tell it from others."""
BAR_AND_NUMBERS = 30
"""Columns of a terminal that a short bar, a count and a time need."""


class _Bars(Progress):
    """Progress bars, which tell every tenth in a line of its own where the output is no terminal."""

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Go on by some steps."""
        super().advance(task_id, advance)
        if not self.disable:
            return
        task = next(task for task in self.tasks if task.id == task_id)
        before = task.completed - advance
        if task.total and before * 10 // task.total < task.completed * 10 // task.total < 10:
            said = f"{task.description}: {task.completed:,.0f} of {task.total:,.0f}"
            self.console.print(said, markup=False, soft_wrap=True)


def progress_bar(console: Console) -> Progress:
    """Return a progress bar; where the output is no terminal, it tells every tenth of what has an end."""
    return _Bars(
        _About(console),
        BarColumn(),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True, table_column=Column(no_wrap=True)),
        console=console,
        disable=not console.is_terminal,
    )


class _About(ProgressColumn):
    """What a bar is about, as long as the terminal leaves room for it."""

    def __init__(self, console: Console) -> None:
        super().__init__(Column(no_wrap=True))
        self.console = console

    def render(self, task: Task) -> Text:
        """Return the description, shortened so that bar, count and time keep their place."""
        text = Text(task.description)
        text.truncate(max(LEAST_NAME, self.console.width - BAR_AND_NUMBERS), overflow="ellipsis")
        return text


def counted(progress: Progress, rows: Iterable[Row], description: str) -> Iterator[Row]:
    """Show how many rows have come, of a number that is known only at the end."""
    task = progress.add_task(description, total=None)
    number = 0
    for row in rows:
        yield row
        number += 1
        progress.advance(task)
    progress.update(task, total=number)


def print_table(table: Table, console: Console, *, first_gives: bool = False) -> None:
    """Print a table, or a line a row where the terminal is too narrow for it: a number that is cut is no number.

    Args:
        first_gives: the first column may be shortened to `LEAST_NAME`.
    """
    needs = Measurement.get(console, console.options.update(width=1_000), table).maximum
    if first_gives:
        widest = max((_plain(cell).cell_len for cell in table.columns[0].cells), default=0)
        needs -= max(0, widest - LEAST_NAME)
    if needs <= console.width:
        console.print(table)
        return
    if table.title:
        console.print(_plain(table.title))
    names = [_plain(column.header).plain for column in table.columns[1:]]
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        first, *values = (_plain(cell).plain for cell in cells)
        said = ", ".join(f"{name} {value}" for name, value in zip(names, values, strict=True) if value)
        console.print(Text(f"{first}: {said}" if said else first))


def _plain(cell: object) -> Text:
    return cell if isinstance(cell, Text) else Text(str(cell))
