"""What row stacks do to a key-value cache beyond what the cache does itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from medbench.model.rows import beside


def join_rows(cache: DynamicCache, other: DynamicCache) -> None:
    """Put the rows of another cache below a cache's own; the shorter of the two is left-padded."""
    for own, extra in zip(_layers(cache), _layers(other), strict=True):
        # Layer by layer, so that never more than one layer is held twice.
        own.keys = beside(own.keys, extra.keys, dim=2)
        own.values = beside(own.values, extra.values, dim=2)
        extra.keys = extra.values = None


def keep_column(cache: DynamicCache, length: int, columns: Tensor) -> None:
    """Keep the first `length` positions, and one of those after them for each row.

    Args:
        columns: int64 [rows], which of the positions after `length`.
    """
    for layer in _layers(cache):
        layer.keys = _column_kept(layer.keys, length, columns)
        layer.values = _column_kept(layer.values, length, columns)


def _column_kept(states: Tensor, length: int, columns: Tensor) -> Tensor:
    index = (length + columns)[:, None, None, None].expand(-1, states.shape[1], 1, states.shape[3])
    return torch.cat([states[:, :, :length], states.gather(2, index)], dim=2)


def _layers(cache: DynamicCache) -> list[Any]:
    return list(cache.layers)
