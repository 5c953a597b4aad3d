"""Second stage: projector and language model learn to answer, on frozen visual features."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration

from medbench.phantom.model import tokenizer
from medbench.phantom.muon import Muon
from medbench.phantom.packing import IGNORED, Encoder, Packed, pack
from medbench.phantom.questions import KINDS, LOOKUPS, TRAINED_PHRASINGS, ask
from medbench.phantom.stream import Stream
from medbench.phantom.world import Scene

Report: TypeAlias = Callable[[str], None]

# Kinds that look up two things at once need most practice, those that name the region hardly any.
BASE_WEIGHTS = dict.fromkeys((*KINDS, *LOOKUPS), 1.2) | {
    "exist": 2.4,
    "organ": 1.0,
    "size": 1.0,
    "count": 2.0,
    "region": 0.2,
}
_DEVIATION = 0.06  # of new weights
_FIRST_KINDS = ("exist", "organ", "normal", "region", "what", "where", "size", "count", "choice")


@dataclass(frozen=True)
class Stage:
    """A stretch of training with batches of one composition.

    Attributes:
        until: its last step.
        kinds, phrasings: which kinds are asked, and how many phrasings of each.
        images, questions: of a batch; questions are packed behind their image.
        reports: share of images that carry a report beside the questions.
    """

    until: int
    kinds: tuple[str, ...]
    phrasings: int
    images: int = 8
    questions: int = 10
    reports: float = 0.25


@dataclass(frozen=True)
class LanguageRecipe:
    """Step counts and rates of the second stage.

    Attributes:
        stages: a single name as question, and reports, teach in a minute to look up what a word
            names; whole questions come after, few kinds in one phrasing first.
        learning_rate: of AdamW; matrix_rate: of Muon. Twice as high, what one kind has learnt is
            lost again to the next, and the jumps never come.
        steady: share of the steps before the learning rate falls.
        adapt: exponent of a kind's running loss in its sampling weight; 0 is no adaptation.
    """

    stages: tuple[Stage, ...] = (
        Stage(300, tuple(LOOKUPS), 1, reports=0.5),
        Stage(850, _FIRST_KINDS, 1),
        Stage(1150, KINDS, 1),
        Stage(2600, KINDS, TRAINED_PHRASINGS),
    )
    learning_rate: float = 1e-3
    matrix_rate: float = 0.008
    warmup: int = 100
    steady: float = 0.15
    adapt: float = 0.5

    @property
    def steps(self) -> int:
        """Number of optimiser steps."""
        return self.stages[-1].until


@dataclass(frozen=True)
class Corpus:
    """What the language stage reads: scenes and their visual features."""

    scenes: Sequence[Scene]
    features: Tensor


class KindSampler:
    """Draws questions; kinds with a higher running loss come more often.

    Args:
        corpus: what to ask about.
        recipe: weights' exponent and batch shape.
        seed: of all choices.
    """

    def __init__(self, corpus: Corpus, recipe: LanguageRecipe, seed: int) -> None:
        self._corpus = corpus
        self._recipe = recipe
        self._stream = Stream(3, seed)
        self.losses: dict[str, float] = dict.fromkeys((*KINDS, *LOOKUPS, "report"), 1.0)

    def batch(self, stage: Stage) -> tuple[list[int], list[list[str]], list[list[tuple[str, str]]]]:
        """Return image rows, and for each the kinds and the (question, answer) pairs."""
        weights = [
            BASE_WEIGHTS[kind] * max(self.losses[kind], 0.05) ** self._recipe.adapt
            for kind in stage.kinds
        ]
        rows, kinds, pairs = [], [], []
        for _ in range(stage.images):
            row = self._stream.below(len(self._corpus.scenes))
            scene = self._corpus.scenes[row]
            row_kinds, row_pairs = [], []
            if self._stream.chance(stage.reports):
                self._add(scene, "report", stage, row_kinds, row_pairs)
            while len(row_pairs) < stage.questions:
                kind = self._stream.weighted(stage.kinds, weights)
                self._add(scene, kind, stage, row_kinds, row_pairs)
            rows.append(row)
            kinds.append(row_kinds)
            pairs.append(row_pairs)
        return rows, kinds, pairs

    def observe(self, kind: str, loss: float) -> None:
        """Update a kind's running loss."""
        self.losses[kind] += 0.02 * (loss - self.losses[kind])

    def _add(
        self,
        scene: Scene,
        kind: str,
        stage: Stage,
        kinds: list[str],
        pairs: list[tuple[str, str]],
    ) -> None:
        phrasing = self._stream.below(stage.phrasings)
        want = self._stream.random()
        question = ask(scene, kind, self._stream, phrasing=phrasing, want=want)
        if question is not None:
            kinds.append(kind)
            pairs.append((question.text, question.answer))


def train_language(
    model: LlavaForConditionalGeneration,
    corpus: Corpus,
    *,
    recipe: LanguageRecipe,
    seed: int,
    say: Report,
) -> list[dict[str, object]]:
    """Train projector and language model; return the log."""
    initialise(model, corpus.features)
    encoder = Encoder(tokenizer())
    sampler = KindSampler(corpus, recipe, seed)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizers = make_optimizers(model, recipe)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, recipe))
        for optimizer in optimizers
    ]
    log: list[dict[str, object]] = []
    total, start = 0.0, time.process_time()
    for step in range(1, recipe.steps + 1):
        stage = next(stage for stage in recipe.stages if step <= stage.until)
        rows, kinds, pairs = sampler.batch(stage)
        packed = pack(pairs, encoder)
        projected = model.model.multi_modal_projector(corpus.features[rows].float())
        losses = answer_losses(model, projected, packed, encoder)
        answered = packed.labels != IGNORED
        answer_loss = losses.sum() / answered.sum()
        model.zero_grad()
        answer_loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        _observe(sampler, kinds, packed.turns, losses.detach(), answered)
        total += answer_loss.item()
        if step % 100 == 0 or step == recipe.steps:
            count = step % 100 or 100
            log.append(
                {
                    "step": step,
                    "loss": round(total / count, 4),
                    "kinds": {kind: round(loss, 3) for kind, loss in sampler.losses.items()},
                    "cpu_seconds": round(time.process_time() - start, 1),
                }
            )
            say(f"language {log[-1]}")
            total = 0.0
    model.eval()
    return log


def make_optimizers(
    model: LlavaForConditionalGeneration, recipe: LanguageRecipe
) -> list[torch.optim.Optimizer]:
    """Return Muon for the language model's inner matrices and AdamW for everything else.

    Muon's orthogonal updates reach the sudden jumps in which a kind is learnt in fewer steps.
    """
    inner = [
        parameter
        for parameter in model.model.language_model.layers.parameters()
        if parameter.ndim == 2
    ]
    known = {id(parameter) for parameter in inner}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in known]
    return [
        Muon(inner, lr=recipe.matrix_rate),
        torch.optim.AdamW(
            rest,
            lr=recipe.learning_rate,
            betas=(0.9, 0.95),
            weight_decay=0.01,
        ),
    ]


@torch.no_grad()
def initialise(model: LlavaForConditionalGeneration, features: Tensor) -> None:
    """Draw larger weights than usual, and fit the projector to the features' statistics.

    A width of 128 needs them: with the usual .02 nothing is learnt for hundreds of steps. The
    projector's inputs are whitened and its outputs have unit scale.
    """
    for parameter in model.model.language_model.parameters():
        if parameter.ndim == 2:
            parameter.normal_(0, _DEVIATION)
    model.lm_head.weight.normal_(0, _DEVIATION)
    projector = model.model.multi_modal_projector
    sample = features[:: max(1, len(features) // 1000)].float().flatten(0, 1)
    mean = sample.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov((sample - mean).T))
    whiten = vectors / values.clamp_min(1e-3 * float(values.max())).sqrt() @ vectors.T
    mixing = torch.linalg.qr(torch.randn(projector.linear_1.out_features, len(mean)))[0]
    projector.linear_1.weight.copy_(mixing @ whiten * (len(mixing) / len(mean)) ** 0.5)
    projector.linear_1.bias.copy_(-projector.linear_1.weight @ mean)
    projector.linear_2.weight.normal_(0, 1)
    projector.linear_2.bias.zero_()
    output = projector(sample)
    scale = 1 / output.std()
    projector.linear_2.weight.mul_(scale)
    projector.linear_2.bias.copy_(-output.mean(0) * scale)


def answer_losses(
    model: LlavaForConditionalGeneration, projected: Tensor, packed: Packed, encoder: Encoder
) -> Tensor:
    """Return the cross-entropy of each answer token, [rows, length]; zero elsewhere."""
    embed = model.get_input_embeddings()
    before = embed(torch.tensor(encoder.words.before_image)).expand(len(projected), -1, -1)
    inputs = torch.cat([before, projected, embed(packed.ids)], dim=1)
    hidden = model.model.language_model(
        inputs_embeds=inputs,
        attention_mask=packed.mask,
        position_ids=packed.positions,
        use_cache=False,
    ).last_hidden_state[:, encoder.words.prefix :]
    logits = model.lm_head(hidden)
    return nn.functional.cross_entropy(
        logits.transpose(1, 2), packed.labels, ignore_index=IGNORED, reduction="none"
    )


def _observe(
    sampler: KindSampler,
    kinds: list[list[str]],
    turns: Tensor,
    losses: Tensor,
    answered: Tensor,
) -> None:
    for row, row_kinds in enumerate(kinds):
        turn = turns[row].clamp_min(0)
        sums = torch.zeros(len(row_kinds)).index_add_(0, turn, losses[row])
        counts = torch.zeros(len(row_kinds)).index_add_(0, turn, answered[row].float())
        for kind, loss in zip(row_kinds, (sums / counts).tolist(), strict=True):
            sampler.observe(kind, loss)


def _rate(step: int, recipe: LanguageRecipe) -> float:
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    fall_from = recipe.steady * recipe.steps
    if step < fall_from:
        return 1.0
    done = (step - fall_from) / max(1.0, recipe.steps - fall_from)
    return 0.02 + 0.98 * 0.5 * (1 + float(np.cos(np.pi * done)))
