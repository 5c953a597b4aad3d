"""Bilinear resampling of an expert's patches, also where only their inner products are known.

Resampling is linear, F' = U F, so that the inner products of what it gives are U G U^T, with G
those of F. So G is all that has to be kept, whatever the grid it will be compared on.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

Grid = tuple[int, int]


def weights(source: Grid, target: Grid, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return U, [N, n]: what each cell of the target takes of each cell of the source.

    Bilinear between the centres of cells (`align_corners=False`); rows and columns of a grid run
    row by row.
    """
    count = source[0] * source[1]
    each = torch.eye(count, dtype=dtype).view(count, 1, *source)
    spread = nn.functional.interpolate(each, size=target, mode="bilinear", align_corners=False)
    return spread.view(count, -1).T.contiguous()


def similarity(gram: Tensor, spread: Tensor | None = None) -> Tensor:
    """Return the cosine similarities, [N, N], of resampled features known by inner products.

    Args:
        gram: G, [n, n]; spread: U, or None to stay on the grid.
    """
    if spread is not None:
        gram = spread @ gram @ spread.T
    length = gram.diagonal().clamp(min=torch.finfo(gram.dtype).tiny).sqrt()
    return gram / length[:, None] / length[None, :]


def packed(gram: Tensor) -> Tensor:
    """Return the upper triangle of a symmetric [n, n], the diagonal included, row by row."""
    rows, columns = torch.triu_indices(*gram.shape)
    return gram[rows, columns]


def unpacked(triangle: Tensor, count: int) -> Tensor:
    """Return the symmetric [n, n] of a packed triangle."""
    rows, columns = torch.triu_indices(count, count)
    gram = triangle.new_empty(count, count)
    gram[rows, columns] = triangle
    gram[columns, rows] = triangle
    return gram
