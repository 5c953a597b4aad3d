"""The visual attention alignment loss of A3Tune: heads, maps, and the energy over segments.

Shapes: samples S, layers L, heads H, query rows Q, visual tokens N, segments K. Attention comes
from the probe: probabilities normalised over all keys, at the visual columns only.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

# The published code's, added to both sums that normalise.
EPSILON = 1e-8
TINY = torch.finfo(torch.float32).tiny


def visual_ratio(attention: Tensor, valid: Tensor) -> Tensor:
    """Return r_lh, the share of a head's attention that falls on the image (Eq. 8), [S, L, H].

    Every row sums to 1 over all keys, so the ratio is the mean mass on the visual columns.

    Args:
        attention: [S, L, H, Q, N]; valid: bool [S, Q], which query rows are real.
    """
    weight = valid.to(attention.dtype)
    weight = weight / weight.sum(1, keepdim=True).clamp(min=1)
    return torch.einsum("slhqn,sq->slh", attention, weight)


def top_heads(ratio: Tensor, count: int) -> Tensor:
    """Return which heads are among the R with the highest ratio, over all layers: bool [S, L, H].

    The choice carries no gradient. A model with fewer heads keeps them all.
    """
    flat = ratio.detach().flatten(1)
    chosen = flat.topk(min(count, flat.shape[1]), dim=1).indices
    return torch.zeros_like(flat, dtype=torch.bool).scatter(1, chosen, True).view_as(ratio)


def selected_map(attention: Tensor, heads: Tensor) -> Tensor:
    """Return the mean map of the chosen heads (Eq. 9), [S, Q, N]."""
    weight = heads.to(attention.dtype)
    total = torch.einsum("slhqn,slh->sqn", attention, weight)
    return total / weight.sum((1, 2))[:, None, None].clamp(min=1)


def energy(
    visual_map: Tensor,
    valid: Tensor,
    segments: Tensor,
    present: Tensor,
    *,
    reduce: Literal["pool_then_square", "mean_of_squares"] = "pool_then_square",
    over_segments: Literal["sum", "mean"] = "sum",
) -> Tensor:
    """Return the mask energy (Eq. 10) of each sample, [S].

    sum_s (1 - mass in s / mass on the image)^2

    Args:
        visual_map: [S, Q, N]; valid: bool [S, Q].
        segments: 0..1 [S, K, N]; present: bool [S, K], which segments are real. A sample
            without any costs nothing, nor does one without rows; a segment that is empty on the
            grid costs 1.
        reduce: "pool_then_square" averages the map over the query rows first, as Eq. 10 reads;
            "mean_of_squares" squares per row, as the published code does (never smaller).
        over_segments: Eq. 10 sums.
    """
    rows = valid.to(visual_map.dtype)
    if reduce == "pool_then_square":
        visual_map = _row_mean(visual_map, rows)[:, None]
        rows = rows.amax(1, keepdim=True)
    inside = torch.einsum("sqn,skn->sqk", visual_map, segments)
    whole = visual_map.sum(-1, keepdim=True)
    # Padded rows are all zeros; they get weight 0 below and must not divide by it.
    share = inside / torch.where(whole > 0, whole, torch.ones_like(whole))
    cost = _row_mean((1 - share) ** 2, rows)
    return _over_segments(cost, present, over_segments)


def kl(
    visual_map: Tensor,
    valid: Tensor,
    segments: Tensor,
    present: Tensor,
    *,
    over_segments: Literal["sum", "mean"] = "sum",
) -> Tensor:
    """Return KL(segment || map) of each sample, [S]: a variant of the published code only.

    Both are normalised to sum 1 over the image, the KL is averaged over query rows and summed
    over segments. A segment that is empty on the grid costs 0. Arguments as in `energy`.
    """
    rows = valid.to(visual_map.dtype)
    found = visual_map / (visual_map.sum(-1, keepdim=True) + EPSILON)
    wanted = segments / (segments.sum(-1, keepdim=True) + EPSILON)
    # 0 log 0 is 0: xlogy says so; padded rows, all zeros, must not turn it into NaN.
    entropy = torch.xlogy(wanted, wanted).sum(-1)[:, None]
    cross = torch.einsum("skn,sqn->sqk", wanted, found.clamp(min=TINY).log())
    return _over_segments(_row_mean(entropy - cross, rows), present, over_segments)


def share_inside(visual_map: Tensor, valid: Tensor, segments: Tensor, present: Tensor) -> Tensor:
    """Return how much of the attention on the image lies in a segment, of samples that have one.

    Arguments as in `energy`; the map is averaged over its rows, and segments that overlap count
    once.
    """
    pooled = _row_mean(visual_map, valid.to(visual_map.dtype))
    union = (segments * present[..., None]).amax(1)
    share = (pooled * union).sum(1) / pooled.sum(1).clamp(min=TINY)
    return share[present.any(1) & valid.any(1)]


def _row_mean(values: Tensor, rows: Tensor) -> Tensor:
    """Return the mean over real query rows: [S, Q, X] and [S, Q] to [S, X]."""
    return torch.einsum("sqx,sq->sx", values, rows) / rows.sum(1, keepdim=True).clamp(min=1)


def _over_segments(cost: Tensor, present: Tensor, over_segments: Literal["sum", "mean"]) -> Tensor:
    kept = present.to(cost.dtype)
    total = (cost * kept).sum(1)
    return total if over_segments == "sum" else total / kept.sum(1).clamp(min=1)
