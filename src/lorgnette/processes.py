"""Several processes that do one piece of work together, started by `torchrun` or `accelerate launch`.

Each process of a launch runs the same command. Work is shared by number; files are written by the main process, which
the others wait for. One process alone is the same with nobody to wait for.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

PATIENCE = timedelta(days=1)
"""How long a process waits for another: shares of a benchmark end at different times. A process that dies ends the
whole launch, so nobody waits for the dead."""


def is_main() -> bool:
    """Tell whether this process is the one that writes and talks; needs no torch."""
    return int(os.environ.get("RANK", "0")) == 0


def processes() -> Any:
    """Join the other processes of the launch, once, and return accelerate's `PartialState`.

    It has `num_processes`, `process_index`, `device`, `wait_for_everyone()` and `main_process_first()`. Processes on
    CPUs talk over gloo; those with accelerators have one each.
    """
    import torch  # noqa: PLC0415  (commands that only read files should not wait for torch)
    from accelerate import PartialState  # noqa: PLC0415

    return PartialState(cpu=not torch.accelerator.is_available(), timeout=PATIENCE)
