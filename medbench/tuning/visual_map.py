"""A residual linear map on the visual tokens between two decoder layers (MedAlign's W)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from medbench.model.rows import RowMasks

Kind = Literal["dense", "low_rank", "none"]


class Residual(nn.Module):
    """What is added to visual tokens: eps X W^T; W begins as zeros, so that nothing is added.

    Args:
        width: of the tokens.
        rank: W = B A of that rank; 0 makes W a full matrix.
        epsilon: eps.
    """

    def __init__(self, width: int, *, rank: int = 0, epsilon: float = 1.0) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.down = nn.Parameter(torch.empty(rank, width)) if rank else None
        self.weight = nn.Parameter(torch.zeros(width, rank or width))
        if self.down is not None:
            nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """Return eps X W^T in float32, for x [..., width]."""
        x = x.float()
        if self.down is not None:
            x = x @ self.down.T
        return self.epsilon * (x @ self.weight.T)

    def matrix(self) -> Tensor:
        """Return W, [width, width]."""
        return self.weight if self.down is None else self.weight @ self.down

    def penalty(self) -> Tensor:
        """Return how far R = I + eps W is from a rotation: |R^T R - I|^2 / width."""
        whole = self.matrix()
        identity = torch.eye(len(whole), dtype=whole.dtype, device=whole.device)
        rotation = identity + self.epsilon * whole
        return ((rotation.T @ rotation - identity) ** 2).sum() / len(whole)


class VisualMap(nn.Module):
    """Maps the visual tokens that enter a decoder layer, and shows them to the losses.

    The states between layer l - 1 and layer l (`hidden_states[l]`) become X + eps X W^T at the
    visual positions of whole sequences; what follows the prompt is left alone, and so are rows
    without an image. Weights and arithmetic are float32.

    Attributes:
        states: by layer l, the visual tokens as mapped, [rows, N, width], of the last pass of
            whole sequences; gone when answering begins.

    Args:
        language_model: gives depth and width.
        layers: l, each from 1 to the last layer.
        kind: "dense" or "low_rank"; "none" only shows the states.
        rank: of "low_rank"; epsilon: eps.
    """

    def __init__(
        self,
        language_model: PreTrainedModel,
        layers: Sequence[int],
        *,
        kind: Kind = "dense",
        rank: int = 64,
        epsilon: float = 1.0,
    ) -> None:
        super().__init__()
        width = int(language_model.config.hidden_size)
        rank = rank if kind == "low_rank" else 0
        self.layers = tuple(sorted(set(layers)))
        self.maps = nn.ModuleDict(
            {str(layer): Residual(width, rank=rank, epsilon=epsilon) for layer in self.layers}
            if kind != "none"
            else {}
        )
        self.states: dict[int, Tensor] = {}
        self._masks: RowMasks | None = None
        self._settled = False

    def attach(self, layers: nn.ModuleList) -> Callable[[], None]:
        """Hook the maps onto the decoder layers; return what takes them off again."""
        handles = [
            layers[layer - 1].register_forward_hook(self._hook(layer)) for layer in self.layers
        ]

        def detach() -> None:
            for handle in handles:
                handle.remove()

        return detach

    def begin(self, masks: RowMasks, *, joins: bool = False) -> None:
        """Take the masks of new rows; those there are have nothing left to be mapped."""
        self._masks, self._settled = masks, False
        self.states.clear()

    def settle(self) -> None:
        """Leave what follows alone."""
        self._settled = True
        self.states.clear()

    def keep(self, rows: Tensor) -> None:
        """Do nothing: once the prompts are through, rows differ in nothing here."""

    def penalty(self) -> Tensor:
        """Return how far the maps are from rotations, the mean over layers; 0 without maps."""
        each = [one.penalty() for one in self.maps.values() if isinstance(one, Residual)]
        return torch.stack(each).mean() if each else torch.zeros(())

    def _hook(self, layer: int) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(_: nn.Module, _inputs: Any, output: Any) -> Any:
            states = output[0] if isinstance(output, tuple) else output
            visual = self._visual(states)
            if visual is None:
                return None
            states = self._mapped(layer, states, visual)
            return (states, *output[1:]) if isinstance(output, tuple) else states

        return hook

    def _mapped(self, layer: int, states: Tensor, visual: Tensor) -> Tensor:
        tokens = states[visual]
        if str(layer) in self.maps:
            tokens = tokens + self.maps[str(layer)](tokens).to(tokens.dtype)
            # Also where no row has an image: the weights then get a gradient of zeros, as
            # training on several devices wants it.
            states = states.masked_scatter(visual[..., None].expand_as(states), tokens)
        # Gradient checkpointing runs a layer twice; the second run must not replace the first.
        self.states.setdefault(layer, _by_row(tokens, visual))
        return states

    def _visual(self, states: Tensor) -> Tensor | None:
        """Return where the visual tokens are, None if this is no pass of whole sequences."""
        masks = self._masks
        if masks is None:
            raise RuntimeError("begin() comes before the first forward pass")
        whole = not self._settled and states.shape[1] == masks.visual.shape[1]
        return masks.visual if whole else None


def _by_row(tokens: Tensor, visual: Tensor) -> Tensor:
    """Return flat visual tokens as [rows, N, width], zeros for rows without an image."""
    has_image = visual.any(1)
    if has_image.all():
        return tokens.unflatten(0, (len(visual), -1))
    count = len(tokens) // max(int(has_image.sum()), 1)
    rows = tokens.new_zeros(len(visual), count, tokens.shape[1])
    place = has_image[:, None, None].expand_as(rows)
    return rows.masked_scatter(place, tokens)
