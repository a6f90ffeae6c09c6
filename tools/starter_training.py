"""The one training loop that both starter models share."""

import time
from collections.abc import Callable

import torch
from torch import nn

REPORT_EVERY = 50


def minimise(
    name: str,
    loss_of_next_batch: Callable[[], torch.Tensor],
    parameters: list[nn.Parameter],
    steps: int,
    lr: float,
) -> None:
    """Train `parameters` for `steps` steps with AdamW, one learning-rate cycle that peaks at `lr`."""
    optimizer = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.98), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.08)
    began = time.time()
    for step in range(1, steps + 1):
        loss = loss_of_next_batch()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if step % REPORT_EVERY == 0 or step == steps:
            seconds = time.time() - began
            print(f"{name}: step {step}/{steps}, loss {loss.item():.3f}, {seconds:.0f} s", flush=True)
