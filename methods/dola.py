"""DoLa: subtract what the model would have said after an early layer."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from medbench.backbone import Depth
from medbench.decoding.plausibility import plausible
from medbench.decoding.reading import HiddenReadout, Reading
from medbench.method import Decoder

EARLY = tuple(range(0, 16, 2))


@dataclass(frozen=True)
class DoLa(Decoder):
    """Decoding by contrasting layers: subtract what the model would say after an early layer.

    For each token and sample, the early layer that differs most from the last one is taken:
    scores = lsm(z) - lsm(z_early), where lsm(z) >= max lsm(z) + ln relative_top.

    Args:
        mature_layer: the layer that speaks; none takes the last.
        candidate_premature_layers: the layers to choose from, 0 for the embeddings; none takes
            0, 2, ..., 14 as far as they lie below the mature one.
        relative_top: plausibility cut on the mature layer; 0 cuts nothing.
        early_norm: whether the final norm goes between an early layer and the output head.
    """

    name = "dola"
    paper = "Chuang et al. 2024, arXiv:2309.03883; mature 32, early 0-14 by 2 as in A3Tune, App. B"
    needs = ("hidden_states",)
    variants = {"official": {"repetition_penalty": 1.2}, "a3tune": {}}
    deviates = "the layer is chosen for each sample, not once for the batch"
    rows_per_token = "1, and one output head per early layer"
    extra_memory = "logits of the early layers for the last position"

    mature_layer: int | None = None
    candidate_premature_layers: tuple[int, ...] | None = None
    relative_top: float = 0.1
    early_norm: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.relative_top <= 1:
            raise ValueError("relative_top lies in 0 to 1")
        if self.candidate_premature_layers == ():
            raise ValueError("candidate_premature_layers names at least one layer")

    def check(self, depth):
        """Make sure that the layers are there, and the early ones below the mature one."""
        mature = self._mature(depth)
        if not 0 < mature <= depth.language:
            raise ValueError(f"mature_layer is {mature}")
        odd = [layer for layer in self._early(depth) if not 0 <= layer < mature]
        if odd:
            raise ValueError(f"premature layer {odd[0]} does not lie below layer {mature}")

    def reading(self, depth):
        """Read out the early layers, behind a mature one that was asked for."""
        mature = () if self.mature_layer is None else (self.mature_layer,)
        return Reading(readout=HiddenReadout(mature + self._early(depth), self.early_norm))

    def combine(self, logits, step):
        """Subtract the log-probabilities of the early layer that differs most."""
        mature, early = logits["main"], logits["early"]
        if self.mature_layer is not None:
            mature, early = early[:, 0], early[:, 1:]
        mature, early = mature.log_softmax(-1), early.log_softmax(-1)
        # One layer at a time: all at once would leave the processor's cache.
        apart = [divergence(mature, one) for one in early.unbind(1)]
        chosen = torch.stack(apart, dim=1).argmax(-1)
        rows = torch.arange(len(chosen), device=chosen.device)
        return plausible(mature - early[rows, chosen], mature, self.relative_top)

    def _mature(self, depth: Depth) -> int:
        return depth.language if self.mature_layer is None else self.mature_layer

    def _early(self, depth: Depth) -> tuple[int, ...]:
        if self.candidate_premature_layers is not None:
            return self.candidate_premature_layers
        return tuple(layer for layer in EARLY if layer < self._mature(depth))


def divergence(first: Tensor, second: Tensor) -> Tensor:
    """Return how far two distributions are apart, from log-probabilities [..., vocabulary].

    Half the sum of the two means over the vocabulary of M (ln M - ln p), with M the mixture: the
    published divergence, where Jensen and Shannon have the logarithms the other way round.
    """
    mixture = torch.logaddexp(first, second) - math.log(2)
    return (mixture.exp() * (mixture - (first + second) / 2)).mean(-1)
