"""Visual contrastive decoding: subtract what the model says of a noised image."""

from dataclasses import dataclass
from typing import Literal

import torch

from medbench.decoding.contrast import Contrast

STEPS = 1000


@dataclass(frozen=True)
class VCD(Contrast):
    """Visual contrastive decoding: subtract what the model says of a noised image.

    scores = (1 + alpha) z - alpha z_noised, where z(y) >= max z + ln beta (Eq. 3 and 4).

    Args:
        alpha: weight of the contrast.
        noise_step: diffusion step, 0 to 999, of the normalised pixels.
        vcd_noise_seed: seed of the noise alone; none takes the run's.
        negative: "clean" contrasts the image with itself, as A3Tune's code for LLaVA-Med-1.5 does.
    """

    name = "vcd"
    paper = "Leng et al. 2024, arXiv:2311.16922; alpha 1, beta 0.1, step 500 as in A3Tune, App. B"
    needs = ("pixels",)
    variants = {
        "official": {},
        "official-pope": {"beta": 0.2},
        "a3tune": {"negative": "clean", "top_k": 50},
        "a3tune10": {"top_k": 50},
    }
    deviates = "noise is drawn per sample, not from one stream over the data; a3tune10: 1.0, as VCD"
    extra_memory = "as many keys and values again; the noised image is encoded once"

    alpha: float = 1.0
    noise_step: int = 500
    vcd_noise_seed: int | None = None
    negative: Literal["noised", "clean"] = "noised"

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.noise_step < STEPS:
            raise ValueError(f"noise_step lies in 0 to {STEPS - 1}")

    def negative_prompts(self, prompts, context):
        """Return the same prompts with features of the noised image."""
        if self.negative == "clean":
            return prompts
        noised = context.tensors.get("noised")
        features = context.backbone.encode(self.noised(context) if noised is None else noised)
        return [p.with_features(f) for p, f in zip(prompts, features, strict=True)]

    def noised(self, context):
        """Return the pixels after `noise_step` steps of diffusion, [samples, 3, size, size]."""
        variance = torch.sigmoid(torch.linspace(-6, 6, STEPS)) * (5e-3 - 1e-5) + 1e-5
        kept = torch.cumprod(1 - variance, 0)[self.noise_step]
        draws = context.generators("noise", self.vcd_noise_seed)
        pixels = context.pixel_values
        noise = [torch.randn(one.shape, generator=d) for one, d in zip(pixels, draws, strict=True)]
        return kept.sqrt() * pixels + (1 - kept).sqrt() * torch.stack(noise)

    def contrasted(self, main, negative, step):
        """Subtract what the noised image says."""
        return (1 + self.alpha) * main - self.alpha * negative
