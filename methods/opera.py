"""OPERA: beam search that distrusts tokens on which all later ones lean, and goes back."""

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from medbench.decoding.answer import Answer
from medbench.decoding.beam import Beams, counted_ids
from medbench.decoding.context import DecodeContext, DecodeSettings
from medbench.decoding.lookahead import BeamStack
from medbench.decoding.reading import Reading
from medbench.decoding.select import penalised
from medbench.method import Decoder
from medbench.model.prompt import Prompt

SCALE = math.log(1e-7)
# The first tokens are rewarded for looking at the image, and are never gone back to.
FIRST = 10
BARRED = -999.0
# Length of the published code's lists of rollbacks and rejects.
WINDOW = 512


@dataclass(frozen=True)
class OPERA(Decoder):
    """Over-trust penalty and retrospection: beam search that distrusts tokens all others lean on.

    Each beam's likeliest candidates are tried. With A the last layer's attention, the largest over
    heads, rows normalised, phi_j = 1e-7 prod_{i >= j} scale_factor A_ij over the answer so far and
    the candidate: a candidate's logit loses the largest phi, or while the answer is short gains its
    attention on the image. If the same token j stays the most trusted too often, the search goes
    back behind it and takes other tokens.

    Args:
        scale_factor: of the attention in phi.
        threshold: how often the same token may be the most trusted one.
        num_attn_candidates: tokens tried for each beam.
        penalty_weights: weight of the penalty.
        opera_score_dtype: precision of phi's product; float32 is kept as a logarithm and cannot
            overflow, float16 overflows as in A3Tune's code.
        opera_phi_dtype: precision in which phi is compared; the published code has float16.
        opera_compat: replay the published code's slips: rejects that outlive a rollback, finished
            answers shared by its snapshots, rollbacks to where the answer ends, and the hypothesis
            length of transformers 4.29 with one prompt token.
        response_start: where phi's window begins: the answer, or as many positions in as the prompt
            has ids, which is A3Tune's code for LLaVA-Med-1.5; the search then never goes back.
    """

    name = "opera"
    paper = "Huang et al. 2024, arXiv:2311.17911; 5 beams, 50, 15, 5, 1 as in A3Tune, App. B"
    needs = ("image_span", "attention")
    variants = {
        "official": {"opera_compat": True, "opera_phi_dtype": "float16"},
        "a3tune": {
            "opera_compat": True,
            "opera_score_dtype": "float16",
            "opera_phi_dtype": "float16",
            "response_start": "ids",
        },
        "report15": {"scale_factor": 25.0, "threshold": 25},
    }
    deviates = (
        "errors inside a rollback are errors, not a silent end of it; report15 is App. B's setting "
        "for reports on LLaVA-Med-1.5; A3Tune's window for 1.0 only crashes and is not offered"
    )
    rows_per_token = "5 (beams), each with 5 candidates in one pass, 25 tokens in all"
    extra_memory = "keys and values of 5 beams of one sample at a time"
    schedule = "the samples of a batch run one by one, since each may go back on its own"

    select: Literal["preset", "argmax", "sample"] = "argmax"
    beams: int = 5
    scale_factor: float = 50.0
    threshold: int = 15
    num_attn_candidates: int = 5
    penalty_weights: float = 1.0
    opera_score_dtype: Literal["float32", "float16"] = "float32"
    opera_phi_dtype: Literal["float32", "float16"] = "float32"
    opera_compat: bool = False
    response_start: Literal["answer", "ids"] = "answer"

    def __post_init__(self) -> None:
        if self.beams < 2:
            raise ValueError("beams is 2 or more")
        if self.num_attn_candidates < 1:
            raise ValueError("num_attn_candidates is 1 or more")
        if self.scale_factor < 0 or self.threshold < 0:
            raise ValueError("scale_factor and threshold are 0 or more")

    def search(self, prompts: list[Prompt], context: DecodeContext, settings: DecodeSettings):
        """Decode the samples one by one."""
        return [_Search(self, prompt, context, settings).run() for prompt in prompts]

    def products(self, rows: Tensor, trust: Tensor) -> Tensor:
        """Return ln of phi's products, float64 [beams, K, m], the candidates' rows included.

        Args:
            rows: normalised attention on the window, [beams, K, m], the candidate itself last.
            trust: ln of the products so far, float64 [beams, m - 1].
        """
        logs = (self.scale_factor * rows.double()).log()
        return torch.cat([logs[..., :-1] + trust[:, None], logs[..., -1:]], dim=-1)

    def phi(self, products: Tensor) -> Tensor:
        """Return phi by candidate and column, in the precision asked for."""
        if self.opera_score_dtype == self.opera_phi_dtype == "float32":
            return (products + SCALE).exp()
        product = products.exp().to(getattr(torch, self.opera_score_dtype))
        return (1e-7 * product).to(getattr(torch, self.opera_phi_dtype))


@dataclass(frozen=True)
class _Step:
    """The search before a token is taken, as a rollback restores it.

    Attributes:
        trust: ln of phi's products by beam and column; attention: summed up on the image.
        taken: (parent, token) by beam, how it got here.
    """

    beams: Beams
    trust: Tensor
    attention: Tensor | None
    taken: list[tuple[int, int]]


@dataclass
class _History:
    """What happened so far: the steps, the most trusted places, rollbacks and rejects.

    Attributes:
        places: at each step the most trusted token of each beam's slot.
        visits: how often the search went back to a length; rejects: what it took there before.
    """

    steps: list[_Step] = field(default_factory=list)
    places: list[Tensor] = field(default_factory=list)
    visits: Counter[int] = field(default_factory=Counter)
    rejects: dict[int, set[int]] = field(default_factory=dict)


class _Search:
    """The search for one sample's answer."""

    def __init__(
        self, method: OPERA, prompt: Prompt, context: DecodeContext, settings: DecodeSettings
    ) -> None:
        self.method, self.backbone, self.settings = method, context.backbone, settings
        by_ids = method.response_start == "ids"
        reading = Reading(attention=settings.record_attention, prompt_rows=by_ids)
        self.stack = BeamStack(context.backbone, prompt, method.beams, reading)
        self.image = prompt.visual.nonzero()[:, 0]
        images = int(prompt.visual.sum())
        self.start = len(prompt) - (images - 1 if by_ids else 0)
        self.trust = self._prompt_trust()
        self.asked = context.backbone.said_before(prompt)
        counted = 1 if method.opera_compat else counted_ids(prompt, settings.selection)
        self.beams = Beams(method.beams, prompt_ids=counted)
        self.history = _History()

    def run(self) -> Answer:
        """Search until no running beam can win, and return the best answer."""
        method, stack = self.method, self.stack
        recorded: list[Tensor] = []
        taken: list[tuple[int, int]] = []
        while True:
            tried = min(method.num_attn_candidates, stack.logits.shape[1])
            logits, candidates = stack.logits.topk(tried)
            ahead = stack.propose(candidates)
            rows = normalised(ahead.rows)
            products = method.products(rows[..., self.start :], self.trust)
            best, place = method.phi(products).max(-1)
            # While the answer is short, looking at the image is rewarded.
            short = products.shape[-1] <= FIRST
            penalty = -rows[..., self.image].sum(-1) if short else best
            self._remember(place, taken)
            target = self._target()
            if target is None:
                scores = torch.full_like(stack.logits, BARRED)
                scores.scatter_(1, candidates, logits - method.penalty_weights * penalty.float())
            else:
                scores = self._go_back(*target)
            logs = self._penalised(scores.log_softmax(-1))
            if self.beams.steps < self.settings.record_scores:
                # Steps that were gone back behind are recorded as they came out in the end.
                recorded[self.beams.steps :] = [logs.cpu()]
            taken = self._advance(logs)
            if self.beams.done:
                return self.beams.answer(self.backbone, recorded, forwards=stack.forwards)
            self._follow(taken, candidates if target is None else None, products)

    def _penalised(self, logs: Tensor) -> Tensor:
        seen = [self.asked + tokens for tokens in self.beams.tokens]
        return penalised(logs, self.settings.selection.repetition_penalty, seen)

    def _advance(self, logs: Tensor) -> list[tuple[int, int]]:
        total = logs + logs.new_tensor(self.beams.scores)[:, None]
        keep = max(2, 1 + len(self.backbone.eos_token_ids)) * self.beams.width
        best, index = total.flatten().topk(
            2 * self.beams.width if self.method.opera_compat else keep
        )
        candidates = zip(best.tolist(), index.tolist(), strict=True)
        limit = self.settings.max_new_tokens
        attention = self.stack.attention
        return self.beams.advance(candidates, logs.shape[1], self.backbone, limit, attention)

    def _follow(
        self, taken: list[tuple[int, int]], candidates: Tensor | None, products: Tensor
    ) -> None:
        """Append what was taken: as proposed where all of it was proposed, else by a new pass."""
        device = self.stack.logits.device
        parents = torch.tensor([parent for parent, _ in taken], device=device)
        tokens = torch.tensor([token for _, token in taken], device=device)
        if candidates is not None:
            proposed = candidates[parents] == tokens[:, None]
            if bool(proposed.any(1).all()):
                choices = proposed.long().argmax(1)
                self.stack.accept(parents, choices)
                self.trust = products[parents, choices]
                return
            self.stack.discard()
        self.stack.keep(parents, same_prompts=True)
        rows = normalised(self.stack.propose(tokens[:, None]).rows)
        products = self.method.products(rows[..., self.start :], self.trust[parents])
        everyone = torch.arange(len(parents), device=device)
        self.stack.accept(everyone, torch.zeros_like(everyone))
        self.trust = products[:, 0]

    def _remember(self, place: Tensor, taken: list[tuple[int, int]]) -> None:
        # On the CPU, where the smallest of several modes is taken.
        self.history.places.append(place.cpu().mode(-1).values)
        self.history.steps.append(
            _Step(self.beams.snapshot(), self.trust, self.stack.attention, taken)
        )

    def _target(self) -> tuple[int, int] | None:
        """Return how long an answer to go back to, and under which length to note it, if at all."""
        history, generated = self.history, self.beams.steps
        most = int(history.places[-1].mode().values)
        often = (torch.stack(history.places) == most).sum(0) > self.method.threshold
        if self.method.response_start == "ids" or most < FIRST or not bool(often.all()):
            return None
        noted, compat = most + 1, self.method.opera_compat
        if compat and noted >= WINDOW:
            return None
        limit = self.method.num_attn_candidates
        if history.visits[noted] >= limit:
            noted -= 1
        # What was trusted is kept. Where the answer ends with it nothing can be taken back; the
        # published code then takes back the token itself.
        target = min(noted, generated - 1)
        if history.visits[noted] >= limit or (target < noted and not compat):
            return None
        history.visits[noted] += 1
        return target, noted

    def _go_back(self, target: int, noted: int) -> Tensor:
        """Restore the beams of that length; return scores that bar what they took before."""
        history, compat = self.history, self.method.opera_compat
        step, left = history.steps[target], history.steps[target + 1].taken
        if compat:
            for position in range(self.beams.steps - noted - 1):
                history.rejects.pop(WINDOW - 1 - position, None)
            history.rejects.pop(noted + 1, None)
        else:
            history.rejects = {key: kept for key, kept in history.rejects.items() if key <= noted}
        del history.steps[target + 1 :], history.places[target + 1 :]
        self.beams, self.trust = step.beams.snapshot(), step.trust
        if compat:
            self.beams.finished = step.beams.finished
        self.stack.rewind(
            torch.tensor(self.beams.tokens, device=self.stack.logits.device), step.attention
        )
        scores = self.stack.logits
        scores = scores - (scores.amin(-1, keepdim=True) - BARRED)
        width = scores.shape[1]
        rejects = history.rejects.setdefault(noted, set())
        rejects |= {parent * width + token for parent, token in left}
        flat = scores.flatten()
        flat[torch.tensor(sorted(rejects), device=flat.device)] = BARRED
        return flat.view_as(scores)

    def _prompt_trust(self) -> Tensor:
        """Return ln of the products over the window's part of the prompt, [beams, columns]."""
        rows, width = self.stack.prompt_rows, self.stack.prompt_width - self.start
        if rows is None or not width:
            return self.stack.logits.new_zeros(self.method.beams, 0).double()
        window = normalised(rows)[0, self.start :, self.start :]
        logs = (self.method.scale_factor * window.double()).log()
        # Row i counts for the columns up to i; those after it see nothing of it.
        lower = torch.ones_like(logs).tril().bool()
        return logs.masked_fill(~lower, 0.0).sum(0).expand(self.method.beams, width)


def normalised(rows: Tensor) -> Tensor:
    """Return the heads' largest attention, [beams, heads, Q, T] -> [beams, Q, T], summing to 1."""
    largest = rows.amax(1)
    return largest / largest.sum(-1, keepdim=True)
