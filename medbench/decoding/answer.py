"""One decoded answer, and when an answer ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from medbench.model.llava import Backbone


@dataclass(frozen=True)
class Answer:
    """What a decoder said about one sample.

    Attributes:
        token_ids: the new tokens, the end token included where there was one.
        text: decoded, special tokens left out, cut before a stop string.
        stop: "eos", "stop" (a stop string) or "length".
        scores: float32 [steps, vocabulary] after combining, of the first steps asked for;
            [steps, beams, vocabulary] for beam search; None if none were asked for.
        attention: float32 [N], visual attention of the answer's queries (mean over layers, heads
            and generated tokens); None unless recorded.
        forwards: tokens that went through the language model in all of this sample's rows, a prompt
            as one.
    """

    token_ids: list[int]
    text: str
    stop: Literal["eos", "stop", "length"]
    scores: Tensor | None = None
    attention: np.ndarray | None = None
    forwards: int = 0


def ended(backbone: Backbone, tokens: list[int], limit: int) -> str | None:
    """Say why an answer ends with its latest token, or None if it goes on."""
    if tokens[-1] in backbone.eos_token_ids:
        return "eos"
    if backbone.stop_strings:
        text = backbone.text(tokens)
        if any(stop in text for stop in backbone.stop_strings):
            return "stop"
    return "length" if len(tokens) >= limit else None


def final_text(backbone: Backbone, tokens: list[int]) -> str:
    """Return the answer's text, cut before the first stop string and stripped of blanks."""
    text = backbone.text(tokens)
    for stop in backbone.stop_strings:
        text = text.partition(stop)[0]
    return text.strip()
