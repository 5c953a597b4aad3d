"""The vision probe: where the class token of a CLIP tower looks, from hidden states at hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor


def class_attention(
    tower: Any,
    hidden_states: Sequence[Tensor],
    layer: int,
    heads: Literal["single_head", "head_mean"],
) -> Tensor:
    """Return the class token's attention on the patches in one block, float32 [images, patches].

    Only that block's queries and keys are computed again; nothing is hooked.

    Args:
        tower: a CLIP vision model; hidden_states: all it returned, the embeddings first.
        layer: which of the hidden states the block made; negative ones count from the end.
        heads: "single_head" takes the full width as one head, softmax(q k^T / sqrt(width));
            "head_mean" averages the block's own heads.
    """
    made = layer % len(hidden_states)
    block = tower.encoder.layers[made - 1]
    states = block.layer_norm1(hidden_states[made - 1])
    query, key = block.self_attn.q_proj(states[:, :1]), block.self_attn.k_proj(states)
    count = 1 if heads == "single_head" else block.self_attn.num_heads
    split = [one.unflatten(-1, (count, -1)).transpose(1, 2).float() for one in (query, key)]
    scores = split[0] @ split[1].transpose(2, 3) / split[0].shape[-1] ** 0.5
    return scores.softmax(-1).mean(1)[:, 0, 1:]
