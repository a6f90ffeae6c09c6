"""What a stage tells while it trains: a progress bar, and lines in the run's metrics.jsonl."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import TrainerCallback

from lorgnette.errors import DataError
from lorgnette.progress import progress_bar
from lorgnette.run import append_json_line, read_json_lines, write_json_lines

LOGGED = ("loss", "eval_loss", "learning_rate", "grad_norm", "epoch")


class ProgressBar(TrainerCallback):  # type: ignore[misc]
    """Show the steps of a stage and its last loss: a bar, and a line a log where the output is no terminal."""

    def __init__(self, stage: str, console: Console) -> None:
        self.console = console
        self.progress = progress_bar(console)
        self.stage = stage
        self.task = self.progress.add_task(stage)
        self._ending = False

    def ending(self) -> None:
        """Say in the bar that the stage ends after its step; called from within a signal, so nothing is printed."""
        self._ending = True
        self.progress.update(self.task, description=f"{self.stage}  ends with this step; Ctrl-C: at once")

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start at the step that the stage goes on from."""
        self.progress.update(self.task, total=state.max_steps, completed=state.global_step)
        self.progress.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Advance by one optimizer step."""
        self.progress.update(self.task, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Show the losses."""
        losses = [f"{name} {float(logs[name]):.3f}" for name in ("loss", "eval_loss") if logs and name in logs]
        if "loss" in (logs or {}) and not self._ending:
            self.progress.update(self.task, description=f"{self.stage}  {losses[0]}")
        if losses and not self.console.is_terminal:
            said = ", ".join([f"{self.stage}: step {state.global_step:,} of {state.max_steps:,}", *losses])
            self.console.print(said, markup=False, soft_wrap=True)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Leave the finished bar on the screen."""
        self.progress.stop()


class MetricsFile(TrainerCallback):  # type: ignore[misc]
    """Append each log of a stage to metrics.jsonl; a resumed stage first removes the lines it will write again."""

    def __init__(self, path: Path, stage: str) -> None:
        self.path = path
        self.stage = stage

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Forget lines of this stage that are later than the checkpoint.

        Raises:
            DataError: if the file is not what was written here.
        """
        if not state.is_world_process_zero:
            return
        rows = read_json_lines(self.path)
        for number, row in enumerate(rows, start=1):
            if not isinstance(row.get("stage"), str) or not isinstance(row.get("step"), int):
                raise DataError(
                    f"{self.path}, line {number}: needs a stage and a step. Next: move the file away and run the "
                    "command again."
                )
        kept = [row for row in rows if row["stage"] != self.stage or row["step"] <= state.global_step]
        write_json_lines(self.path, kept)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Write step, losses, learning rate and gradient norm."""
        values = {name: float(logs[name]) for name in LOGGED if logs and name in logs}
        if state.is_world_process_zero and ("loss" in values or "eval_loss" in values):
            append_json_line(self.path, {"stage": self.stage, "step": state.global_step, **values})
