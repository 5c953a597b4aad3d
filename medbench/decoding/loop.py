"""The token loop: branches -> logits -> combine -> pick -> append, for one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from medbench.decoding.answer import Answer, ended, final_text, looked
from medbench.decoding.beam import search
from medbench.decoding.branches import Branches, start
from medbench.decoding.context import DecodeContext, DecodeSettings
from medbench.decoding.select import penalised, pick
from medbench.method import Decoder
from medbench.model.prompt import Prompt


@torch.no_grad()
def decode(
    decoder: Decoder,
    prompts: Sequence[Prompt],
    context: DecodeContext,
    settings: DecodeSettings,
) -> list[Answer]:
    """Decode one batch of prompts and return the answers in their order.

    A sample's answer does not depend on its neighbours as far as the arithmetic is exact: in
    float32 batched and single runs give the same tokens, in bfloat16 nothing can promise that.
    """
    main = decoder.prepare(list(prompts), context)
    answers = decoder.search(main, context, settings)
    if answers is None:
        branches = start(decoder, main, context, settings)
        decode_rows = search if settings.selection.beams > 1 else _decode_tokens
        answers = decode_rows(branches, context, settings)
    return [
        replace(answer, forwards=answer.forwards + prompt.passes)
        for answer, prompt in zip(answers, main, strict=True)
    ]


def _decode_tokens(
    branches: Branches, context: DecodeContext, settings: DecodeSettings
) -> list[Answer]:
    backbone, samples, limit = context.backbone, len(context.ids), settings.max_new_tokens
    penalty = settings.selection.repetition_penalty
    generators = context.generators("tokens")
    asked = [backbone.said_before(prompt) for prompt in branches.prompts]
    tokens: list[list[int]] = [[] for _ in range(samples)]
    scores: list[list[Tensor]] = [[] for _ in range(samples)]
    answers: dict[int, Answer] = {}
    alive = list(range(samples))
    for step in range(limit):
        combined = branches.combined(step)
        allowed = penalised(combined, penalty, [asked[i] + tokens[i] for i in alive])
        picked = pick(allowed, settings.selection, [generators[i] for i in alive])
        going: list[int] = []
        for row, (sample, token) in enumerate(zip(alive, picked.tolist(), strict=True)):
            tokens[sample].append(token)
            if step < settings.record_scores:
                scores[sample].append(combined[row].cpu())
            stop = ended(backbone, tokens[sample], limit)
            if stop is None:
                going.append(row)
                continue
            answers[sample] = Answer(
                tokens[sample],
                final_text(backbone, tokens[sample]),
                stop,  # type: ignore[arg-type]
                torch.stack(scores[sample]) if scores[sample] else None,
                *looked(branches.attention(row), step + 1),
                forwards=(step + 1) * len(branches.names),
            )
        if not going:
            break
        if len(going) < len(alive):
            branches.keep(torch.tensor(going, device=picked.device))
            picked = picked[going]
            alive = [alive[row] for row in going]
        branches.append(picked)
    return [answers[sample] for sample in range(samples)]
