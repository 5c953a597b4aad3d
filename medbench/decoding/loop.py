"""The token loop: branches -> logits -> combine -> pick -> append, for one batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from medbench.decoding.answer import Answer, ended, final_text
from medbench.decoding.beam import search
from medbench.decoding.branches import combined, in_every_branch
from medbench.decoding.context import DecodeContext
from medbench.decoding.select import Selection, pick
from medbench.decoding.stack import RowStack
from medbench.method import Decoder
from medbench.model.prompt import Prompt


@torch.no_grad()
def decode(
    decoder: Decoder,
    prompts: Sequence[Prompt],
    context: DecodeContext,
    selection: Selection,
    *,
    max_new_tokens: int,
    record_scores: int = 0,
    record_attention: bool = False,
) -> list[Answer]:
    """Decode one batch of prompts and return the answers in their order.

    A sample's answer does not depend on its neighbours as far as the arithmetic is exact: in
    float32 batched and single runs give the same tokens, in bfloat16 nothing can promise that.
    """
    main = decoder.prepare(list(prompts), context)
    rows = {"main": main, **decoder.branches(main, context)}
    names = list(rows)
    stack = RowStack(
        context.backbone,
        [prompt for name in names for prompt in rows[name]],
        record_attention=record_attention,
    )
    decode_rows = search if selection.beams > 1 else _decode_tokens
    return decode_rows(decoder, stack, names, context, selection, max_new_tokens, record_scores)


def _decode_tokens(
    decoder: Decoder,
    stack: RowStack,
    names: Sequence[str],
    context: DecodeContext,
    selection: Selection,
    max_new_tokens: int,
    record_scores: int,
) -> list[Answer]:
    backbone, samples = context.backbone, len(context.ids)
    generators = context.generators("tokens")
    tokens: list[list[int]] = [[] for _ in range(samples)]
    scores: list[list[Tensor]] = [[] for _ in range(samples)]
    answers: dict[int, Answer] = {}
    alive = list(range(samples))
    for step in range(max_new_tokens):
        combined_scores = combined(decoder, stack, names, step)
        picked = pick(combined_scores, selection, [generators[i] for i in alive])
        going: list[int] = []
        for row, (sample, token) in enumerate(zip(alive, picked.tolist(), strict=True)):
            tokens[sample].append(token)
            if step < record_scores:
                scores[sample].append(combined_scores[row].cpu())
            stop = ended(backbone, tokens[sample], max_new_tokens)
            if stop is None:
                going.append(row)
                continue
            seen = None if stack.attention is None else stack.attention[row] / (step + 1)
            answers[sample] = Answer(
                tokens[sample],
                final_text(backbone, tokens[sample]),
                stop,  # type: ignore[arg-type]
                torch.stack(scores[sample]) if scores[sample] else None,
                None if seen is None else seen.cpu().numpy(),
                forwards=(step + 1) * len(names),
            )
        if not going:
            break
        if len(going) < len(alive):
            rows = torch.tensor(going, device=picked.device)
            stack.keep(in_every_branch(rows, len(alive), len(names)))
            picked = picked[going]
            alive = [alive[row] for row in going]
        stack.append(picked.repeat(len(names)))
    return [answers[sample] for sample in range(samples)]
