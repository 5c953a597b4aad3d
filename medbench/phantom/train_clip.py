"""A CLIP of open_clip's own classes learns which segment of an image a question is about.

First each tower learns alone: the vision tower from dense labels, half of the images whole and half
with one segment left sharp, the text tower what is asked. Then both learn to rank an image's
segments, as a segmenter found them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from medbench.phantom.clip_examples import (
    NAMES,
    Batch,
    Bytes,
    Cut,
    any_question,
    labels_inside,
    names_in,
    question_text,
    shown,
    some_mask,
)
from medbench.phantom.clip_model import EMBEDDING, WIDTH, clip_tokenizer, new_clip
from medbench.phantom.draw import draw
from medbench.phantom.model import DEVIATION, MEAN
from medbench.phantom.questions import KINDS
from medbench.phantom.stream import Stream
from medbench.phantom.train_sam import optimizers
from medbench.phantom.train_vision import MAPS, cosine_after_warmup, jitter, patch_labels
from medbench.phantom.world import ORGAN_NAMES, Scene

Report: TypeAlias = Callable[[str], None]
Log: TypeAlias = list[dict[str, float]]

_ASKED_ALONE, _ASKED = 3, 4  # keep these questions apart from those of the splits
_NOTED = 100  # steps a line of the log


@dataclass(frozen=True)
class ClipRecipe:
    """Step counts and rates.

    Attributes:
        alone_steps: of the first stage; alone_images: images a step, and as many questions.
        steps, images, questions: of the second: images a step, and questions tried on each.
        alone_rate, rate: of AdamW in the first and the second stage.
        alone_matrix_rate, matrix_rate: of Muon, for the matrices inside.
        lesion_weight: of a positive label of a lesion's type or size.
    """

    alone_steps: int = 1200
    alone_images: int = 16
    steps: int = 1600
    images: int = 6
    questions: int = 8
    alone_rate: float = 3e-3
    alone_matrix_rate: float = 0.02
    rate: float = 2e-3
    matrix_rate: float = 0.015
    warmup: int = 50
    lesion_weight: float = 3.0


def train_towers(
    scenes: Sequence[Scene],
    cuts: Sequence[Cut],
    *,
    recipe: ClipRecipe,
    seed: int,
    say: Report,
) -> tuple[Any, Log]:
    """Train a CLIP; return it with the log.

    Args:
        scenes: of the first stage; cuts: segmented scenes, of the second.
    """
    torch.manual_seed(seed)
    model = new_clip().train()
    heads = _Heads()
    log = _train_alone(model, heads, scenes, recipe, seed, say)
    log += _train_ranking(model, heads, cuts, recipe, seed, say)
    return model.eval().requires_grad_(False), log


class _Heads(nn.Module):
    """What reads labels off the towers during training, and is thrown away afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Linear(WIDTH, len(MAPS))
        self.image = nn.Linear(EMBEDDING, len(MAPS))
        self.names = nn.Linear(EMBEDDING, len(NAMES))
        self.kind = nn.Linear(EMBEDDING, len(KINDS))


def ranking_loss(
    similarity: Tensor, right: Tensor, same_image: Tensor, nothing_shared: Tensor
) -> Tensor:
    """Return how badly questions find their segments.

    A question's segments compete with the others of their image and with those of other images
    that share no name with the question; whether the rest would fit it too is not known.

    Args:
        similarity: scaled, [questions, segments]; the others: bool of the same shape.
    """
    allowed = same_image | nothing_shared
    against = similarity.masked_fill(~allowed, -torch.inf).logsumexp(1)
    found = similarity.masked_fill(~right, -torch.inf).logsumexp(1)
    return (against - found).mean()


def _train_alone(
    model: Any,
    heads: _Heads,
    scenes: Sequence[Scene],
    recipe: ClipRecipe,
    seed: int,
    say: Report,
) -> Log:
    """First stage: patches and images say what they show, texts what they ask about."""
    rates = recipe.alone_rate, recipe.alone_matrix_rate
    training = _Training(model, heads, rates, recipe.warmup, recipe.alone_steps, say)
    generator = np.random.default_rng((seed, 1))
    noise = torch.Generator().manual_seed(seed)
    tokenizer = clip_tokenizer()
    for step in range(1, recipe.alone_steps + 1):
        rows = generator.integers(len(scenes), size=recipe.alone_images)
        images, dense = list[Bytes](), list[npt.NDArray[np.float32]]()
        stream = Stream(_ASKED_ALONE, seed, step)
        texts, kinds = list[str](), list[int]()
        for place, row in enumerate(rows):
            scene = scenes[int(row)]
            mask = some_mask(scene, generator) if place % 2 else None
            images.append(shown(draw(scene), mask))
            dense.append(labels_inside(patch_labels(scene), mask))
            if question := any_question(scene, stream):
                texts.append(question_text(scene, question, prefix=stream.chance(0.5)))
                kinds.append(KINDS.index(question.kind))
        labels = torch.from_numpy(np.stack(dense))
        patches, embedding = _look(model, images, noise)
        losses = {
            "dense": _label_loss(heads.patches(patches), labels, recipe),
            "image": _label_loss(heads.image(embedding), labels.amax(1), recipe),
        }
        if texts:
            asked = model.encode_text(_ids(tokenizer, texts))
            names = torch.from_numpy(np.stack([names_in(text) for text in texts])).float()
            losses |= {
                "names": nn.functional.binary_cross_entropy_with_logits(heads.names(asked), names),
                "kind": nn.functional.cross_entropy(heads.kind(asked), torch.tensor(kinds)),
            }
        training.step("alone", step, losses)
    return training.log


def _train_ranking(
    model: Any, heads: _Heads, cuts: Sequence[Cut], recipe: ClipRecipe, seed: int, say: Report
) -> Log:
    """Second stage: a question's embedding is nearest that of its segment.

    The labels of the first stage stay; those of whole images keep features and attention good
    where nothing is blurred.
    """
    rates = recipe.rate, recipe.matrix_rate
    training = _Training(model, heads, rates, recipe.warmup, recipe.steps, say)
    generator = np.random.default_rng((seed, 2))
    noise = torch.Generator().manual_seed(seed)
    tokenizer = clip_tokenizer()
    usable = [cut for cut in cuts if len(cut.segments)]
    for step in range(1, recipe.steps + 1 if usable else 1):
        rows = generator.permutation(len(usable))[: recipe.images]
        whole = [usable[int(row)] for row in rows]
        batch = Batch(whole, recipe.questions, Stream(_ASKED, seed, step))
        if not batch.texts:
            continue
        patches, embedding = _look(model, [*batch.images, *(cut.image for cut in whole)], noise)
        held = np.stack([labels_inside(patch_labels(cut.scene), None) for cut in whole])
        labels = torch.from_numpy(held)
        of_images = torch.cat([batch.segment_labels, labels.amax(1)])
        asked = model.encode_text(_ids(tokenizer, batch.texts))
        count = len(batch.images)
        texts = nn.functional.normalize(asked)
        segments = nn.functional.normalize(embedding[:count])
        similarity = model.logit_scale.exp() * texts @ segments.T
        losses = {
            "rank": ranking_loss(similarity, batch.right, batch.same, batch.nothing_shared),
            "dense": _label_loss(heads.patches(patches[count:]), labels, recipe),
            "image": _label_loss(heads.image(embedding), of_images, recipe),
            "names": nn.functional.binary_cross_entropy_with_logits(
                heads.names(asked), batch.names.float()
            ),
        }
        training.step("rank", step, losses)
        with torch.no_grad():
            model.logit_scale.clamp_(max=float(np.log(100)))
    return training.log


class _Training:
    """The optimisers of a stage with their schedule and its log."""

    def __init__(
        self,
        model: Any,
        heads: _Heads,
        rates: tuple[float, float],
        warmup: int,
        steps: int,
        say: Report,
    ) -> None:
        self.log: Log = []
        self._steps, self._say = steps, say
        self._parameters = [*model.parameters(), *heads.parameters()]
        inside = [model.visual.transformer, model.text.transformer]
        self._optimizers = optimizers([model, heads], inside, rate=rates[0], matrix_rate=rates[1])
        self._schedules = [
            torch.optim.lr_scheduler.LambdaLR(
                one, lambda step: cosine_after_warmup(step, warmup, steps)
            )
            for one in self._optimizers
        ]
        self._sums: dict[str, float] = {}
        self._since = 0
        self._start = time.process_time()

    def step(self, stage: str, step: int, losses: dict[str, Tensor]) -> None:
        """Take a step down the sum of some losses, and note their means now and then."""
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(self._parameters, 1.0)
        for optimizer, schedule in zip(self._optimizers, self._schedules, strict=True):
            optimizer.step()
            schedule.step()
        self._since += 1
        for name, loss in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + loss.item()
        if step % _NOTED == 0 or step == self._steps:
            means = {name: round(total / self._since, 4) for name, total in self._sums.items()}
            seconds = round(time.process_time() - self._start, 1)
            self.log.append({"step": step, **means, "cpu_seconds": seconds})
            self._say(f"clip {stage} {self.log[-1]}")
            self._sums, self._since = {}, 0


def _ids(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> Tensor:
    return tokenizer(list(texts), padding="max_length", return_tensors="pt")["input_ids"]


def _look(model: Any, images: Sequence[Bytes], noise: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the patches' features, [n, 64, width], and the embeddings, [n, d], of images."""
    grey = (torch.from_numpy(np.stack(images)).float() / 255 - MEAN) / DEVIATION
    pixels = jitter(grey[:, None].expand(-1, 3, -1, -1), noise)
    output = model.visual.forward_intermediates(
        pixels, indices=1, normalize_intermediates=True, output_fmt="NLC"
    )
    return output["image_intermediates"][-1], output["image_features"]


def _label_loss(logits: Tensor, labels: Tensor, recipe: ClipRecipe) -> Tensor:
    weight = torch.ones(len(MAPS))
    weight[len(ORGAN_NAMES) :] = recipe.lesion_weight
    return nn.functional.binary_cross_entropy_with_logits(logits, labels, pos_weight=weight)
