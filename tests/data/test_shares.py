"""Shares of several processes against the batches of one."""

from __future__ import annotations

import pytest
from torch.utils.data import BatchSampler, SequentialSampler

from lorgnette.data.rendered import Rendered
from lorgnette.data.shares import ShareDataset, ShareSampler


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 7, 12, 25])
@pytest.mark.parametrize("drop_last", [True, False])
def test_the_shares_of_a_step_are_one_batch_and_no_sample_is_given_twice(
    processes: int, count: int, drop_last: bool
) -> None:
    order = SequentialSampler(range(count))
    shares = [ShareSampler(order, 2, drop_last, process, processes) for process in range(processes)]
    steps = list(zip(*shares, strict=True))
    assert [len(share) for share in shares] == [len(steps)] * processes
    plain = list(BatchSampler(order, 2 * processes, drop_last))
    assert [[number for share in step for number in share if number >= 0] for step in steps] == plain
    for step in steps:
        own = [sum(number >= 0 for number in share) for share in step]
        assert max(own) - min(own) <= 1
        assert all(len(share) == 1 for share in step if share[0] < 0)


def test_a_sample_for_a_process_without_a_share_has_nothing_supervised() -> None:
    samples = [Rendered(str(n), (), (5, 6, 7), (-100, 6, 7)) for n in range(3)]
    shared = ShareDataset(samples, len(samples))
    assert len(shared) == 3
    assert shared[1] is samples[1]
    assert (shared[~1].id, shared[~1].input_ids, shared[~1].supervised) == ("1", (5, 6, 7), 0)
