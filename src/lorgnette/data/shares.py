"""The samples of one process of several: together the processes see the batches of a single one, no sample twice.

Every process must take part in every step. One that has no share of a batch, because fewer samples than processes are
left over, gets a sample with nothing supervised: it adds nothing to loss or gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from torch.utils.data import BatchSampler, Dataset, Sampler

from lorgnette.data.rendered import IGNORE_INDEX, Rendered


class ShareSampler(BatchSampler):
    """Cut batches of `batch_size * processes` samples into a share a process, as even as it goes.

    Gives numbers for a `ShareDataset`: `~number` where there is no share.
    """

    def __init__(self, sampler: Sampler[int], batch_size: int, drop_last: bool, process: int, processes: int) -> None:
        super().__init__(sampler, batch_size, drop_last)
        self.together = BatchSampler(sampler, batch_size * processes, drop_last)
        self.process = process
        self.processes = processes

    def __len__(self) -> int:
        return len(self.together)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.together:
            share = np.array_split(batch, self.processes)[self.process].tolist()
            yield share or [~batch[0]]


class ShareDataset(Dataset[Rendered]):
    """Samples by number; `~number` is the same sample with nothing supervised."""

    def __init__(self, samples: Dataset[Rendered], count: int) -> None:
        self.samples = samples
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Rendered:
        if index >= 0:
            return self.samples[index]
        sample = self.samples[~index]
        return replace(sample, labels=(IGNORE_INDEX,) * len(sample.labels))
