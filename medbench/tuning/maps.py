"""Attention maps of a training pass, computed where they are needed and not kept.

Which heads a loss uses is known only when all layers are through. So a pass keeps no
probabilities: the ratios of all heads are computed layer by layer without gradient, and the maps of
the chosen heads once more with it; their scores are thrown away and computed again on the way
back. Kept for that, all heads' rows of a 7B model take 290 MB of float32 and more than once that
(one sample of 700 tokens, 100 of them read); here it is those of one layer at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from medbench.model.attention import KeptLayer
from medbench.model.rows import where


class AttentionMaps:
    """The rows that a tuner asked for, of the layers it asked for.

    Shapes: samples S, layers L, heads H, query rows Q, visual tokens N.

    Args:
        layers: by layer, what its rows are computed from.
        visual: bool [S, T], the visual columns.
    """

    def __init__(self, layers: Mapping[int, KeptLayer], visual: Tensor) -> None:
        self._layers = [layers[index] for index in sorted(layers)]
        self._visual = visual
        self._columns, _ = where(visual)

    @torch.no_grad()
    def ratio(self, valid: Tensor) -> Tensor:
        """Return the mean share of each head's rows that falls on the image, [S, L, H].

        Like `alignment.visual_ratio` of all maps, without gradient.

        Args:
            valid: bool [S, Q], which rows are real.
        """
        weight = valid.float() / valid.sum(1, keepdim=True).clamp(min=1)
        visual = self._visual[:, None, :, None].float()
        found = [weight[:, None, None] @ layer.rows() @ visual for layer in self._layers]
        return torch.stack(found, dim=1)[..., 0, 0]

    def mean(self, heads: Tensor) -> Tensor:
        """Return the mean map of the chosen heads, [S, Q, N], with gradient.

        Like `alignment.selected_map` of all maps.

        Args:
            heads: bool [S, L, H].
        """
        samples, _, wanted, _ = self._layers[0].query.shape
        total = self._visual.new_zeros((samples, wanted, self._visual.shape[1]), dtype=torch.float)
        for layer, chosen in zip(self._layers, heads.unbind(1), strict=True):
            index, real = where(chosen)
            if index.shape[1]:
                total = total + _recomputed(layer, index, real)
        count = heads.sum((1, 2)).clamp(min=1)
        return self._at_columns(total) / count[:, None, None]

    @cached_property
    def whole(self) -> Tensor:
        """Every map, [S, L, H, Q, N], with gradient."""
        return torch.stack([self._at_columns(layer.rows()) for layer in self._layers], dim=1)

    def _at_columns(self, rows: Tensor) -> Tensor:
        columns = self._columns.view(len(rows), *[1] * (rows.dim() - 2), -1)
        return rows.gather(-1, columns.expand(*rows.shape[:-1], -1))


def _recomputed(layer: KeptLayer, index: Tensor, real: Tensor) -> Tensor:
    """Return the sum of the rows of some heads, [S, Q, T], keeping nothing for the way back.

    Args:
        index: int64 [S, m], the heads of each sample; real: bool [S, m], which of them count.
    """

    def total(query: Tensor, key: Tensor) -> Tensor:
        kept = KeptLayer(query, key, layer.visible, layer.scaling)
        return torch.einsum("smqt,sm->sqt", kept.of(index).rows(), real.float())

    return checkpoint(  # type: ignore[no-any-return]
        total, layer.query, layer.key, use_reentrant=False, preserve_rng_state=False
    )
