"""AVISC: contrast with an image of which only the tokens that draw attention blindly are left."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from medbench.decoding.context import DecodeContext
from medbench.decoding.plausibility import contrast
from medbench.decoding.reading import Reading
from medbench.method import Decoder
from medbench.model.prompt import Prompt


@dataclass(frozen=True)
class AVISC(Decoder):
    """Attentional vision calibration: contrast with an image reduced to its blind tokens.

    The prompt's last token tells, in the layers that look at the image most, which image tokens
    draw attention whatever is asked. The second branch keeps these and loses the others.
    scores = (1 + alpha) z - alpha z_blind, where z(y) >= max z + ln beta.

    Args:
        alpha: weight of the contrast.
        beta: plausibility cut on the main branch; 0 cuts nothing.
        layer_gamma: the layers kept hold at least this share of the attention on the image.
        blind_selector: "topk" takes the `blind_topk` most attended tokens for blind; "threshold"
            those at or above the mean plus `lamb` standard deviations.
        blind_topk, lamb: of the selector.
        masking_scheme: what stands for a token that is not blind: zeros, ones, or noise.
    """

    name = "avisc"
    paper = "Woo et al. 2024, arXiv:2405.17820; alpha 1, beta 0.1, top 10 as in A3Tune, App. B"
    needs = ("image_span", "attention")
    published = {"select": "sample", "temperature": 1.0}
    variants = {
        "official": {"blind_selector": "threshold"},
        "a3tune": {"blind_selector": "threshold"},
    }
    deviates = (
        "App. B speaks of the top 10 tokens, the authors' code and A3Tune's take a threshold; "
        "layers and NaN logits are judged by sample, not summed over the batch"
    )
    rows_per_token = "2"
    extra_memory = "as many keys and values again, and one attention row a layer of the prompt"

    alpha: float = 1.0
    beta: float = 0.1
    layer_gamma: float = 0.5
    blind_selector: Literal["topk", "threshold"] = "topk"
    blind_topk: int = 10
    lamb: float = 1.0
    masking_scheme: Literal["zeros", "ones", "noise"] = "zeros"

    def __post_init__(self) -> None:
        if not 0 <= self.beta <= 1:
            raise ValueError("beta lies in 0 to 1")
        if not 0 <= self.layer_gamma <= 1:
            raise ValueError("layer_gamma lies in 0 to 1")
        if self.blind_topk < 1:
            raise ValueError("blind_topk is 1 or more")

    def reading(self, depth):
        """Keep the attention that the prompt's last token pays to the image."""
        return Reading(prompt_attention=True)

    def branches(self, prompts: list[Prompt], context: DecodeContext) -> dict[str, list[Prompt]]:
        """Add the same prompts with all but the blind image tokens masked."""
        assert context.prompt_attention is not None, "`reading` asks for it"
        masked: list[Prompt] = []
        generators = context.generators("mask")
        for prompt, attention, draw in zip(
            prompts, context.prompt_attention, generators, strict=True
        ):
            features = prompt.features
            assert features is not None, "needs = ('image_span', ...) is checked before"
            blind = self.blind(attention[:, : len(features)])
            masked.append(prompt.with_features(self.mask(features, blind, draw)))
        return {"blind": masked}

    def blind(self, attention: Tensor) -> Tensor:
        """Return which image tokens are blind, bool [N], from float32 [layers, N]."""
        share, order = (attention.sum(1) / attention.sum()).sort(descending=True, stable=True)
        enough = 1 + int((share.cumsum(0) < self.layer_gamma).sum())
        mean = attention[order[:enough]].mean(0)
        if self.blind_selector == "threshold":
            return mean >= mean.mean() + self.lamb * mean.std()
        kept = mean.topk(min(self.blind_topk, len(mean))).indices
        return torch.zeros_like(mean, dtype=torch.bool).index_fill(0, kept, True)

    def mask(self, features: Tensor, blind: Tensor, draw: torch.Generator) -> Tensor:
        """Return the features [N, width] with those of tokens that are not blind replaced."""
        instead = torch.zeros_like(features)
        if self.masking_scheme == "ones":
            instead = torch.ones_like(features)
        if self.masking_scheme == "noise":
            instead = torch.randn(features.shape, generator=draw).to(features)
        return torch.where(blind[:, None], features, instead)

    def combine(self, logits, step):
        """Contrast the two branches; a row whose second branch broke down goes without."""
        main, blind = logits["main"], logits["blind"]
        broken = blind.isnan().any(-1, keepdim=True)
        return contrast(main, torch.where(broken, main, blind), self.alpha, self.beta)
