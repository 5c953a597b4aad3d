"""Regions on the patch grid: carried there the same way as the image, or as published."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from medbench.model.geometry import Geometry
from medbench.model.llava import Backbone
from medbench.provider import Region
from medbench.task import Sample

# The published loader brings every mask to this square before it goes to the grid.
_PUBLISHED_SIDE = 224


def selected(
    regions: Sequence[Region], *, most: int, threshold: float | None = None
) -> list[Region]:
    """Return the regions a loss is to use: the first K, or those at or above a threshold (Eq. 3).

    Args:
        regions: the likeliest first.
        most: K; threshold: a score that a region must reach, None for none. Regions that were
            compared with nothing have no score and pass it.
    """
    fitting = [
        one for one in regions if threshold is None or one.score is None or one.score >= threshold
    ]
    return fitting[:most]


def on_tokens(
    regions: Callable[[Sample], Sequence[Region]],
    backbone: Backbone,
    *,
    fit: Literal["model", "squash"] = "model",
    resize: Literal["nearest", "area"] = "nearest",
    drop_empty: bool = True,
) -> Callable[[Sample], Tensor]:
    """Return what gives a sample's regions on the visual tokens, [K, N]; remembered by id.

    Args:
        regions: what a sample's regions are; the others as in `regions_on_grid`.
    """
    rows, columns = backbone.geometry.grid
    # A class token among the visual tokens stands first and lies in no region.
    before = backbone.image_tokens - rows * columns
    known: dict[str, Tensor] = {}

    def target(sample: Sample) -> Tensor:
        if sample.id not in known:
            grid = regions_on_grid(
                regions(sample), backbone.geometry, fit=fit, resize=resize, drop_empty=drop_empty
            )
            known[sample.id] = torch.nn.functional.pad(grid, (before, 0))
        return known[sample.id]

    return target


def regions_on_grid(
    regions: Sequence[Region],
    geometry: Geometry,
    *,
    fit: Literal["model", "squash"] = "model",
    resize: Literal["nearest", "area"] = "nearest",
    drop_empty: bool = True,
) -> Tensor:
    """Return the regions on the patch grid, float32 [K, N], row by row.

    Args:
        fit: "model" places masks as the model places the image; "squash" ignores the aspect, as
            the published code does even where the model crops or pads: nearest sampling to a
            square of 224 pixels, and from there to the grid.
        resize: as in `Geometry.mask_to_grid`.
        drop_empty: leave out masks that vanish on the grid; kept, they cost a constant 1.
    """
    if fit == "squash":
        rows = [_squashed(one.mask, geometry.grid, resize) for one in regions]
    else:
        rows = [geometry.mask_to_grid(_unsquashed(one), resize) for one in regions]
    flat = [row.ravel() for row in rows if row.any() or not drop_empty]
    grid = geometry.grid[0] * geometry.grid[1]
    return torch.from_numpy(np.stack(flat)) if flat else torch.zeros(0, grid)


def _squashed(
    mask: np.ndarray, grid: tuple[int, int], resize: Literal["nearest", "area"]
) -> np.ndarray:
    rows, columns = grid
    side = (_PUBLISHED_SIDE, _PUBLISHED_SIDE)
    square = _image(mask).resize(side, Image.Resampling.NEAREST)
    if resize == "area":
        covered = Image.fromarray(np.asarray(square, np.float32) / 255)
        return np.asarray(covered.resize((columns, rows), Image.Resampling.BOX))
    return np.asarray(square.resize((columns, rows), Image.Resampling.NEAREST), np.float32) / 255


def _unsquashed(region: Region) -> np.ndarray:
    """Return a region's mask with the image's own aspect."""
    height, width = region.size
    if region.mask.shape[0] * width == region.mask.shape[1] * height:
        return region.mask
    image = _image(region.mask).resize((width, height), Image.Resampling.NEAREST)
    return np.asarray(image) > 127


def _image(mask: np.ndarray) -> Image.Image:
    return Image.fromarray(np.asarray(mask, bool).astype(np.uint8) * 255)
