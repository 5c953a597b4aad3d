"""Decoders that break the contract, each in one way, and one that keeps it."""

import math
import random
from dataclasses import dataclass

import torch

from medbench.method import Decoder

SEEN = []


@dataclass(frozen=True)
class Fine(Decoder):
    """Favour the letters of the second half of the vocabulary."""

    name = "fine"

    alpha: float = 1.0

    def combine(self, logits, step):
        main = logits["main"]
        late = torch.arange(main.shape[-1], device=main.device) > main.shape[-1] // 2
        return main + self.alpha * late


class KeepsState(Decoder):
    """Favour another token in each call."""

    name = "keeps_state"

    def combine(self, logits, step):
        SEEN.append(step)
        scores = logits["main"].clone()
        scores[:, 30 + len(SEEN) % 50] += 20
        return scores


class KeepsOnItself(Decoder):
    """Leave the last scores on the instance."""

    name = "keeps_on_itself"

    def combine(self, logits, step):
        object.__setattr__(self, "last_step", step)
        return logits["main"]


class MeanOfBatch(Decoder):
    """Subtract what all samples of the batch have in common."""

    name = "mean_of_batch"

    def combine(self, logits, step):
        return logits["main"] - logits["main"].mean(0, keepdim=True)


class DrawsFromTorch(Decoder):
    """Add noise from torch's own generator."""

    name = "draws_from_torch"

    def combine(self, logits, step):
        return logits["main"] + torch.rand_like(logits["main"])


class DrawsFromPython(Decoder):
    """Add noise from Python's own generator, and put it back."""

    name = "draws_from_python"

    def combine(self, logits, step):
        state = random.getstate()
        noise = torch.tensor([random.random() for _ in range(logits["main"].shape[-1])])
        random.setstate(state)
        return logits["main"] + 5 * noise


class HooksOn(Decoder):
    """Put a hook on the model and forget it."""

    name = "hooks_on"

    def prepare(self, prompts, context):
        context.backbone.language_model.register_forward_hook(lambda *_: None)
        return prompts


class ChangesWeights(Decoder):
    """Write into the model's weights."""

    name = "changes_weights"

    def prepare(self, prompts, context):
        with torch.no_grad():
            context.backbone.language_model.lm_head.weight[0, 0] += 1e-3
        return prompts


class NotAnnotated(Decoder):
    """Have a parameter that is none."""

    name = "not_annotated"

    alpha = 1.0


@dataclass(frozen=True)
class NotInTheKey(Decoder):
    """Say of a parameter that it moves nothing."""

    name = "not_in_the_key"
    unkeyed = ("token",)

    token: int = 40

    def combine(self, logits, step):
        scores = logits["main"].clone()
        scores[:, self.token % scores.shape[-1]] += 5
        return scores


@dataclass(frozen=True)
class KeepsDefault(Decoder):
    """Take another value, and run with the default."""

    name = "keeps_default"

    alpha: float = 1.0

    def __post_init__(self):
        object.__setattr__(self, "alpha", min(self.alpha, 1.0))


@dataclass(frozen=True)
class RefusesVariant(Decoder):
    """Have a variant that the class refuses."""

    name = "refuses_variant"
    variants = {"official": {"alpha": -1.0}}

    alpha: float = 1.0

    def __post_init__(self):
        if self.alpha < 0:
            raise ValueError("alpha is 0 or more")


class NeedsNothingKnown(Decoder):
    """Need what nothing offers."""

    name = "needs_nothing_known"
    needs = ("imagespan",)


class NotANumber(Decoder):
    """Give scores that are no numbers."""

    name = "not_a_number"

    def combine(self, logits, step):
        return logits["main"].log()


class BarsEverything(Decoder):
    """Bar every token in the third step."""

    name = "bars_everything"

    def combine(self, logits, step):
        return torch.full_like(logits["main"], -math.inf) if step == 2 else logits["main"]


class LooksAtRegions(Decoder):
    """Read the regions without a word."""

    name = "looks_at_regions"

    def prepare(self, prompts, context):
        told = [roi is not None and roi.any() for roi in context.rois]
        return [p.without_image() if t else p for p, t in zip(prompts, told, strict=True)]


class DrawsAlike(Decoder):
    """Leave nothing to draw from."""

    name = "draws_alike"

    def combine(self, logits, step):
        best = logits["main"].argmax(-1, keepdim=True)
        return torch.full_like(logits["main"], -math.inf).scatter(-1, best, 0.0)


class NoWords(Decoder):
    name = "No-Words"


class TooDeep(Decoder):
    """Name a layer that a small model has not."""

    name = "too_deep"

    def check(self, depth):
        if depth.language < 20:
            raise ValueError("layer 20 is not there")
