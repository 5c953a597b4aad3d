"""What row stacks do to a key-value cache beyond what the cache does itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from medbench.model.rows import beside

# Positions that a layer allocates beyond those it needs.
ROOM = 64


class RoomyLayer(DynamicLayer):
    """A cache layer with room behind what it holds, so that most tokens copy only themselves."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append new positions, and return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys = _appended(self.keys, key_states)
        self.values = _appended(self.values, value_states)
        return self.keys, self.values


def new_cache() -> Cache:
    """Return an empty cache of roomy layers.

    A sliding window of the model's is not heeded: it would drop keys, and with them the columns
    that probes and edits point at.
    """
    return Cache(layer_class_to_replicate=RoomyLayer)


def join_rows(cache: Cache, other: Cache) -> None:
    """Put the rows of another cache below a cache's own; the shorter of the two is left-padded."""
    for own, extra in zip(_layers(cache), _layers(other), strict=True):
        # Layer by layer, so that never more than one layer is held twice.
        own.keys = beside(own.keys, extra.keys, dim=2)
        own.values = beside(own.values, extra.values, dim=2)
        extra.keys = extra.values = None


def keep_rows(cache: Cache, rows: Tensor) -> None:
    """Keep only these rows, in this order; int64 [rows]."""
    for layer in _layers(cache):
        # Layers of a large model may lie on several cards.
        chosen = rows.to(layer.keys.device)
        layer.keys, layer.values = layer.keys[chosen], layer.values[chosen]


def move_rows(cache: Cache, rows: Tensor, start: int) -> None:
    """Give each row, from position `start` on, what another one holds there; int64 [rows].

    What stands before `start` is not touched, which is most of a cache.
    """
    for layer in _layers(cache):
        chosen = rows.to(layer.keys.device)
        for states in (layer.keys, layer.values):
            states[:, :, start:] = states[chosen, :, start:]


def keep_column(cache: Cache, length: int, columns: Tensor) -> None:
    """Keep the first `length` positions, and one of those after them for each row.

    Args:
        columns: int64 [rows], which of the positions after `length`.
    """
    for layer in _layers(cache):
        chosen = columns.to(layer.keys.device)
        layer.keys = _column_kept(layer.keys, length, chosen)
        layer.values = _column_kept(layer.values, length, chosen)


def _appended(held: Tensor | None, new: Tensor) -> Tensor:
    """Return [rows, heads, T + new, width], in place where there is room behind what is held."""
    rows, heads, count, width = new.shape
    if held is None or not held.numel():
        held = new[:, :, :0]
    length = held.shape[2]
    # What is held may be the front part of more: its strides tell of how much.
    capacity = held.stride(1) // held.stride(2) if length else 0
    if length + count > capacity:
        grown = new.new_empty(rows, heads, length + count + ROOM, width)
        grown[:, :, :length] = held
        held = grown
    shape = (rows, heads, length + count, width)
    whole = held.as_strided(shape, held.stride(), held.storage_offset())
    whole[:, :, length:] = new
    return whole


def _column_kept(states: Tensor, length: int, columns: Tensor) -> Tensor:
    everyone = torch.arange(len(columns), device=columns.device)
    states[:, :, length] = states[everyone, :, length + columns]
    return states[:, :, : length + 1]


def _layers(cache: Cache) -> list[Any]:
    return list(cache.layers)
