"""A seeded, untrained vision-language model of a few thousand weights, for unit tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from medbench.backbone import Checkpoint, Depth

if TYPE_CHECKING:
    import torch

    from medbench.model.llava import Backbone


VISION_LAYERS = 2


@dataclass(frozen=True)
class Toy(Checkpoint):
    """An untrained toy LLaVA: real classes, random weights, answers that mean nothing.

    Args:
        seed: of the weights.
        layers, heads, kv_heads, width: of the language model.
        text: which text model: llama, mistral or qwen2.
        spread: standard deviation of the weights; larger makes peakier answers.
    """

    name = "toy"
    offers = (
        "pixels", "image_span", "attention", "hidden_states", "class_attention", "training",
    )  # fmt: skip

    seed: int = 0
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    width: int = 32
    text: Literal["llama", "mistral", "qwen2"] = "llama"
    spread: float = 0.3

    def depth(self) -> Depth:
        """Return how many layers it has."""
        return Depth(self.layers, VISION_LAYERS)

    def load(self, *, device: torch.device, dtype: torch.dtype) -> Backbone:
        """Build the model from its seed."""
        from medbench.model.tiny import build_toy

        return build_toy(self, device=device, dtype=dtype)
