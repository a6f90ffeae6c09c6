"""The answers to one task from several processes: whole batches shared out, each kept as it comes, one file in the end.

Every process appends to a file of its own; the main process brings them together in the order of the batches. Batches
are the same however many processes there are, and only whole ones count, so neither the number of processes nor an
interruption shows in the answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lorgnette.errors import DataError
from lorgnette.evaluation.schema import PREDICTIONS
from lorgnette.processes import is_main, processes
from lorgnette.run import append_json_line, read_json_lines, write_json_lines


def share(batches: Sequence[list[str]]) -> Sequence[list[str]]:
    """Return the batches that this process is to answer."""
    together = processes()
    return batches[together.process_index :: together.num_processes]


def keep(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Append a batch's answers to this process's file."""
    number = processes().process_index
    file = folder / (f"predictions.{number}.jsonl" if number else PREDICTIONS)
    for row in rows:
        append_json_line(file, row)


def gather(folder: Path, batches: Sequence[Sequence[str]]) -> set[str]:
    """Wait for all processes, bring their answers together in predictions.jsonl, and return the ids that it holds.

    Answers of a batch that was not finished are dropped: a batch is computed as in a run without interruption.

    Args:
        batches: the ids of all batches, in their order.

    Raises:
        DataError: if a line holds no answer.
    """
    processes().wait_for_everyone()
    if is_main():
        others = sorted(folder.glob("predictions.*.jsonl"))
        rows = {row["id"]: row for file in (*others, folder / PREDICTIONS) for row in _answers(file)}
        whole = [batch for batch in batches if all(name in rows for name in batch)]
        write_json_lines(folder / PREDICTIONS, [rows[name] for batch in whole for name in batch])
        for file in others:
            file.unlink()
    processes().wait_for_everyone()
    return {row["id"] for row in read_json_lines(folder / PREDICTIONS)}


def _answers(file: Path) -> list[dict[str, Any]]:
    """Read the answers that were kept in a file."""
    rows = read_json_lines(file)
    for number, row in enumerate(rows, start=1):
        texts = all(isinstance(row.get(name), str) for name in ("id", "prompt", "answer", "raw"))
        if not texts or not {"seconds", "stopped_by"} <= row.keys():
            raise DataError(f"{file}, line {number}: is no answer of an evaluation. Next: delete that line.")
    return rows
