"""Who attends to whom while answers grow: one new token a question a step, behind everything that is cached.

A new token attends to its group's prefix, its own question and its own answer. Groups of about one size stand in one
stack, so that a step costs a few calls of attention however many images there are. A question that has its answer is
asked no more; when many of a stack are gone, it is stacked anew without them.

G groups of a stack, Q questions of its largest, K cached keys of its longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from lorgnette.data.rows import Layout, Row, Stack

PREFIX = -1
"""Owner of a cached key that every question of its group sees."""
ALIKE = 0.7
"""Groups stand in one stack if none has fewer questions, or fewer keys, than this share of the most."""
FULL = 0.75
"""A stack of which a smaller share of questions is still asked is stacked anew."""


@dataclass(frozen=True)
class _Open:
    """A stack between two steps: keys (G, K), mask (G, Q, K), and which of its G * Q places are still asked."""

    keys: torch.Tensor
    mask: torch.Tensor
    asked: torch.Tensor
    stacked: int


class Growth:
    """The questions of a row that are still asked, and what each may see.

    Attributes:
        questions: (N) the questions still asked, by their index in the micro-batch, in the order of their tokens.
    """

    def __init__(self, row: Row) -> None:
        device = row.input_ids.device
        owner = torch.full((row.input_ids.shape[1],), PREFIX)
        group = torch.empty_like(owner)
        group_of = torch.empty(len(row.ids), dtype=torch.long)
        for number, placed in enumerate(row.groups):
            group[placed.start : placed.stop] = number
            for question, start, stop in placed.branches:
                owner[start:stop] = question
                group_of[question] = number
        self._owner, self._group, self._group_of = owner.to(device), group.to(device), group_of.to(device)
        stacks = _alike([(len(placed.branches), placed.stop - placed.start) for placed in row.groups])
        members = [[question for n in stack for question, _, _ in row.groups[n].branches] for stack in stacks]
        self._stacks = [self._stack(torch.tensor(questions, device=device)) for questions in members]
        self.questions = torch.tensor([q for questions in members for q in questions], device=device)

    def keep(self, places: torch.Tensor) -> None:
        """Ask only the questions at these places of `questions` from now on."""
        kept = torch.zeros(len(self.questions), dtype=torch.bool, device=places.device)
        kept[places] = True
        stacks = []
        first = 0
        for stack in self._stacks:
            here = kept[first : first + len(stack.asked)]
            questions = self.questions[first : first + len(stack.asked)][here]
            first += len(stack.asked)
            if len(questions) >= FULL * stack.stacked:
                stacks.append(replace(stack, asked=stack.asked[here]))
            elif len(questions):
                stacks.append(self._stack(questions))
        self._stacks = stacks
        self.questions = self.questions[kept]

    def step(self, longest: int) -> Layout:
        """Append a key for every question still asked and lay out the tokens that belong to them.

        Args:
            longest: most positions that a sample spans with its new token.
        """
        cached = len(self._owner)
        self._owner = torch.cat([self._owner, self.questions])
        self._group = torch.cat([self._group, self._group_of[self.questions]])
        grown, blocks = [], []
        first = 0
        for stack in self._stacks:
            groups, asking, _ = stack.mask.shape
            tokens = torch.arange(first, first + len(stack.asked), device=stack.asked.device)
            first += len(stack.asked)
            queries = torch.zeros(groups * asking, dtype=torch.long, device=tokens.device)
            queries[stack.asked] = tokens
            queries = queries.view(groups, asking)
            # a place whose question is gone points to some other token; what it gives is not kept
            keys = torch.cat([stack.keys, cached + queries], dim=1)
            own = torch.eye(asking, dtype=torch.bool, device=tokens.device).expand(groups, -1, -1)
            mask = torch.cat([stack.mask, own], dim=2)
            grown.append(replace(stack, keys=keys, mask=mask))
            blocks.append(Stack(queries, keys, mask, stack.asked))
        self._stacks = grown
        return Layout(tuple(blocks), longest)

    def _stack(self, questions: torch.Tensor) -> _Open:
        """Stack questions, those of a group next to each other, with the keys that any of them may see."""
        device = questions.device
        numbers, rank = self._group_of[questions].unique_consecutive(return_inverse=True)  # type: ignore[no-untyped-call]
        rank_of_group = torch.full((int(self._group.max()) + 1,), -1, device=device)
        rank_of_group[numbers] = torch.arange(len(numbers), device=device)
        asked = torch.zeros(len(self._group_of), dtype=torch.bool, device=device)
        asked[questions] = True
        key_rank = rank_of_group[self._group]
        seen = ((key_rank >= 0) & ((self._owner == PREFIX) | asked[self._owner])).nonzero().flatten()
        seen = seen[key_rank[seen].argsort(stable=True)]
        keys, key_places = _table(key_rank[seen], seen)
        stacked, places = _table(rank, questions)
        owner = torch.full(keys.shape, PREFIX - 1, device=device)  # of a place left over: nobody
        owner.view(-1)[key_places] = self._owner[seen]
        mask = (owner[:, None] == PREFIX) | (owner[:, None] == stacked[:, :, None])
        return _Open(keys, mask, places, len(questions))


def _table(rows: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Put values into a table, row by row: (table, flat place of each value).

    Args:
        rows: (n) the row of each value, ascending from 0 without gaps.

    Places that are left over hold the first value of their row.
    """
    counts = torch.bincount(rows)
    starts = counts.cumsum(0) - counts
    width = int(counts.max())
    places = rows * width + torch.arange(len(rows), device=rows.device) - starts[rows]
    table = values[starts][:, None].repeat(1, width)
    table.view(-1)[places] = values
    return table, places


def _alike(sizes: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Bring groups of about one size together, the largest first: lists of indices into `sizes`.

    Args:
        sizes: (questions, keys) of each group.
    """
    stacks: list[list[int]] = []
    fewest = most = (0, 0)
    for number in sorted(range(len(sizes)), key=lambda n: sizes[n], reverse=True):
        size = sizes[number]
        low = min(fewest[0], size[0]), min(fewest[1], size[1])
        high = max(most[0], size[0]), max(most[1], size[1])
        if stacks and low[0] >= ALIKE * high[0] and low[1] >= ALIKE * high[1]:
            stacks[-1].append(number)
            fewest, most = low, high
        else:
            stacks.append([number])
            fewest = most = size
    return stacks
