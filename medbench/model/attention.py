"""Reading and changing attention rows without eager attention.

`medbench` is registered with transformers as an attention function of its own. It runs SDPA for
the output; where the forward pass was given probes, it also computes the softmax of the query rows
they ask for, and where it was given an edit, it computes the last query's output from changed
scores. Autograd goes through probed rows, so they can carry a loss. Where rows of a few heads are
wanted that only all layers together can name, a tap keeps what rows are computed from. Nothing is
patched: probes, taps and edits are arguments of one forward pass and nothing of them stays behind.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
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
        columns: int64 [rows, N], positions among all keys (cached ones included); None for all.
        take: called once per layer with the layer's index and the probabilities, float32
            [rows, heads, Q, N], normalised over all keys and not only over the columns.
        layers: which layers to read; None for all.
    """

    queries: Tensor
    columns: Tensor | None
    take: Callable[[int, Tensor], None]
    layers: Container[int] | None = None


@dataclass(frozen=True)
class KeptLayer:
    """What rows of one layer's attention are computed from, when and for the heads wanted.

    It holds no scores, only what the pass itself keeps for its gradient, and the picked queries.

    Attributes:
        query: [rows, heads, Q, head_dim], the wanted queries only.
        key: [rows, kv_heads, all, head_dim].
        visible: bool [rows, 1, Q, all], which keys each query may attend to.
        scaling: of the scores.
    """

    query: Tensor
    key: Tensor
    visible: Tensor
    scaling: float

    def rows(self) -> Tensor:
        """Return the probabilities of all heads, float32 [rows, heads, Q, all], with gradient."""
        return _softmax(_scores(self.query, self.key, self.scaling), self.visible)

    def of(self, heads: Tensor) -> KeptLayer:
        """Return the layer with these heads only; int64 [rows, m], each row's own choice."""
        groups = self.query.shape[1] // self.key.shape[1]
        return KeptLayer(
            _picked(self.query, heads),
            _picked(self.key, heads // groups),
            self.visible,
            self.scaling,
        )


@dataclass(frozen=True)
class AttentionTap:
    """Which layers are to be kept, so that their rows can be computed when it is known which.

    Attributes:
        queries: int64 [rows, Q], positions among this pass's new tokens.
        take: called once per layer with the layer's index and what to keep.
        layers: which layers to keep; None for all.
    """

    queries: Tensor
    take: Callable[[int, KeptLayer], None]
    layers: Container[int] | None = None


@dataclass(frozen=True)
class AttentionEdit:
    """A change of attention scores before the softmax, for each row's last query only.

    Attributes:
        layers: which layers to change.
        columns: bool [rows, keys], the scores to change.
        change: elementwise, from scores to scores, float32.
    """

    layers: Container[int]
    columns: Tensor
    change: Callable[[Tensor], Tensor]


def probed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    probes: Sequence[AttentionProbe] = (),
    taps: Sequence[AttentionTap] = (),
    edit: AttentionEdit | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Run SDPA, edited where asked, and hand probes and taps what they asked for.

    Args:
        module: the attention layer; gives its index and the scaling.
        query: [rows, heads, new, head_dim]; key, value: [rows, kv_heads, all, head_dim].
        attention_mask: bool [rows, 1, new, all], True where attended; None means causal.
        probes: what to read; they see edited rows as edited.
        taps: what to keep; they know nothing of edits.
        edit: what to change.
    """
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    scaling = kwargs.get("scaling") or query.shape[-1] ** -0.5
    if edit is not None and layer not in edit.layers:
        edit = None

    def rows_of(queries: Tensor) -> Tensor:
        return attention_rows(query, key, attention_mask, queries, scaling, edit)

    if edit is None:
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    else:
        last = torch.full((len(query), 1), query.shape[2] - 1, device=query.device)
        output = _attended(rows_of(last), value)
        if query.shape[2] > 1:
            whole, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
            output = torch.cat([whole[:, :-1], output], dim=1)
    # Layers of a large model may lie on several cards; what asks lies on the first.
    here = query.device
    for probe in probes:
        if probe.layers is None or layer in probe.layers:
            rows = rows_of(probe.queries.to(here))
            if probe.columns is not None:
                columns = probe.columns.to(here)[:, None, None, :]
                rows = rows.gather(3, columns.expand(*rows.shape[:3], -1))
            probe.take(layer, rows.to(probe.queries.device))
    for tap in taps:
        if tap.layers is None or layer in tap.layers:
            queries = tap.queries.to(here)
            visible = _visible(attention_mask, queries, query.shape[2], key.shape[2])
            tap.take(layer, KeptLayer(_at(query, queries), key, visible, scaling))
    return output, None


def attention_rows(
    query: Tensor,
    key: Tensor,
    attention_mask: Tensor | None,
    queries: Tensor,
    scaling: float,
    edit: AttentionEdit | None = None,
) -> Tensor:
    """Return softmax probabilities of chosen query rows over all keys.

    Shapes as in `probed_attention`; the result is float32 [rows, heads, Q, all]. The softmax is
    computed in float32.
    """
    new = query.shape[2]
    scores = _scores(_at(query, queries), key, scaling)
    if edit is not None:
        place = edit.columns.to(query.device)[:, None, :] & (queries == new - 1)[..., None]
        scores = torch.where(place[:, None], edit.change(scores), scores)
    return _softmax(scores, _visible(attention_mask, queries, new, key.shape[2]))


def _at(query: Tensor, queries: Tensor) -> Tensor:
    """Return the queries at these positions, [rows, heads, Q, head_dim]."""
    batch, heads, _, width = query.shape
    return query.gather(2, queries[:, None, :, None].expand(batch, heads, -1, width))


def _picked(values: Tensor, heads: Tensor) -> Tensor:
    """Return each row's heads of [rows, heads, T, width]."""
    return values.gather(1, heads[..., None, None].expand(-1, -1, *values.shape[2:]))


def _scores(query: Tensor, key: Tensor, scaling: float) -> Tensor:
    batch, heads, wanted, width = query.shape
    # Query heads of one key head side by side: no repeated keys are ever stored.
    grouped = query.reshape(batch, key.shape[1], -1, width)
    scores = (grouped @ key.transpose(2, 3)).float() * scaling
    return scores.reshape(batch, heads, wanted, key.shape[2])


def _softmax(scores: Tensor, visible: Tensor) -> Tensor:
    return scores.masked_fill(~visible, torch.finfo(scores.dtype).min).softmax(-1)


def _attended(rows: Tensor, value: Tensor) -> Tensor:
    """Return the attention output [rows, Q, heads, head_dim] of given probabilities."""
    batch, heads, wanted, keys = rows.shape
    grouped = rows.to(value.dtype).reshape(batch, value.shape[1], -1, keys)
    output = (grouped @ value).reshape(batch, heads, wanted, value.shape[3])
    return output.transpose(1, 2)


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
