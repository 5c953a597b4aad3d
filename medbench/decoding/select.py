"""Selection: how a token is picked from a row of scores, whoever made the scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from medbench.errors import UserError
from medbench.method import Decoder
from medbench.presets import PRESETS


@dataclass(frozen=True)
class Selection:
    """How tokens are picked.

    Attributes:
        select: "argmax", or "sample" from the softmax.
        temperature, top_k, top_p: of sampling, applied in this order; 0 turns top_k off and 1
            turns top_p off.
        repetition_penalty: divides the positive and multiplies the negative scores of tokens that
            stand in the prompt's text or the answer so far; before anything else.
        beams: more than one searches with that many beams instead.
        length_norm: of beam search: "generated" divides a hypothesis's log-probability by the
            number of its new tokens, as transformers does today; "prompt" keeps the rules of
            transformers 4.29, which counts the prompt as well (an image as one token) and not the
            end token.
    """

    select: Literal["argmax", "sample"] = "argmax"
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    beams: int = 1
    length_norm: Literal["generated", "prompt"] = "generated"


def resolve(decoder: Decoder, preset: str) -> Selection:
    """Return the selection a decoder uses under a preset.

    What the decoder's own parameters say wins over the preset: nucleus and beam are selections,
    and stay what they are.

    Raises:
        UserError: an unknown preset, or values that cannot be used.
    """
    if preset not in PRESETS:
        raise UserError(f"no preset '{preset}'", "", f"Take {' or '.join(PRESETS)}.")
    values = {name: getattr(decoder, name) for name in Selection.__annotations__}
    if values["select"] == "preset":
        published = dict(decoder.published) if preset == "published" else {}
        values |= {"select": "argmax"} | published
    selection = Selection(**values)
    _check(selection)
    return selection


def pick(scores: Tensor, selection: Selection, generators: Sequence[torch.Generator]) -> Tensor:
    """Return one token per row, int64 [rows].

    Args:
        scores: float32 [rows, vocabulary], -inf where a token is barred.
        selection: argmax takes the first of equals; sampling draws once per row.
        generators: one per row; only sampling uses them.
    """
    if selection.select == "argmax":
        return scores.argmax(-1)
    probabilities = warp(scores, selection).softmax(-1).cpu()
    drawn = [
        torch.multinomial(row, 1, generator=generator)
        for row, generator in zip(probabilities, generators, strict=True)
    ]
    return torch.cat(drawn).to(scores.device)


def penalised(scores: Tensor, penalty: float, seen: Sequence[Sequence[int]]) -> Tensor:
    """Make tokens that were there already less likely (Keskar et al. 2019, Sec. 4.1).

    Args:
        scores: float32 [rows, vocabulary]; seen: tokens by row.
        penalty: 1 changes nothing; otherwise positive scores are divided and negative ones
            multiplied by it, once however often a token was seen.
    """
    if penalty == 1:
        return scores
    marked = torch.zeros_like(scores, dtype=torch.bool)
    for row, tokens in zip(marked, seen, strict=True):
        row[torch.tensor(tokens, dtype=torch.long, device=row.device)] = True
    return torch.where(marked, torch.where(scores > 0, scores / penalty, scores * penalty), scores)


def warp(scores: Tensor, selection: Selection) -> Tensor:
    """Apply temperature, then top-k, then top-p to [rows, vocabulary] scores.

    Top-p keeps the smallest set of tokens whose probability reaches p (Holtzman et al. 2020),
    at least one of them.
    """
    scores = scores / selection.temperature
    if selection.top_k:
        kept = min(selection.top_k, scores.shape[-1])
        floor = scores.topk(kept).values[:, -1:]
        scores = scores.masked_fill(scores < floor, -torch.inf)
    if selection.top_p < 1:
        ordered, order = scores.sort(descending=False, stable=True)
        outside = ordered.softmax(-1).cumsum(-1) <= 1 - selection.top_p
        outside[:, -1] = False
        scores = scores.masked_fill(outside.scatter(1, order, outside), -torch.inf)
    return scores


def _check(selection: Selection) -> None:
    wrong = {
        "select is argmax or sample": selection.select not in ("argmax", "sample"),
        "temperature is above 0": selection.temperature <= 0,
        "top_k is 0 (off) or more": selection.top_k < 0,
        "top_p lies above 0 and is at most 1": not 0 < selection.top_p <= 1,
        "repetition_penalty is above 0": selection.repetition_penalty <= 0,
        "beams is 1 or more": selection.beams < 1,
        "beams and sampling do not go together": selection.beams > 1
        and selection.select == "sample",
    }
    for rule, broken in wrong.items():
        if broken:
            raise UserError(f"cannot select tokens with {selection}", f"{rule.capitalize()}.")
