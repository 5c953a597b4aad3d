"""Branches in the row stack: the same samples once per branch, branch after branch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from medbench.decoding.context import DecodeContext, DecodeSettings
from medbench.decoding.reading import Reading
from medbench.decoding.stack import RowStack
from medbench.method import Decoder
from medbench.model.prompt import Prompt


@dataclass(frozen=True)
class Branches:
    """A stack in which every branch has one row per sample, or per beam.

    Attributes:
        prompts: of the main branch, by sample.
    """

    decoder: Decoder
    stack: RowStack
    names: tuple[str, ...]
    prompts: tuple[Prompt, ...]

    def combined(self, step: int) -> Tensor:
        """Return the decoder's scores, [rows of one branch, vocabulary]."""
        count = len(self.names)
        logits = dict(zip(self.names, self.stack.logits.chunk(count), strict=True))
        if self.stack.early is not None:
            logits["early"] = self.stack.early.chunk(count)[0]
        return self.decoder.combine(logits, step)

    def attention(self, row: int) -> Tensor | None:
        """Return a row of the main branch's visual attention so far, as `RowStack` keeps it."""
        attention = self.stack.attention
        return None if attention is None else attention[row]

    def keep(self, rows: Tensor, *, same_prompts: bool = False) -> None:
        """Keep only these rows of a branch, in every branch; `RowStack.keep` has the arguments."""
        count = len(self.names)
        per_branch = len(self.stack) // count
        offsets = torch.arange(count, device=rows.device)[:, None] * per_branch
        self.stack.keep((offsets + rows).flatten(), same_prompts=same_prompts)

    def append(self, tokens: Tensor) -> None:
        """Add one token to each row of a branch, in every branch."""
        self.stack.append(tokens.repeat(len(self.names)))


def start(
    decoder: Decoder, main: list[Prompt], context: DecodeContext, settings: DecodeSettings
) -> Branches:
    """Run the main prompts, then those of each branch by themselves, and stack them."""
    reading = decoder.reading(context.backbone.depth) or Reading()
    reading = replace(reading, attention=settings.record_attention)
    stack = RowStack(context.backbone, main, reading)
    seen = replace(context, prompt_attention=stack.prompt_attention)
    branches = decoder.branches(main, seen)
    for prompts in branches.values():
        stack.join(prompts)
    return Branches(decoder, stack, ("main", *branches), tuple(main))
