"""Beam search over the scores a decoder makes.

Order and rules are those of transformers' `generate(num_beams=...)` with length penalty 1 and early
stopping off, so that plain beam search gives its tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from medbench.decoding.answer import Answer, ended, final_text
from medbench.decoding.branches import combined, in_every_branch
from medbench.decoding.context import DecodeContext
from medbench.decoding.select import Selection
from medbench.decoding.stack import RowStack
from medbench.method import Decoder

# Stands for "no hypothesis yet"; what transformers uses, so that ties fall the same way.
NEVER = -1e9


@dataclass
class Hypothesis:
    """A finished answer: mean log-probability per token, its end token counted."""

    score: float
    tokens: list[int]
    stop: str
    attention: Tensor | None


@dataclass
class Beams:
    """The search of one sample: running beams, best first, and finished hypotheses."""

    width: int
    tokens: list[list[int]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    finished: list[Hypothesis] = field(default_factory=list)
    steps: int = 0
    done: bool = False

    def __post_init__(self) -> None:
        self.tokens = [[] for _ in range(self.width)]
        # Only the first beam is alive at first: all of them hold the same prompt.
        self.scores = [0.0] + [NEVER] * (self.width - 1)

    def finish(self, hypothesis: Hypothesis) -> None:
        """Take a hypothesis in if it is among the best so far."""
        self.finished.append(hypothesis)
        self.finished.sort(key=lambda one: -one.score)
        del self.finished[self.width :]

    def judge(self) -> None:
        """Stop when no running beam, at today's length, beats the worst finished one."""
        if len(self.finished) == self.width:
            best = self.scores[0] / self.steps
            self.done = best <= self.finished[-1].score


def search(
    decoder: Decoder,
    stack: RowStack,
    names: Sequence[str],
    context: DecodeContext,
    selection: Selection,
    max_new_tokens: int,
    record_scores: int,
) -> list[Answer]:
    """Search with beams; the stack holds one row per branch and sample when it begins."""
    width, backbone, samples = selection.beams, context.backbone, len(context.ids)
    device = stack.logits.device
    every = torch.arange(samples * len(names), device=device).repeat_interleave(width)
    stack.keep(every)
    searches = [Beams(width) for _ in range(samples)]
    recorded: list[list[Tensor]] = [[] for _ in range(samples)]
    alive = list(range(samples))
    keep_best = max(2, 1 + len(backbone.eos_token_ids)) * width
    for step in range(max_new_tokens):
        scores = combined(decoder, stack, names, step).log_softmax(-1)
        scores = scores.view(len(alive), width, -1)
        total = scores + torch.tensor([searches[i].scores for i in alive], device=device).unsqueeze(
            -1
        )
        best, index = total.flatten(1).topk(keep_best)
        parents: list[int] = []
        chosen: list[int] = []
        going: list[int] = []
        for row, sample in enumerate(alive):
            if step < record_scores:
                recorded[sample].append(scores[row].cpu())
            beams = searches[sample]
            candidates = zip(best[row].tolist(), index[row].tolist(), strict=True)
            seen = None if stack.attention is None else stack.attention[row * width :][:width]
            picked = _advance(beams, candidates, scores.shape[-1], context, max_new_tokens, seen)
            if beams.done:
                continue
            going.append(row)
            parents += [row * width + parent for parent, _ in picked]
            chosen += [token for _, token in picked]
        if not going:
            break
        rows = torch.tensor(parents, device=device)
        stack.keep(in_every_branch(rows, len(alive) * width, len(names)))
        alive = [alive[row] for row in going]
        stack.append(torch.tensor(chosen, device=device).repeat(len(names)))
    return [
        _answer(searches[sample], recorded[sample], context, len(names))
        for sample in range(samples)
    ]


def _advance(
    beams: Beams,
    candidates: zip[tuple[float, int]],
    vocabulary: int,
    context: DecodeContext,
    limit: int,
    attention: Tensor | None,
) -> list[tuple[int, int]]:
    """Sort candidates, best first, into finished and running; return (parent, token) pairs."""
    picked: list[tuple[int, int]] = []
    tokens: list[list[int]] = []
    scores: list[float] = []
    beams.steps += 1
    for rank, (score, place) in enumerate(candidates):
        parent, token = divmod(place, vocabulary)
        extended = [*beams.tokens[parent], token]
        stop = ended(context.backbone, extended, limit)
        if stop is None and len(picked) < beams.width:
            picked.append((parent, token))
            tokens.append(extended)
            scores.append(score)
        # A beam that ends below the best `width` is dropped: it only stood in reserve.
        if stop is not None and rank < beams.width:
            seen = None if attention is None else attention[parent] / beams.steps
            beams.finish(Hypothesis(score / beams.steps, extended, stop, seen))
    if not picked:
        beams.done = True
        return picked
    while len(picked) < beams.width:
        # Stop strings can end more beams than the reserve holds; a dead copy fills the place.
        picked.append(picked[-1])
        tokens.append(tokens[-1])
        scores.append(NEVER)
    beams.tokens, beams.scores = tokens, scores
    beams.judge()
    return picked


def _answer(beams: Beams, recorded: list[Tensor], context: DecodeContext, branches: int) -> Answer:
    best = beams.finished[0]
    return Answer(
        best.tokens,
        final_text(context.backbone, best.tokens),
        best.stop,  # type: ignore[arg-type]
        torch.stack(recorded) if recorded else None,
        None if best.attention is None else best.attention.cpu().numpy(),
        forwards=(1 + (beams.steps - 1) * beams.width) * branches,
    )
