"""Supervision: where the regions come from that attention is pulled towards.

A provider is a function from a sample to masks in the image's own pixels. The backbone's geometry
then carries them to the patch grid, the same way as the image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from medbench.model.geometry import Geometry
from medbench.task import Sample

Provider = Callable[[Sample], list[np.ndarray]]
Labels = Literal["roi", "wrong"]


def provider(labels: Labels) -> Provider:
    """Return the provider of that name.

    "roi" gives the data set's own region, "wrong" the same region moved away from where it is:
    the control that tells whether the region's place matters.
    """
    return {"roi": roi, "wrong": wrong}[labels]


def roi(sample: Sample) -> list[np.ndarray]:
    """Return the ground-truth region, or nothing where the data set has none."""
    return [] if sample.roi is None else [sample.roi()]


def wrong(sample: Sample) -> list[np.ndarray]:
    """Return the ground-truth region rolled by three eighths of the image, both ways."""
    shift = [
        np.roll(mask, (mask.shape[0] * 3 // 8, mask.shape[1] * 3 // 8), axis=(0, 1))
        for mask in roi(sample)
    ]
    return shift


def segments_on_grid(
    masks: list[np.ndarray],
    geometry: Geometry,
    *,
    fit: Literal["model", "squash"] = "model",
    resize: Literal["nearest", "area"] = "nearest",
    drop_empty: bool = True,
) -> Tensor:
    """Return the masks on the patch grid, float32 [K, N], row by row.

    Args:
        fit: "model" places masks as the model places the image; "squash" ignores the aspect, as
            the published code does even where the model crops or pads.
        resize: as in `Geometry.mask_to_grid`.
        drop_empty: leave out masks that vanish on the grid; kept, they cost a constant 1.
    """
    placed = replace(geometry, fit="squash") if fit == "squash" else geometry
    rows = [placed.mask_to_grid(mask, resize).ravel() for mask in masks]
    rows = [row for row in rows if row.any() or not drop_empty]
    grid = geometry.grid[0] * geometry.grid[1]
    return torch.from_numpy(np.stack(rows)) if rows else torch.zeros(0, grid)
