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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch

from lorgnette.data.rendering import IGNORE_INDEX, Rendered

Pixels = Callable[[str], np.ndarray]
"""Path of an image -> uint8 array (channels, height, width), resized and cropped, not normalised."""


@dataclass(frozen=True, slots=True)
class Block:
    """Queries that attend to keys in one call of attention.

    Attributes:
        queries: slice of the row's tokens.
        keys: slice of the row's tokens, or for cached keys a 1-D index tensor.
        mask: (queries, keys) bool, True where attention is allowed; None for plain causal attention.
    """

    queries: slice
    keys: slice | torch.Tensor
    mask: torch.Tensor | None = None

    def to(self, device: torch.device | str) -> Block:
        """Move index and mask tensors to a device."""
        keys = self.keys if isinstance(self.keys, slice) else self.keys.to(device)
        return replace(self, keys=keys, mask=None if self.mask is None else self.mask.to(device))


@dataclass(frozen=True, slots=True)
class Layout:
    """Which tokens of a row attend to which; `longest` is the most positions that one sample spans."""

    blocks: tuple[Block, ...]
    longest: int

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
            blocks.append(Block(slice(group.start, group.stop), slice(group.start, group.stop)))
            continue
        first = group.start + group.prefix
        blocks.append(Block(slice(group.start, first), slice(group.start, first)))
        mask = torch.zeros(group.stop - first, group.stop - group.start, dtype=torch.bool)
        mask[:, : group.prefix] = True
        for _, start, stop in group.branches:
            own = torch.ones(stop - start, stop - start, dtype=torch.bool).tril()
            mask[start - first : stop - first, start - group.start : stop - group.start] = own
        blocks.append(Block(slice(first, group.stop), slice(group.start, group.stop), mask))
    return blocks


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
