"""Visual contrastive decoding: subtract what the model says of a noised image."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from medbench.decoding.context import DecodeContext
from medbench.decoding.plausibility import contrast
from medbench.method import Decoder
from medbench.model.prompt import Prompt

STEPS = 1000


@dataclass(frozen=True)
class VCD(Decoder):
    """Visual contrastive decoding: subtract what the model says of a noised image.

    scores = (1 + alpha) z - alpha z_noised, where z(y) >= max z + ln beta (Eq. 3 and 4).

    Args:
        alpha: weight of the contrast.
        beta: plausibility cut on the main branch; 0 cuts nothing.
        noise_step: diffusion step, 0 to 999, of the normalised pixels.
        vcd_noise_seed: seed of the noise alone; none takes the run's.
        negative: "clean" contrasts the image with itself, as A3Tune's code for LLaVA-Med-1.5 does.
    """

    name = "vcd"
    paper = "Leng et al. 2024, arXiv:2311.16922; alpha 1, beta 0.1, step 500 as in A3Tune, App. B"
    needs = ("pixels",)
    published = {"select": "sample", "temperature": 1.0}
    variants = {
        "official": {},
        "official-pope": {"beta": 0.2},
        "a3tune": {"negative": "clean", "top_k": 50},
        "a3tune10": {"top_k": 50},
    }
    deviates = (
        "noise is drawn per sample from the seed, not from one stream over the data; "
        "a3tune10 is A3Tune's code for LLaVA-Med 1.0, whose branch is right"
    )
    rows_per_token = "2"
    extra_memory = "as many keys and values again; the noised image is encoded once"

    alpha: float = 1.0
    beta: float = 0.1
    noise_step: int = 500
    vcd_noise_seed: int | None = None
    negative: Literal["noised", "clean"] = "noised"

    def __post_init__(self) -> None:
        if not 0 <= self.beta <= 1:
            raise ValueError("beta lies in 0 to 1")
        if not 0 <= self.noise_step < STEPS:
            raise ValueError(f"noise_step lies in 0 to {STEPS - 1}")

    def branches(self, prompts: list[Prompt], context: DecodeContext) -> dict[str, list[Prompt]]:
        """Add the same prompts with features of the noised image."""
        if self.negative == "clean":
            return {"noised": prompts}
        noised = context.tensors.get("noised")
        if noised is None:
            noised = self.noise(context)
        features = context.backbone.encode(noised)
        return {"noised": [p.with_features(f) for p, f in zip(prompts, features, strict=True)]}

    def noise(self, context: DecodeContext) -> Tensor:
        """Return the pixels after `noise_step` steps of diffusion, [samples, 3, size, size]."""
        variance = torch.sigmoid(torch.linspace(-6, 6, STEPS)) * (5e-3 - 1e-5) + 1e-5
        kept = torch.cumprod(1 - variance, 0)[self.noise_step]
        pixels = context.pixel_values
        assert pixels is not None, "needs = ('pixels',) is checked before"
        generators = context.generators("noise", self.vcd_noise_seed)
        drawn = [
            torch.randn(image.shape, generator=generator)
            for image, generator in zip(pixels, generators, strict=True)
        ]
        return kept.sqrt() * pixels + (1 - kept).sqrt() * torch.stack(drawn)

    def combine(self, logits, step):
        """Contrast the two branches where the main one finds a token plausible."""
        return contrast(logits["main"], logits["noised"], self.alpha, self.beta)
