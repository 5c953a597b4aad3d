"""Beam search over the scores a decoder makes.

Order and rules are those of transformers' `generate(num_beams=...)` with length penalty 1 and early
stopping off, so that plain beam search gives its tokens: those of today, or those of 4.29.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from medbench.decoding.answer import Answer, ended, final_text, looked
from medbench.decoding.branches import Branches
from medbench.decoding.context import DecodeContext, DecodeSettings
from medbench.decoding.select import Selection, penalised
from medbench.model.llava import Backbone
from medbench.model.prompt import Prompt

# Stands for "no hypothesis yet"; what transformers uses, so that ties fall the same way.
NEVER = -1e9


@dataclass(frozen=True)
class Hypothesis:
    """A finished answer: its log-probability over its length, tokens, and why it ended.

    `attention` is what its beam saw, as `RowStack` keeps it.
    """

    score: float
    tokens: list[int]
    stop: str
    attention: Tensor | None


@dataclass
class Beams:
    """The search of one sample: running beams, best first, and finished hypotheses.

    Attributes:
        prompt_ids: None for today's rules, where a length is the number of new tokens; otherwise
            those of transformers 4.29, where it also counts that many prompt tokens, and not the
            end token.
    """

    width: int
    prompt_ids: int | None = None
    tokens: list[list[int]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    finished: list[Hypothesis] = field(default_factory=list)
    steps: int = 0
    done: bool = False

    def __post_init__(self) -> None:
        if not self.tokens:
            self.tokens = [[] for _ in range(self.width)]
            # Only the first beam is alive at first: all of them hold the same prompt.
            self.scores = [0.0] + [NEVER] * (self.width - 1)

    def snapshot(self) -> Beams:
        """Return a copy that later steps leave as it is."""
        return replace(
            self, tokens=list(self.tokens), scores=list(self.scores), finished=list(self.finished)
        )

    def advance(
        self,
        candidates: Iterable[tuple[float, int]],
        vocabulary: int,
        backbone: Backbone,
        limit: int,
        attention: Tensor | None,
    ) -> list[tuple[int, int]]:
        """Sort candidates into finished and running; return the running ones' (parent, token).

        Args:
            candidates: (log-probability, parent * vocabulary + token), best first.
            limit: new tokens at which an answer is cut.
            attention: of each beam so far, as `RowStack` keeps it.
        """
        candidates = list(candidates)
        self.steps += 1
        steps = self.steps
        picked: list[tuple[int, int]] = []
        tokens: list[list[int]] = []
        scores: list[float] = []

        def finish(score: float, parent: int, extended: list[int], stop: str) -> None:
            # A copy, so that the other beams' can go.
            seen = None if attention is None else attention[parent].clone()
            length = self._length(steps, ended=stop != "length")
            self.finished.append(Hypothesis(score / length, extended, stop, seen))
            self.finished.sort(key=lambda one: -one.score)
            del self.finished[self.width :]

        for rank, (score, place) in enumerate(candidates):
            parent, token = divmod(place, vocabulary)
            extended = [*self.tokens[parent], token]
            stop = ended(backbone, extended, limit)
            runs = stop is None or (stop == "length" and self.prompt_ids is not None)
            if runs and len(picked) < self.width:
                picked.append((parent, token))
                tokens.append(extended)
                scores.append(score)
            # A beam that ends below the best `width` is dropped: it only stood in reserve.
            if not runs and stop is not None and rank < self.width:
                finish(score, parent, extended, stop)
        if not picked:
            self.done = True
            return picked
        while len(picked) < self.width:
            # Stop strings can end more beams than the reserve holds; a dead copy fills the place.
            picked.append(picked[-1])
            tokens.append(tokens[-1])
            scores.append(NEVER)
        self.tokens, self.scores = tokens, scores
        # 4.29 looks at the best candidate, even where it has just ended.
        best = scores[0] if self.prompt_ids is None else candidates[0][0]
        if len(self.finished) == self.width:
            self.done = best / self._length(steps, ended=False) <= self.finished[-1].score
        if steps == limit and not self.done:
            for (parent, _), extended, score in zip(picked, tokens, scores, strict=True):
                finish(score, parent, extended, "length")
            self.done = True
        return picked

    def answer(self, backbone: Backbone, recorded: Sequence[Tensor], *, forwards: int) -> Answer:
        """Return the best hypothesis as an answer."""
        best = self.finished[0]
        return Answer(
            best.tokens,
            final_text(backbone, best.tokens),
            best.stop,  # type: ignore[arg-type]
            torch.stack(list(recorded)) if recorded else None,
            *looked(best.attention, len(best.tokens)),
            forwards=forwards,
        )

    def _length(self, steps: int, *, ended: bool) -> int:
        return steps if self.prompt_ids is None else self.prompt_ids + steps - ended


def counted_ids(prompt: Prompt, selection: Selection) -> int | None:
    """Return how many of the prompt's tokens a hypothesis's length counts; None for none."""
    if selection.length_norm == "generated":
        return None
    # For those who counted them, an image was one token of the prompt.
    return len(prompt.text_ids) + int(prompt.visual.any())


def search(branches: Branches, context: DecodeContext, settings: DecodeSettings) -> list[Answer]:
    """Search with beams; the stack holds one row per branch and sample when it begins."""
    selection, backbone = settings.selection, context.backbone
    width, device = selection.beams, branches.stack.logits.device
    asked = [backbone.said_before(prompt) for prompt in branches.prompts]
    alive = list(range(len(asked)))
    branches.keep(torch.tensor(alive, device=device).repeat_interleave(width))
    searches = [Beams(width, counted_ids(prompt, selection)) for prompt in branches.prompts]
    recorded: list[list[Tensor]] = [[] for _ in alive]
    keep_best = max(2, 1 + len(backbone.eos_token_ids)) * width
    for step in range(settings.max_new_tokens):
        seen = [asked[i] + tokens for i in alive for tokens in searches[i].tokens]
        scores = branches.combined(step).log_softmax(-1)
        scores = penalised(scores, selection.repetition_penalty, seen)
        scores = scores.view(len(alive), width, -1)
        so_far = torch.tensor([searches[i].scores for i in alive], device=device)
        best, index = (scores + so_far[..., None]).flatten(1).topk(keep_best)
        parents: list[int] = []
        chosen: list[int] = []
        going: list[int] = []
        for row, sample in enumerate(alive):
            if step < settings.record_scores:
                recorded[sample].append(scores[row].cpu())
            beams = searches[sample]
            candidates = zip(best[row].tolist(), index[row].tolist(), strict=True)
            attention = branches.stack.attention
            attention = None if attention is None else attention[row * width :][:width]
            picked = beams.advance(
                candidates, scores.shape[-1], backbone, settings.max_new_tokens, attention
            )
            if beams.done:
                continue
            going.append(row)
            parents += [row * width + parent for parent, _ in picked]
            chosen += [token for _, token in picked]
        if not going:
            break
        rows = torch.tensor(parents, device=device)
        branches.keep(rows, same_prompts=len(going) == len(alive))
        alive = [alive[row] for row in going]
        branches.append(torch.tensor(chosen, device=device))
    return [
        beams.answer(
            backbone,
            scores,
            forwards=(1 + (beams.steps - 1) * width) * len(branches.names),
        )
        for beams, scores in zip(searches, recorded, strict=True)
    ]
