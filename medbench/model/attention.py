"""The attention probe: rows of attention probabilities without eager attention.

`medbench` is registered with transformers as an attention function of its own. It runs SDPA for
the output and, where the forward pass was given a probe, also computes the softmax of the query
rows the probe asks for. Autograd goes through those rows, so they can carry a loss. Nothing is
patched: a probe is an argument of one forward pass and nothing of it stays behind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "medbench"


@dataclass(frozen=True)
class AttentionProbe:
    """Which attention rows of one forward pass are wanted, and who takes them.

    Attributes:
        queries: int64 [rows, Q], positions among this pass's new tokens.
        columns: int64 [rows, N], positions among all keys (cached ones included).
        take: called once per layer with the layer's index and the probabilities, float32
            [rows, heads, Q, N], normalised over all keys and not only over the columns.
    """

    queries: Tensor
    columns: Tensor
    take: Callable[[int, Tensor], None]


def probed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    probe: AttentionProbe | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Run SDPA, and hand the probe the rows it asked for.

    Args:
        module: the attention layer; gives its index and the scaling.
        query: [rows, heads, new, head_dim]; key, value: [rows, kv_heads, all, head_dim].
        attention_mask: bool [rows, 1, new, all], True where attended; None means causal.
        probe: what to read; None reads nothing.
    """
    output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    if probe is not None:
        scaling = kwargs.get("scaling") or query.shape[-1] ** -0.5
        rows = attention_rows(query, key, attention_mask, probe.queries, probe.columns, scaling)
        probe.take(int(module.layer_idx), rows)  # type: ignore[arg-type]
    return output, None


def attention_rows(
    query: Tensor,
    key: Tensor,
    attention_mask: Tensor | None,
    queries: Tensor,
    columns: Tensor,
    scaling: float,
) -> Tensor:
    """Return softmax probabilities of chosen query rows at chosen key columns.

    Shapes as in `probed_attention`; the result is float32 [rows, heads, Q, N]. The softmax runs
    over every key the query may see, in float32.
    """
    batch, heads, new, width = query.shape
    groups = heads // key.shape[1]
    wanted = queries.shape[1]
    picked = query.gather(2, queries[:, None, :, None].expand(batch, heads, wanted, width))
    # Query heads of one key head side by side: no repeated keys are ever stored.
    picked = picked.reshape(batch, key.shape[1], groups * wanted, width)
    scores = (picked @ key.transpose(2, 3)).float() * scaling
    scores = scores.reshape(batch, heads, wanted, key.shape[2])
    scores = scores.masked_fill(
        ~_visible(attention_mask, queries, new, key.shape[2]), torch.finfo(scores.dtype).min
    )
    rows = scores.softmax(-1)
    chosen = columns[:, None, None, :].expand(batch, heads, wanted, columns.shape[1])
    return rows.gather(3, chosen)


def _visible(mask: Tensor | None, queries: Tensor, new: int, keys: int) -> Tensor:
    """Return bool [rows, 1, Q, keys]: which keys each wanted query may attend to."""
    if mask is None:
        reach = queries + (keys - new)
        positions = torch.arange(keys, device=queries.device)
        return (positions <= reach[..., None])[:, None]
    if mask.dtype != torch.bool:
        raise TypeError("the attention probe reads boolean masks")
    mask = mask.expand(queries.shape[0], 1, mask.shape[2], keys)
    return mask.gather(2, queries[:, None, :, None].expand(-1, 1, -1, keys))


def register() -> str:
    """Make the attention function known to transformers; return the name to load models with.

    Both registrations are needed: with the mask function missing, transformers builds no mask at
    all and padded rows come out wrong without an error.
    """
    AttentionInterface.register(NAME, probed_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    return NAME
