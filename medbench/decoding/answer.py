"""One decoded answer, and when an answer ends."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Literal

import numpy as np
import torch
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
        attention_steps: float32 [steps, N], of the query that each token was chosen from, the
            prompt's last one first; `attention` is their mean. None unless recorded.
        forwards: tokens that went through the language model in all of this sample's rows, a prompt
            as one.
    """

    token_ids: list[int]
    text: str
    stop: Literal["eos", "stop", "length"]
    scores: Tensor | None = None
    attention: np.ndarray | None = None
    attention_steps: np.ndarray | None = None
    forwards: int = 0


def looked(seen: Tensor | None, steps: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return the mean attention of an answer's steps [N], and that of each [steps, N].

    Args:
        seen: what a row of the stack saw, [N] summed up or [steps, N]; None unless read, and then
            there is no mean. Only the latter has the steps.
    """
    if seen is None:
        return None, None
    if seen.dim() == 1:
        return (seen / steps).cpu().numpy(), None
    # One after the other, as a sum grows while it is decoded: the mean is the same to the bit.
    mean = reduce(torch.add, seen) / steps
    # A copy, so that the other rows can go.
    return mean.cpu().numpy(), seen.cpu().numpy().copy()


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
