"""What belongs together, directly or through others: samples that share an image, images that look alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import pairwise


class Groups:
    """Sets of things that were found to belong together (union-find)."""

    def __init__(self) -> None:
        self._parents: dict[Hashable, Hashable] = {}

    def find(self, thing: Hashable) -> Hashable:
        """Return the thing that stands for a thing's group."""
        root = thing
        while (parent := self._parents.setdefault(root, root)) != root:
            root = parent
        while thing != root:  # so that the next search is one step
            self._parents[thing], thing = root, self._parents[thing]
        return root

    def join(self, things: Sequence[Hashable]) -> None:
        """Put things, and all that belongs to each of them, into one group."""
        for thing in things[1:]:
            self._parents[self.find(thing)] = self.find(things[0])


def alike(likenesses: Mapping[str, int], distance: int) -> Iterable[tuple[str, str]]:
    """Yield pairs of images whose likenesses differ in at most `distance` of 64 bits; enough of them to link all such.

    Two numbers that differ in at most d bits agree in at least one of d + 1 slices of their bits, so that only images
    that share a slice are compared.
    """
    same: dict[int, str] = {}
    for name, bits in sorted(likenesses.items()):
        if bits in same:
            yield same[bits], name
        same.setdefault(bits, name)
    edges = [64 * number // (distance + 1) for number in range(distance + 2)]
    for low, high in pairwise(edges):
        slices: dict[int, list[int]] = defaultdict(list)
        for bits in same:
            slices[(bits >> low) & ((1 << (high - low)) - 1)].append(bits)
        for members in slices.values():
            for number, first in enumerate(members):
                for second in members[number + 1 :]:
                    if (first ^ second).bit_count() <= distance:
                        yield same[first], same[second]
