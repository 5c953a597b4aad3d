"""AVISC: contrast with an image of which only the tokens that draw attention blindly are left."""

from dataclasses import dataclass
from typing import Literal

import torch

from medbench.decoding.contrast import Contrast
from medbench.decoding.reading import Reading


@dataclass(frozen=True)
class AVISC(Contrast):
    """Attentional vision calibration: contrast with an image reduced to its blind tokens.

    The attention of the prompt's last token, in the layers that look at the image most, tells which
    image tokens draw it whatever is asked; the negative prompt keeps only these.
    scores = (1 + alpha) z - alpha z_blind, where z(y) >= max z + ln beta.

    Args:
        alpha: weight of the contrast.
        layer_gamma: the layers taken hold at least this share of all attention on the image.
        blind_selector: which tokens are blind: the `blind_topk` most attended ones, or those at
            the mean plus `lamb` standard deviations or above.
        blind_topk, lamb: of the selector.
        masking_scheme: what stands in place of the other tokens.
    """

    name = "avisc"
    paper = "Woo et al. 2024, arXiv:2405.17820; alpha 1, beta 0.1, top 10 as in A3Tune, App. B"
    needs = ("image_span", "attention")
    variants = {
        "official": {"blind_selector": "threshold"},
        "a3tune": {"blind_selector": "threshold"},
    }
    deviates = "App. B says top 10, its code and the authors' a threshold; no sums over the batch"
    extra_memory = "as many keys and values again, and one attention row of the prompt a layer"

    alpha: float = 1.0
    layer_gamma: float = 0.5
    blind_selector: Literal["topk", "threshold"] = "topk"
    blind_topk: int = 10
    lamb: float = 1.0
    masking_scheme: Literal["zeros", "ones", "noise"] = "zeros"

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.layer_gamma <= 1 or self.blind_topk < 1:
            raise ValueError("layer_gamma lies in 0 to 1, blind_topk is 1 or more")

    def reading(self, depth):
        """Keep the attention that the prompt's last token pays to the image."""
        return Reading(prompt_attention=True)

    def negative_prompts(self, prompts, context):
        """Return the same prompts with all but the blind image tokens masked."""
        draws = context.generators("mask")
        assert context.prompt_attention is not None, "`reading` asks for it"
        rows = zip(prompts, context.prompt_attention, draws, strict=True)
        return [p.with_features(self.masked(p.image, seen, draw)) for p, seen, draw in rows]

    def masked(self, image, attention, draw):
        """Return image tokens [N, width] of which only the blind ones are left."""
        shape = image.shape
        instead = torch.full(shape, float(self.masking_scheme == "ones"))
        if self.masking_scheme == "noise":
            instead = torch.randn(shape, generator=draw)
        return torch.where(
            self.blind(attention[:, : len(image)])[:, None], image, instead.to(image)
        )

    def blind(self, attention):
        """Return which image tokens are blind, bool [N], from attention [layers, N]."""
        share, order = (attention.sum(1) / attention.sum()).sort(descending=True, stable=True)
        mean = attention[order[: 1 + int((share.cumsum(0) < self.layer_gamma).sum())]].mean(0)
        if self.blind_selector == "threshold":
            return mean >= mean.mean() + self.lamb * mean.std()
        return torch.zeros_like(mean, dtype=torch.bool).index_fill(
            0, mean.topk(min(self.blind_topk, len(mean))).indices, True
        )

    def contrasted(self, main, negative, step):
        """Subtract what the blind tokens say; a row that broke down over them goes without."""
        negative = torch.where(negative.isnan().any(-1, keepdim=True), main, negative)
        return (1 + self.alpha) * main - self.alpha * negative
