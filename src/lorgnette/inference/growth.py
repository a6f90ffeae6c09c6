"""Who attends to whom while answers grow: one new token a question a step, behind everything that is cached.

A new token attends to its group's prefix, its own question and its own answer. Groups of about one size stand in one
stack, so that a step costs a few calls of attention however many images there are. A question that has its answer is
asked no more; when many of a stack are gone, it is stacked anew without them. Further questions may join between two
steps.

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
    """The questions that are still asked, and what each may see.

    Attributes:
        questions: (N) the questions still asked, in the order of their tokens, by the numbers that they got when they
            joined.
    """

    def __init__(self, device: torch.device | str) -> None:
        nothing = torch.empty(0, dtype=torch.long, device=device)
        self._owner, self._group, self._group_of, self.questions = nothing, nothing, nothing, nothing
        self._stacks: list[_Open] = []

    def join(self, row: Row) -> Layout:
        """Append a row of questions to those that are asked already, and lay out its tokens among all keys.

        Args:
            row: on the device of the others; its keys come after those that are cached.
        """
        device, cached, asked = self.questions.device, len(self._owner), len(self._group_of)
        groups = 1 + int(self._group.max()) if cached else 0
        owner = torch.full((row.input_ids.shape[1],), PREFIX)
        group = torch.empty_like(owner)
        group_of = torch.empty(len(row.ids), dtype=torch.long)
        for number, placed in enumerate(row.groups, start=groups):
            group[placed.start : placed.stop] = number
            for question, start, stop in placed.branches:
                owner[start:stop] = asked + question
                group_of[question] = number
        self._owner = torch.cat([self._owner, owner.to(device)])
        self._group = torch.cat([self._group, group.to(device)])
        self._group_of = torch.cat([self._group_of, group_of.to(device)])
        joined = torch.arange(asked, asked + len(row.ids), device=device)
        self._stack_all(torch.cat([self.questions, joined]))
        return row.layout.behind(cached)

    def forget(self) -> torch.Tensor:
        """Forget keys that no question still asked can see, and number the questions anew, from 0 in their order.

        Returns:
            the places of the keys that stay, ascending.
        """
        seen = self._seen(self.questions)
        number = torch.full_like(self._group_of, PREFIX)
        number[self.questions] = torch.arange(len(self.questions), device=number.device)
        owner = self._owner[seen]
        self._owner = torch.where(owner == PREFIX, PREFIX, number[owner])
        self._group = self._group[seen].unique(return_inverse=True)[1]  # type: ignore[no-untyped-call]
        self._group_of = self._group_of[self.questions].unique(return_inverse=True)[1]  # type: ignore[no-untyped-call]
        self._stack_all(torch.arange(len(self.questions), device=number.device))
        return seen

    @property
    def unseen(self) -> float:
        """Return the share of cached keys that no question still asked can see."""
        return 1 - len(self._seen(self.questions)) / max(1, len(self._owner))

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

    def _seen(self, questions: torch.Tensor) -> torch.Tensor:
        """Find the places of the keys that any of these questions sees, ascending."""
        asked = torch.zeros(len(self._group_of), dtype=torch.bool, device=questions.device)
        asked[questions] = True
        living = torch.zeros(int(self._group.max()) + 1, dtype=torch.bool, device=questions.device)
        living[self._group_of[questions]] = True
        own = (self._owner != PREFIX) & asked[self._owner.clamp(min=0)]
        return (((self._owner == PREFIX) & living[self._group]) | own).nonzero().flatten()

    def _stack_all(self, questions: torch.Tensor) -> None:
        """Stack all that are asked, groups of about one size together."""
        numbers, group = self._group_of[questions].unique(return_inverse=True)  # type: ignore[no-untyped-call]
        keys = self._group[self._seen(questions)].bincount(minlength=int(numbers[-1]) + 1)[numbers]
        sizes = list(zip(group.bincount().tolist(), keys.tolist(), strict=True))
        members = [torch.cat([questions[group == number] for number in stack]) for stack in _alike(sizes)]
        self._stacks = [self._stack(together) for together in members]
        self.questions = torch.cat(members)

    def _stack(self, questions: torch.Tensor) -> _Open:
        """Stack questions, those of a group next to each other, with the keys that any of them may see."""
        device = questions.device
        numbers, rank = self._group_of[questions].unique_consecutive(return_inverse=True)  # type: ignore[no-untyped-call]
        rank_of_group = torch.full((int(self._group.max()) + 1,), -1, device=device)
        rank_of_group[numbers] = torch.arange(len(numbers), device=device)
        key_rank = rank_of_group[self._group]
        seen = self._seen(questions)
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
