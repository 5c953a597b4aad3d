"""When the images are too few for the intervals over them to be as wide as they should."""

from __future__ import annotations

from collections.abc import Iterable

# Below it, intervals held the truth in fewer than 94 of 100 simulations; docs/statistics.md.
FEW = 50


def warnings(images: Iterable[int]) -> list[str]:
    """Return what to say beside intervals, by the numbers of images that they are over."""
    if all(count >= FEW for count in images):
        return []
    return [f"Fewer than {FEW} images: such 95 % intervals hold the truth in about 9 of 10 cases."]
