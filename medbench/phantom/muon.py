"""Muon: momentum whose updates are made orthogonal (Jordan et al. 2024), in float32.

torch has it too, but works in bfloat16, which many processors only emulate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

# Quintic whose iteration drives every singular value towards one, from the publication.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Optimiser for matrices inside a network; embeddings and vectors need another one.

    Args:
        parameters: matrices.
        lr: size of an update's singular values, times sqrt(rows / columns) for tall ones.
        momentum: of the gradient's running mean, looked ahead once (Nesterov).
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.95
    ) -> None:
        super().__init__(list(parameters), {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update every matrix; those of one shape are made orthogonal together."""
        for group in self.param_groups:
            updates: defaultdict[tuple[int, int], list[tuple[nn.Parameter, Tensor]]] = defaultdict(
                list
            )
            for parameter in group["params"]:
                if parameter.grad is not None:
                    update = self._momentum(parameter, group["momentum"])
                    updates[tuple(parameter.shape)].append((parameter, update))
            for (rows, columns), pairs in updates.items():
                straight = orthogonal(torch.stack([update for _, update in pairs]))
                size = group["lr"] * max(1.0, rows / columns) ** 0.5
                for (parameter, _), update in zip(pairs, straight, strict=True):
                    parameter.sub_(update, alpha=size)

    def _momentum(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        state = self.state[parameter]
        grad = parameter.grad
        assert grad is not None
        if not state:
            state["mean"] = torch.zeros_like(grad)
        mean: Tensor = state["mean"]
        mean.lerp_(grad, 1 - momentum)
        return grad.lerp(mean, momentum)


def orthogonal(matrices: Tensor) -> Tensor:
    """Return nearly orthogonal matrices with the same singular vectors, [n, rows, columns]."""
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    first, second, third = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = first * x + (second * gram + third * gram @ gram) @ x
    return x.mT if tall else x
