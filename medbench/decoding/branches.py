"""Branches in the row stack: the same samples once per branch, branch after branch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from medbench.decoding.stack import RowStack
from medbench.method import Decoder


def combined(decoder: Decoder, stack: RowStack, names: Sequence[str], step: int) -> Tensor:
    """Return the decoder's scores, [rows of one branch, vocabulary], from the stack's logits."""
    parts = stack.logits.chunk(len(names))
    return decoder.combine(dict(zip(names, parts, strict=True)), step)


def in_every_branch(rows: Tensor, per_branch: int, branches: int) -> Tensor:
    """Return the stack's indices of some rows of a branch, in every branch."""
    offsets = torch.arange(branches, device=rows.device)[:, None] * per_branch
    return (offsets + rows).flatten()
