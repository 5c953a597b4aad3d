"""Mixtures of LoRA experts on one linear layer, computed in rank space.

The experts of a layer are stacked: A [E, r, in], B [E, out, r]. A weighted sum of experts is then
two matrix products with the weights between them, and no expert's full-width output is stored.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

Router = Literal["linear", "mlp"]
Combine = Literal["weighted", "weighted_renorm", "last_write"]


class Experts(nn.Module):
    """A stack of LoRA experts: expert o adds (alpha / rank) B_o A_o x.

    Args:
        inputs, outputs: widths of the layer it stands beside.
        count: number of experts; rank, alpha: of each.
    """

    def __init__(self, inputs: int, outputs: int, *, count: int, rank: int, alpha: float) -> None:
        super().__init__()
        self.lora_A = nn.Parameter(torch.empty(count, rank, inputs))
        self.lora_B = nn.Parameter(torch.zeros(count, outputs, rank))
        for expert in self.lora_A:
            nn.init.kaiming_uniform_(expert, a=math.sqrt(5))
        self.scale = alpha / rank

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """Return sum_o weights_o B_o A_o x, scaled.

        Args:
            x: [rows, T, in]; weights: [rows, T or 1, E].
        """
        count, rank, inputs = self.lora_A.shape
        inner = (x @ self.lora_A.reshape(count * rank, inputs).T) * self.scale
        inner = inner.unflatten(-1, (count, rank)) * weights[..., None]
        return inner.flatten(-2) @ self.lora_B.transpose(0, 1).flatten(1).T


def router(width: int, count: int, kind: Router) -> nn.Module:
    """Return a router from hidden states to expert logits.

    "linear" is what the published code has; "mlp" takes the paper's word for it, with one hidden
    layer a quarter as wide.
    """
    if kind == "linear":
        return nn.Linear(width, count)
    return nn.Sequential(nn.Linear(width, width // 4), nn.SiLU(), nn.Linear(width // 4, count))


def pooled(x: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of x [rows, T, width] over the masked positions, [rows, width].

    A row without any such position gets zeros.
    """
    weight = mask.to(x.dtype)[..., None]
    return (x * weight).sum(1) / weight.sum(1).clamp(min=1)


def top_weights(gates: Tensor, keep: int, combine: Combine) -> tuple[Tensor, Tensor]:
    """Return the weights of the kept experts, and which were kept; both [..., E].

    Args:
        gates: softmax gates.
        keep: B of Eq. 7; at least 1.
        combine: "weighted" is Eq. 7: the gates of the top B, not renormalised;
            "weighted_renorm" makes them sum to 1; "last_write" is the published code, where of
            the top B only the expert with the largest index acts, with weight 1.
    """
    count = gates.shape[-1]
    chosen = torch.zeros_like(gates).scatter(-1, gates.topk(min(keep, count)).indices, 1.0)
    if combine == "weighted":
        return gates * chosen, chosen
    if combine == "weighted_renorm":
        kept = gates * chosen
        return kept / kept.sum(-1, keepdim=True), chosen
    index = torch.arange(count, device=gates.device)
    last = (chosen * (index + 1)).argmax(-1)
    return nn.functional.one_hot(last, count).to(gates.dtype), chosen


def balance_loss(
    gates: Tensor,
    chosen: Tensor,
    *,
    grouping: Literal["experts", "official_mod4"] = "experts",
) -> Tensor:
    """Return the load-balance term per sample, [samples]; not in the paper, weight 0 there.

    sum over experts of (mean gate) x (mean choice, detached), means over layers and tokens.

    Args:
        gates, chosen: [layers, samples, tokens, E].
        grouping: "official_mod4" folds the experts modulo 4, as the published code does whatever
            their number.
    """
    if grouping == "official_mod4":
        # The published reshape to four columns: index modulo 4, the means over all the rows.
        gates = gates.reshape(*gates.shape[:2], -1, 4)
        chosen = chosen.reshape(*chosen.shape[:2], -1, 4)
    return (gates.mean((0, 2)) * chosen.detach().mean((0, 2))).sum(-1)
