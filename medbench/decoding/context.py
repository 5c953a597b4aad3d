"""What a decoder may look at while it prepares a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from medbench.decoding.randomness import generator
from medbench.model.llava import Backbone


@dataclass(frozen=True)
class DecodeContext:
    """A batch as its decoder sees it.

    Attributes:
        backbone: encodes images, reads attention.
        ids: the samples' ids, in the batch's order; seed: of the run.
        pixel_values: float32 [samples, 3, size, size] on the CPU, or None without images.
        tensors: ready inputs of named branches, each [samples, ...]; a decoder uses what it
            finds here instead of making its own, so that published inputs can be replayed.
        rois: bool [height, width] or None per sample, in the image's own pixels.
    """

    backbone: Backbone
    ids: tuple[str, ...]
    seed: int = 0
    pixel_values: Tensor | None = None
    tensors: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    rois: tuple[np.ndarray | None, ...] = ()

    def generators(self, purpose: str) -> list[torch.Generator]:
        """Return one generator per sample, seeded by the run, the sample and the purpose."""
        return [generator(self.seed, name, purpose) for name in self.ids]
