"""What a decoder may look at while it prepares a batch, and how the batch is to be decoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from medbench.decoding.randomness import generator
from medbench.decoding.select import Selection
from medbench.model.llava import Backbone


@dataclass(frozen=True)
class DecodeSettings:
    """How a batch is to be decoded, whatever the decoder.

    Attributes:
        selection: how tokens are picked; max_new_tokens: where an answer is cut.
        record_scores: of how many first steps the combined scores are kept.
        record_attention: whether the answers' visual attention is; "steps" keeps that of every
            step beside the mean.
    """

    selection: Selection
    max_new_tokens: int
    record_scores: int = 0
    record_attention: bool | Literal["steps"] = False


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
        looked: what the decoder's `look` read off the vision tower, [samples, ...].
        prompt_attention: float32 [samples, layers, N], the attention that the prompts' last tokens
            pay to the image, averaged over heads; there if `reading` asks for it, and from
            `branches` on.
    """

    backbone: Backbone
    ids: tuple[str, ...]
    seed: int = 0
    pixel_values: Tensor | None = None
    tensors: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    rois: tuple[np.ndarray | None, ...] = ()
    looked: Tensor | None = None
    prompt_attention: Tensor | None = None

    def generators(self, purpose: str, seed: int | None = None) -> list[torch.Generator]:
        """Return one generator per sample, seeded by the run, the sample and the purpose.

        Args:
            seed: in place of the run's.
        """
        seed = self.seed if seed is None else seed
        return [generator(seed, name, purpose) for name in self.ids]
