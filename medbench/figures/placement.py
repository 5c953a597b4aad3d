"""Where a backbone's patch grid lies on an image, found without the backbone.

A run's lines hold each region on the grid, put there as the image was. Laid on the grid in each of
the three ways, the region itself tells which way it was; so pictures can be drawn where neither
weights nor configs are. A square image lies the same in all three.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np

from medbench.errors import UserError

Fit = Literal["crop", "pad", "squash"]
FITS: tuple[Fit, ...] = ("crop", "pad", "squash")
OF_SQUARES: Fit = "squash"  # any would do: where squares lie is the same in all ways
# Sides of patches in pixels, CLIP's first: they move a patch's centre by a fraction of a pixel.
_PATCHES = (14, 16, 32, 8, 4)

Extent = tuple[float, float, float, float]


def extent(fit: Fit, width: int, height: int) -> Extent:
    """Return where the grid's left, right, bottom and top lie, in the image's pixels from its top.

    What a crop cuts off lies outside the grid; with padding the grid reaches beyond the image.
    """
    if fit == "squash":
        return 0.0, float(width), float(height), 0.0
    side = min(width, height) if fit == "crop" else max(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, left + side, top + side, top


def only(regions: Iterable[tuple[np.ndarray, np.ndarray]], backbone: str) -> Fit:
    """Return the one way in which all regions may have reached the grid.

    Args:
        regions: as for `found`; backbone: what to call it.

    Raises:
        UserError: they do not tell.
    """
    possible = found(regions)
    if len(possible) == 1:
        return possible.pop()
    told = f"its regions fit {' and '.join(sorted(possible))}" if possible else "no way fits"
    raise UserError(
        f"cannot tell where the patches of {backbone} lie on its images",
        f"Laid on the grid, {told}.",
        "Say how the backbone places images: --fit pad, crop or squash.",
    )


def found(regions: Iterable[tuple[np.ndarray, np.ndarray]]) -> set[Fit]:
    """Return the ways in which all regions may have reached the grid.

    Args:
        regions: pairs of a mask [height, width] over the image, and the same on the grid.
    """
    # Square images tell nothing.
    pairs = [(mask, grid) for mask, grid in regions if mask.shape[0] != mask.shape[1]]
    from medbench.model.geometry import Geometry

    black = (0.0, 0.0, 0.0)
    possible: set[Fit] = set()
    for fit in FITS:
        for patch in _PATCHES:
            if all(
                np.array_equal(
                    Geometry(patch * len(grid), patch, fit, black, black).mask_to_grid(mask) > 0,
                    grid,
                )
                for mask, grid in pairs
            ):
                possible.add(fit)
    return possible
