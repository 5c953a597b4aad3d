"""What a decoder reads of the forward passes beside the logits, and what it changes in them."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from medbench.model.llava import Backbone


@dataclass(frozen=True)
class HiddenReadout:
    """Early exits: layers that are read out through the output head, last position only.

    Attributes:
        layers: 0 for the input embeddings, i for the output of the i-th decoder layer; the last one
            has been through the final norm.
        norm: whether the final norm goes between the other layers and the head.
    """

    layers: tuple[int, ...]
    norm: bool = False


@dataclass(frozen=True)
class VisualEdit:
    """A change of the attention that each new token's query pays to the image.

    Attributes:
        layers: decoder layers to change, from 0.
        change: elementwise, from scores before the softmax to scores, float32.
        prompt: whether the prompt's last query, which makes the first token, is changed too.
    """

    layers: Container[int]
    change: Callable[[Tensor], Tensor]
    prompt: bool = True


@dataclass(frozen=True)
class Reading:
    """What to read of the main rows, and what to change in them.

    Attributes:
        attention: whether to sum up the new tokens' attention on the image.
        prompt_attention: whether to keep, by layer, that of the prompt's last token.
        prompt_rows: whether to keep all of the prompt's attention in the last layer.
        readout: early exits, which `combine` finds as "early".
        edit: a change of the attention.
    """

    attention: bool = False
    prompt_attention: bool = False
    prompt_rows: bool = False
    readout: HiddenReadout | None = None
    edit: VisualEdit | None = None


def early_logits(
    backbone: Backbone, hidden_states: Sequence[Tensor | None], readout: HiddenReadout
) -> Tensor:
    """Return float32 [rows, exits, vocabulary] from a pass's hidden states [rows, T, width]."""
    model: Any = backbone.language_model
    head, norm = model.get_output_embeddings(), model.get_decoder().norm
    exits: list[Tensor] = []
    for layer in readout.layers:
        state = hidden_states[layer]
        assert state is not None, "the pass was asked for these layers"
        # The last state has been through the norm already.
        normed = readout.norm and layer < backbone.layers
        exits.append(norm(state[:, -1]) if normed else state[:, -1])
    return head(torch.stack(exits, dim=1)).float()
