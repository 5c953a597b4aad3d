"""What a decoder reads of the forward passes beside the logits, and what it changes in them."""

from __future__ import annotations

from collections.abc import Callable, Container, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

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
        attention: whether to sum up the new tokens' attention on the image; "steps" keeps that of
            each apart.
        prompt_attention: whether to keep, by layer, that of the prompt's last token.
        prompt_rows: whether to keep all of the prompt's attention in the last layer.
        readout: early exits, which `combine` finds as "early".
        edit: a change of the attention.
    """

    attention: bool | Literal["steps"] = False
    prompt_attention: bool = False
    prompt_rows: bool = False
    readout: HiddenReadout | None = None
    edit: VisualEdit | None = None


@contextmanager
def exits(
    backbone: Backbone, readout: HiddenReadout | None, embeddings: Tensor
) -> Generator[dict[int, Tensor]]:
    """Collect the layers' states at the last position, [rows, width], of the pass run inside.

    Args:
        embeddings: [rows, T, width], what the pass starts from.
    """
    states: dict[int, Tensor] = {}
    if readout is None:
        yield states
        return
    decoder = _decoder(backbone)

    def keep(layer: int) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            whole = output[0] if isinstance(output, tuple) else output
            states[layer] = whole[:, -1]

        return hook

    # Not `output_hidden_states`: it keeps every position, and what it numbers 0 has changed
    # between versions of transformers.
    with ExitStack() as undo:
        for layer in set(readout.layers):
            if layer == 0:
                states[0] = embeddings[:, -1]
                continue
            module = decoder.norm if layer == backbone.layers else decoder.layers[layer - 1]
            undo.callback(module.register_forward_hook(keep(layer)).remove)
        yield states


def early_logits(
    backbone: Backbone, states: Mapping[int, Tensor], readout: HiddenReadout
) -> Tensor:
    """Return float32 [rows, exits, vocabulary] from the layers' states [rows, width]."""
    norm, last = _decoder(backbone).norm, backbone.layers
    # Layers of a large model may lie on several cards.
    states = {layer: state.to(backbone.device) for layer, state in states.items()}
    # The last state has been through the norm already.
    picked = [
        norm(states[layer]) if readout.norm and layer < last else states[layer]
        for layer in readout.layers
    ]
    head: Any = backbone.language_model.get_output_embeddings()
    return head(torch.stack(picked, dim=1)).float()


def _decoder(backbone: Backbone) -> Any:
    model: Any = backbone.language_model
    return model.get_decoder()
