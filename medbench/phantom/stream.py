"""Random choices from an integer seed, cheap enough to lay out thousands of scenes a second."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")
_BLOCK = 128  # a single draw from a Generator costs as much as a block of this size


class Stream:
    """Uniform numbers of a numpy Generator, drawn in blocks and handed out one by one.

    Args:
        seeds: integers that together are the seed; (1, 2) and (2, 1) are different streams.
    """

    def __init__(self, *seeds: int) -> None:
        self._generator = np.random.default_rng(seeds)
        self._left: list[float] = []

    def random(self) -> float:
        """Return the next number in [0, 1)."""
        if not self._left:
            self._left = self._generator.random(_BLOCK).tolist()
        return self._left.pop()

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return self.random() < probability

    def between(self, bounds: tuple[float, float]) -> float:
        """Return a number between two bounds."""
        low, high = bounds
        return low + (high - low) * self.random()

    def below(self, count: int) -> int:
        """Return an integer from 0 to count - 1."""
        return int(self.random() * count)

    def choose(self, items: Sequence[Item]) -> Item:
        """Return one item, all equally likely."""
        return items[self.below(len(items))]

    def weighted(self, items: Sequence[Item], weights: Sequence[float]) -> Item:
        """Return one item with probability proportional to its weight."""
        left = self.random() * sum(weights)
        for item, weight in zip(items, weights, strict=True):
            left -= weight
            if left < 0:
                return item
        return items[-1]

    def several(self, items: Sequence[Item], count: int) -> list[Item]:
        """Return `count` different items in random order."""
        pool = list(items)
        return [pool.pop(self.below(len(pool))) for _ in range(count)]
