"""M3ID: favour what the image adds to the text, more so the longer the answer gets."""

import math
from dataclasses import dataclass
from typing import Literal

import torch

from medbench.decoding.contrast import Contrast


@dataclass(frozen=True)
class M3ID(Contrast):
    """Multi-modal mutual information decoding: favour what the image adds to the text.

    scores = lc + ((1 - g) / g) (lc - lu), g = exp(-lamda t), t = 1 for the first new token; lc and
    lu are log-probabilities with and without the image; where lc(y) >= max lc + ln beta.

    Args:
        lamda: how fast the language prior is taken to win over the image.
        m3id_gate: contrast only while the best token's probability is below this, the paper's rule;
            none contrasts always, as AvisC's implementation does.
        negative: "image" leaves the image in the second branch, as A3Tune's code for 1.0 does.
    """

    name = "m3id"
    paper = "Favero et al. 2024, arXiv:2403.14003; lamda 0.02 as in A3Tune, App. B"
    needs = ("image_span",)
    variants = {"official": {}, "a3tune": {"negative": "image"}, "a3tune15": {}}
    deviates = "official is AvisC's version, the authors published none; a3tune is LLaVA-Med 1.0"
    extra_memory = "keys and values of the text, padded to the main rows' length"

    lamda: float = 0.02
    m3id_gate: float | None = None
    negative: Literal["text", "image"] = "text"

    def __post_init__(self):
        super().__post_init__()
        if self.m3id_gate is not None and not 0 < self.m3id_gate <= 1:
            raise ValueError("m3id_gate is a probability above 0")

    def negative_prompts(self, prompts, context):
        """Return the same prompts without the image."""
        return prompts if self.negative == "image" else [p.without_image() for p in prompts]

    def contrasted(self, main, negative, step):
        """Add what the image changes, by a weight that grows from exp(lamda) - 1 on."""
        image, text = main.log_softmax(-1), negative.log_softmax(-1)
        scores = image + math.expm1(self.lamda * (step + 1)) * (image - text)
        if self.m3id_gate is None:
            return scores
        unsure = image.amax(-1, keepdim=True) < math.log(self.m3id_gate)
        return torch.where(unsure, scores, image)
