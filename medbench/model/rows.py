"""Rows of a batch: left padding and the masks that say what each position is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class RowMasks:
    """What stands where in a left-padded batch; each bool [rows, width].

    Attributes:
        filled: everything but padding.
        visual: image positions.
        question: the user's own words.
        prompt: filled positions up to the first answer token; all filled ones while decoding.
    """

    filled: Tensor
    visual: Tensor
    question: Tensor
    prompt: Tensor


class RowState(Protocol):
    """A part of an adapter that must follow the rows being decoded."""

    def begin(self, masks: RowMasks, *, joins: bool = False) -> None:
        """Take the masks of new rows, whose whole prompts come in the next forward pass.

        With `joins` the rows there are stay, and the new ones will stand below them.
        """
        ...

    def settle(self) -> None:
        """Hear that the prompts are through: what follows are new tokens of all rows."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Keep only these rows, in this order; int64 [kept]."""
        ...


def left_padded(rows: Sequence[Tensor], width: int | None = None) -> Tensor:
    """Stack [T_i, ...] tensors with zeros (or False) in front, to [rows, width, ...]."""
    width = max(len(row) for row in rows) if width is None else width
    padded = rows[0].new_zeros((len(rows), width, *rows[0].shape[1:]))
    for index, row in enumerate(rows):
        padded[index, width - len(row) :] = row
    return padded


def beside(first: Tensor, second: Tensor, *, dim: int) -> Tensor:
    """Put the rows of the second tensor below those of the first.

    Where they differ in length along `dim`, the shorter one gets zeros (or False) in front.
    """
    width = max(first.shape[dim], second.shape[dim])
    return torch.cat([_in_front(first, width, dim), _in_front(second, width, dim)])


def positions(filled: Tensor) -> Tensor:
    """Return position ids, [rows, width], that start at 0 where each row does."""
    return (filled.long().cumsum(1) - 1).clamp(min=0)


def where(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the true positions of each row, [rows, N], and which of them are real, bool.

    N is the largest count of any row; shorter rows are filled up with position 0.
    """
    counts = mask.sum(1)
    widest = int(counts.max()) if len(counts) else 0
    order = mask.long().sort(dim=1, descending=True, stable=True).indices[:, :widest]
    real = torch.arange(widest, device=mask.device) < counts[:, None]
    return order * real, real


def _in_front(values: Tensor, width: int, dim: int) -> Tensor:
    missing = width - values.shape[dim]
    if not missing:
        return values
    shape = list(values.shape)
    shape[dim] = missing
    return torch.cat([values.new_zeros(shape), values], dim=dim)
