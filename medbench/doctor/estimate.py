"""How much memory and disk a run takes, reckoned from a model's sizes: upper estimates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import torch

    from medbench.model.llava import Backbone

# 4-bit NormalFloat: half a byte a weight, and a float32 for each block of 64.
_NF4_BYTES = 0.5 + 4 / 64
# A trained weight in float32, its gradient, and AdamW's two moments of it.
TRAINED_BYTES = 4 + 4 + 8
# Positions that a cache's layer allocates ahead.
_ROOM = 64
# The projections of a decoder layer that LoRA reads the inputs of.
_PROJECTIONS = 7


@dataclass(frozen=True)
class Sizes:
    """What of a model its memory depends on.

    Attributes:
        weights: bytes of all weights as they are loaded; element: bytes of a number.
        layers, width, inner, heads: of the language model; inner is that of its MLP.
        key_width: numbers in one layer's keys of one position.
        vocabulary: number of tokens that have a logit.
    """

    weights: float
    element: int
    layers: int
    width: int
    inner: int
    heads: int
    key_width: int
    vocabulary: int


def sizes(skeleton: Backbone, dtype: torch.dtype, *, four_bits: bool) -> Sizes:
    """Return the sizes of a backbone that would be loaded in a type, or in four bits."""
    from torch import nn

    model = skeleton.language_model
    config: Any = model.config
    element = dtype.itemsize
    parts = (model, skeleton.vision_tower, skeleton.projector)
    weights = float(element * sum(one.nelement() for part in parts for one in part.parameters()))
    if four_bits:
        head = model.get_output_embeddings()
        quantised = sum(
            one.weight.nelement()
            for one in model.modules()
            if isinstance(one, nn.Linear) and one is not head
        )
        weights -= quantised * (element - _NF4_BYTES)
    heads = int(config.num_attention_heads)
    width = int(config.hidden_size)
    each = int(getattr(config, "head_dim", None) or width // heads)
    keys = int(getattr(config, "num_key_value_heads", None) or heads)
    return Sizes(
        weights=weights,
        element=element,
        layers=skeleton.layers,
        width=width,
        inner=int(cast(int, config.intermediate_size)),
        heads=heads,
        key_width=keys * each,
        vocabulary=int(config.vocab_size),
    )


def cache_bytes(model: Sizes, *, rows: int, prompt: int, new: int) -> int:
    """Return what keys and values take when every answer is as long as it may be.

    2 x layers x key_width x element x rows x (prompt + new + 64), the 64 being allocated ahead.
    """
    positions = prompt + new + _ROOM
    return 2 * model.layers * model.key_width * model.element * rows * positions


def answer_bytes(model: Sizes, *, rows: int, prompt: int) -> int:
    """Return what one pass over the prompts of all rows takes beyond weights and cache.

    rows x prompt x (16 width + 6 inner) x element: twice what one layer computes, since layers
    come one after the other and nothing of them is kept; rows x heads x prompt^2 x 4 for
    attention that is not computed in pieces; and rows x vocabulary x 12 for the scores.
    """
    layer = prompt * (16 * model.width + 6 * model.inner) * model.element
    attention = model.heads * prompt**2 * 4
    return rows * (layer + attention + 12 * model.vocabulary)


def training_bytes(
    model: Sizes, *, rows: int, length: int, answer: int, rank: int, checkpointing: bool
) -> int:
    """Return what is kept of one micro batch for the way back.

    For each token and layer: 14 x 4 width, since norms and LoRA's inputs are float32; 4 width and
    3 inner in the model's type; 8 inner and 7 x 4 rank in float32. With gradient checkpointing the
    input of each layer (width), and one layer whole. To that come heads x length^2 x 4 of one
    layer's attention and 12 bytes for each logit of an answer. Counted on LoRA; what further
    losses and mixtures of experts keep is not in it.

    Args:
        rows: samples of the micro batch; length: of the longest prompt with its answer.
    """
    token = 14 * 4 * model.width + 4 * model.element * model.width
    token += (3 * model.element + 8) * model.inner + _PROJECTIONS * 4 * rank
    if checkpointing:
        kept = token + model.layers * model.width * model.element
    else:
        kept = token * model.layers
    attention = model.heads * length**2 * 4
    return rows * (length * kept + attention + 12 * model.vocabulary * (answer + 1))


def rows_bytes(samples: int, *, new: int) -> int:
    """Return what a run's folder takes: 4 KiB a sample and 12 bytes for each token it may have."""
    return samples * (4096 + 12 * new)


def adapter_bytes(trained: int) -> int:
    """Return what an adapter's folder takes while it is trained.

    4 bytes for each trained weight, and 12 in the checkpoint, twice while a new one is written.
    """
    return trained * (4 + 2 * 12)
