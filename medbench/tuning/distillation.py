"""The losses of MedAlign: similarity of visual tokens, and attention, against an expert's.

Shapes: samples S, heads H, query rows Q, visual tokens N, width D. All is computed in float32, or
in float64 if that is what comes in. Samples without a target contribute 0.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Norm = Literal["sum", "l2_legacy", "softmax"]
Reduction = Literal["sum", "batchmean_legacy"]

# Below this a probability counts as this, so that logarithms stay finite.
EPSILON = 1e-8


def similarity(
    states: Tensor,
    target: Tensor,
    present: Tensor,
    *,
    weight: Tensor | None = None,
    inside: Tensor | None = None,
) -> Tensor:
    """Return L_vis of each sample, [S]: the mean over all pairs of (S_x - S_e)^2.

    S_x is the cosine similarity of the student's visual tokens. The diagonal counts as a pair.

    Args:
        states: [S, N, D], the (steered) visual tokens.
        target: [S, N, N], S_e; present: bool [S], who has one.
        weight: [S, N], w of the published code's option: the mean over all pairs becomes that of
            w_i w_j (S_x - S_e)^2.
        inside: bool [S, N], tokens that count; the mean is over pairs of them.
    """
    unit = nn.functional.normalize(_exact(states), dim=-1)
    error = (unit @ unit.transpose(1, 2) - target.to(unit.dtype)) ** 2
    if weight is not None:
        error = error * _pairs(weight.to(unit.dtype))
    if inside is None:
        mean = error.mean((1, 2))
    else:
        pairs = _pairs(inside.to(unit.dtype))
        mean = (error * pairs).sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)
    return torch.where(present, mean, mean.new_zeros(()))


def student_map(attention: Tensor, valid: Tensor) -> Tensor:
    """Return what the query rows look at, [S, N]: the mean over heads, then over rows.

    Rows are not normalised first, so one that looks at the image more weighs more. A sample
    without rows gets zeros.

    Args:
        attention: [S, H, Q, N], probabilities at the visual columns; valid: bool [S, Q].
    """
    rows = valid.to(attention.dtype)
    total = torch.einsum("sqn,sq->sn", attention.mean(1), rows)
    return total / rows.sum(1, keepdim=True).clamp(min=1)


def attention(
    student: Tensor,
    teacher: Tensor,
    present: Tensor,
    *,
    norm: Norm = "sum",
    reduction: Reduction = "sum",
    tau: float = 1.0,
    inside: Tensor | None = None,
) -> Tensor:
    """Return L_att of each sample, [S]: sum_i t_i (log t_i - log p_i), both sides normalised.

    Args:
        student: p, [S, N]; a map of zeros says that there was no query row, and costs nothing.
        teacher: t, [S, N], not negative; present: bool [S], who has one.
        norm: "sum" divides both by their sums, which makes it the KL divergence; "l2_legacy" by
            their Euclidean norms, as published: no divergence, smallest (and negative) where p is
            proportional to the square root of t; "softmax" takes softmax(values / tau), as the
            paper reads.
        reduction: "batchmean_legacy" divides by N, as published.
        tau: of the softmax.
        inside: bool [S, N], tokens that count.
    """
    p, t = _exact(student), _exact(teacher)
    looked = p.detach().abs().sum(-1) > 0
    if inside is not None:
        p, t = p * inside, t * inside
    p, t = (_normalised(one, norm, tau, inside) for one in (p, t))
    # 0 log 0 is 0: xlogy says so.
    terms = torch.xlogy(t, t) - t * p.clamp(min=EPSILON).log()
    loss = terms.sum(-1) if reduction == "sum" else terms.mean(-1)
    return torch.where(present & looked, loss, loss.new_zeros(()))


def _normalised(values: Tensor, norm: Norm, tau: float, inside: Tensor | None) -> Tensor:
    if norm == "softmax":
        scores = values / tau
        if inside is not None:
            scores = scores.masked_fill(~inside, torch.finfo(scores.dtype).min)
        return scores.softmax(-1)
    size = values.sum(-1, keepdim=True)
    if norm == "l2_legacy":
        # The norm of zeros has no gradient; such a map is left out anyhow.
        squares = (values**2).sum(-1, keepdim=True)
        size = torch.where(squares > 0, squares, torch.ones_like(squares)).sqrt()
    return values / torch.where(size > 0, size, torch.ones_like(size))


def _pairs(tokens: Tensor) -> Tensor:
    """Return [S, N, N], the products of the weights of two tokens."""
    return tokens[:, :, None] * tokens[:, None, :]


def _exact(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
