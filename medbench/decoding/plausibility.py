"""The adaptive plausibility constraint that the contrastive decoders share."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def plausible(scores: Tensor, main: Tensor, beta: float | None) -> Tensor:
    """Bar the tokens that the main branch holds to be far less likely than its best one.

    Keeps y where main[y] >= max(main) + ln(beta) (Li et al. 2023, Eq. 2); equality keeps.

    Args:
        scores, main: float32 [rows, vocabulary]; logits or log-probabilities alike.
        beta: 0 <= beta <= 1; 0 and None keep everything.
    """
    if not beta:
        return scores
    floor = main.amax(-1, keepdim=True) + math.log(beta)
    return scores.masked_fill(main < floor, -torch.inf)
