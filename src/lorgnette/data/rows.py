"""Rendered samples to a row: what one forward pass sees, without padding.

A row is groups, one after another. A group is samples that begin with the same tokens up to and including their
images: its shared prefix stands once, then each sample's own continuation (a branch). Every token attends to its
group's prefix and to its own branch only, and positions go on from the prefix in every branch, so that each sample is
computed as if it were alone.

    group 1                                  group 2
    [prefix with image | branch | branch ]   [prefix with image | branch ]   ...

A supervised token is predicted at the place before it; where it is the first of its branch, that is the end of the
prefix, which then stands in `label_positions` once for every branch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch

from lorgnette.data.rendered import IGNORE_INDEX, Rendered

Pixels = Callable[[str], np.ndarray]
"""Path of an image -> uint8 array (channels, height, width), resized and cropped, not normalised."""


MOST_QUERIES = 256
"""Branches of a group are attended to in blocks of about so many tokens: one block would compute the scores of every
branch with every other only to mask them."""


@dataclass(frozen=True, slots=True)
class Block:
    """Queries that attend to keys in one call of attention.

    Attributes:
        queries: slice of the row's tokens.
        keys: slices of the row's tokens, one after another.
        mask: (queries, keys) bool, True where attention is allowed; None for plain causal attention.
    """

    queries: slice
    keys: tuple[slice, ...]
    mask: torch.Tensor | None = None

    def to(self, device: torch.device | str) -> Block:
        """Move the mask to a device."""
        return replace(self, mask=None if self.mask is None else self.mask.to(device))

    def behind(self, cached: int) -> Block:
        """Return the same among keys of which so many were there before."""
        return replace(self, keys=tuple(slice(part.start + cached, part.stop + cached) for part in self.keys))


@dataclass(frozen=True, slots=True)
class Stack:
    """Queries of G groups of about one size that attend to cached keys in one call of attention.

    Places that are left over, because groups differ, repeat a query or a key; what they give is dropped.

    Attributes:
        queries: (G, Q) indices into the row's tokens.
        keys: (G, K) indices into the cached keys.
        mask: (G, Q, K) bool, True where attention is allowed.
        kept: indices into G * Q, so that the tokens of this stack come out in the order of the row.
    """

    queries: torch.Tensor
    keys: torch.Tensor
    mask: torch.Tensor
    kept: torch.Tensor

    def to(self, device: torch.device | str) -> Stack:
        """Move all tensors to a device."""
        return Stack(*(tensor.to(device) for tensor in (self.queries, self.keys, self.mask, self.kept)))

    def behind(self, cached: int) -> Stack:
        """Return the same among keys of which so many were there before."""
        return replace(self, keys=self.keys + cached)


@dataclass(frozen=True, slots=True)
class Layout:
    """Which tokens of a row attend to which; `longest` is the most positions that one sample spans.

    The blocks cover the row's tokens in their order.
    """

    blocks: tuple[Block | Stack, ...]
    longest: int

    def behind(self, cached: int) -> Layout:
        """Return the same among keys of which so many were there before."""
        return Layout(tuple(block.behind(cached) for block in self.blocks), self.longest)

    def to(self, device: torch.device | str) -> Layout:
        """Move all blocks to a device."""
        return Layout(tuple(block.to(device) for block in self.blocks), self.longest)


@dataclass(frozen=True, slots=True)
class Group:
    """Samples of a row that share a prefix: `start` is its place in the row, branches are (index, start, stop)."""

    start: int
    prefix: int
    branches: tuple[tuple[int, int, int], ...]

    @property
    def stop(self) -> int:
        """Return the first place after the group."""
        return self.branches[-1][2]


@dataclass(frozen=True, slots=True)
class Row:
    """The tensors of one row. T tokens, L supervised tokens, U distinct images, M places of images.

    Attributes:
        ids: ids of the samples, in the order of the micro-batch.
        input_ids: (1, T).
        position_ids: (1, T), restarting in every group and branch.
        label_positions: (L) places whose logits predict a supervised token.
        labels: (L) the supervised tokens.
        pixel_values: (U, C, H, W) uint8, or None without images.
        image_order: (M) which of the U images stands at each place, in the order of the tokens.
        layout: who attends to whom.
        groups: where each sample stands.
    """

    ids: tuple[str, ...]
    input_ids: torch.Tensor
    position_ids: torch.Tensor
    label_positions: torch.Tensor
    labels: torch.Tensor
    pixel_values: torch.Tensor | None
    image_order: torch.Tensor
    layout: Layout
    groups: tuple[Group, ...]

    @property
    def last_places(self) -> torch.Tensor:
        """Return the place of every sample's last token, in the order of the micro-batch: (samples)."""
        lasts = {member: stop - 1 for group in self.groups for member, _, stop in group.branches}
        return torch.tensor([lasts[member] for member in range(len(lasts))], device=self.input_ids.device)

    # transformers and accelerate move batches with `.to(device, non_blocking=...)`
    def to(self, device: torch.device | str, **_: Any) -> Row:
        """Move all tensors to a device."""
        moved: dict[str, Any] = {
            field.name: value.to(device)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), torch.Tensor | Layout)
        }
        return replace(self, **moved)


def build_row(samples: Sequence[Rendered], pixels: Pixels, image_token_id: int, *, share_images: bool = True) -> Row:
    """Lay samples one after another; with `share_images` those about the same images share their prefix."""
    groups = _group(samples, image_token_id, share_images)
    ids: list[int] = []
    positions: list[int] = []
    label_positions: list[int] = []
    labels: list[int] = []
    placed: list[Group] = []
    for members, prefix in groups:
        start = len(ids)
        ids.extend(samples[members[0]].input_ids[:prefix])
        positions.extend(range(prefix))
        branches = []
        for member in members:
            sample = samples[member]
            first = len(ids)
            ids.extend(sample.input_ids[prefix:])
            positions.extend(range(prefix, len(sample.input_ids)))
            for place, label in enumerate(sample.labels[prefix:]):
                if label != IGNORE_INDEX:
                    # the shared prefix ends with the token that predicts the first one of every branch
                    label_positions.append(first + place - 1 if place else start + prefix - 1)
                    labels.append(label)
            branches.append((member, first, len(ids)))
        placed.append(Group(start, prefix, tuple(branches)))
    pixel_values, image_order = _images(samples, groups, pixels)
    return Row(
        ids=tuple(sample.id for sample in samples),
        input_ids=torch.tensor([ids]),
        position_ids=torch.tensor([positions]),
        label_positions=torch.tensor(label_positions, dtype=torch.long),
        labels=torch.tensor(labels, dtype=torch.long),
        pixel_values=pixel_values,
        image_order=image_order,
        layout=Layout(tuple(_blocks(placed)), max(positions) + 1),
        groups=tuple(placed),
    )


def _group(samples: Sequence[Rendered], image_token_id: int, share_images: bool) -> list[tuple[list[int], int]]:
    """Bring samples about the same images together: [(indices, length of the shared prefix), ...]."""
    by_images: dict[object, list[int]] = {}
    for index, sample in enumerate(samples):
        key = sample.images if share_images and sample.images else index
        by_images.setdefault(key, []).append(index)
    groups = []
    for members in by_images.values():
        prefix = _shared_prefix([samples[member] for member in members])
        covered = samples[members[0]].input_ids[:prefix].count(image_token_id)
        if len(members) > 1 and covered == samples[members[0]].input_ids.count(image_token_id):
            groups.append((members, prefix))
        else:  # the images come after the questions: nothing worth sharing
            groups.extend(([member], 0) for member in members)
    return groups


def _shared_prefix(samples: Sequence[Rendered]) -> int:
    if len(samples) == 1:
        return 0
    length = len(os.path.commonprefix([sample.input_ids for sample in samples]))
    for sample in samples:
        # a supervised token is never shared, its neighbours have targets of their own; a branch is never empty
        last = len(sample.input_ids) - 1
        length = min(length, next((i for i, label in enumerate(sample.labels) if label != IGNORE_INDEX), last))
    return length


def _blocks(groups: Sequence[Group]) -> list[Block]:
    blocks = []
    for group in groups:
        if group.prefix == 0:
            whole = slice(group.start, group.stop)
            blocks.append(Block(whole, (whole,)))
            continue
        prefix = slice(group.start, group.start + group.prefix)
        blocks.append(Block(prefix, (prefix,)))
        for branches in _runs(group.branches):
            first, last = branches[0][0], branches[-1][1]
            mask = torch.zeros(last - first, group.prefix + last - first, dtype=torch.bool)
            mask[:, : group.prefix] = True
            for start, stop in branches:
                own = torch.ones(stop - start, stop - start, dtype=torch.bool).tril()
                mask[start - first : stop - first, group.prefix + start - first : group.prefix + stop - first] = own
            own_keys = slice(first, last)
            adjacent = first == prefix.stop
            keys = (slice(prefix.start, last),) if adjacent else (prefix, own_keys)
            blocks.append(Block(own_keys, keys, mask))
    return blocks


def _runs(branches: Sequence[tuple[int, int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Part a group's branches into runs of at most `MOST_QUERIES` tokens, or of one branch: [(start, stop), ...]."""
    run: list[tuple[int, int]] = []
    for _, start, stop in branches:
        if run and stop - run[0][0] > MOST_QUERIES:
            yield run
            run = []
        run.append((start, stop))
    yield run


def _images(
    samples: Sequence[Rendered], groups: Sequence[tuple[list[int], int]], pixels: Pixels
) -> tuple[torch.Tensor | None, torch.Tensor]:
    order: list[int] = []
    places: dict[str, int] = {}
    for members, prefix in groups:
        for member in members[:1] if prefix else members:
            order.extend(places.setdefault(path, len(places)) for path in samples[member].images)
    if not places:
        return None, torch.zeros(0, dtype=torch.long)
    return torch.from_numpy(np.stack([pixels(path) for path in places])), torch.tensor(order)
