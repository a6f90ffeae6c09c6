"""Ctrl-C and SIGTERM end a stage after the step that it is in, with a checkpoint; a second one ends it at once."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import reduce
from rich.console import Console
from transformers import TrainerCallback

from lorgnette.processes import processes

SAME_PRESS = 1.0
"""Seconds within which two signals are one: a launcher passes on what its terminal has sent to all already."""


class StopAtStep(TrainerCallback):  # type: ignore[misc]
    """Keep what a stopped stage has done, and log at every checkpoint.

    The loss that is logged is the mean since the last log. A stage that goes on counts from its checkpoint; with a log
    there it counts what an uninterrupted one does.

    Args:
        told: is called when the first signal has come, in the middle of whatever the main thread does.
    """

    def __init__(self, stage: str, console: Console, told: Callable[[], object]) -> None:
        self._stage = stage
        self._console = console
        self._told = told
        self._since: float | None = None
        self._pass_on: Callable[[], object] = _interrupt
        self._stopped = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear signals while a stage trains; outside the main thread, which alone gets them, nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        # one that is ignored (nohup) or ends the process without a word stays as it is
        before = {number: handler for number, handler in found.items() if callable(handler)}

        def hear(number: int, frame: Any) -> None:
            passed = 0.0 if self._since is None else time.monotonic() - self._since
            if passed > SAME_PRESS:
                before[signal.Signals(number)](number, frame)
            if self._since is None:
                self._since = time.monotonic()
                self._pass_on = lambda: before[signal.Signals(number)](number, None)
                self._told()

        for number in before:
            signal.signal(number, hear)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self._since is not None:  # it came after the last step
            self._pass_on()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """End the stage here if it is to stop."""
        if _any_process(self._since is not None):
            self._stopped = control.should_training_stop = control.should_save = True
        control.should_log = control.should_log or control.should_save

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Log where a checkpoint follows."""
        control.should_log = control.should_log or control.should_save

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Say what is kept, and let the signal do what it would have done.

        Raises:
            KeyboardInterrupt: if the stage was stopped.
        """
        if self._stopped:
            done = f"{self._stage}: stopped after step {state.global_step:,} of {state.max_steps:,}, which is kept"
            self._console.print(done, markup=False, soft_wrap=True)
            self._pass_on()


def _any_process(asked: bool) -> bool:
    """Tell whether one of the processes is to stop: all have to end with the same step."""
    together = processes()
    if together.num_processes == 1:
        return asked
    return bool(reduce(torch.tensor(float(asked), device=together.device), "sum") > 0)


def _interrupt() -> None:
    raise KeyboardInterrupt
