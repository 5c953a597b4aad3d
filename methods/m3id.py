"""M3ID: favour what the image adds to the text, more so the longer the answer gets."""

import math
from dataclasses import dataclass
from typing import Literal

import torch

from medbench.decoding.context import DecodeContext
from medbench.decoding.plausibility import plausible
from medbench.method import Decoder
from medbench.model.prompt import Prompt


@dataclass(frozen=True)
class M3ID(Decoder):
    """Multi-modal mutual information decoding: favour what the image adds to the text.

    scores = lc + ((1 - g) / g) (lc - lu) with g = exp(-lamda t), t = 1 for the first new token, lc
    and lu the log-probabilities with and without the image, where lc(y) >= max lc + ln beta.

    Args:
        lamda: how fast the language prior is taken to win over the image.
        beta: plausibility cut on the main branch; 0 cuts nothing.
        m3id_gate: contrast only while the best token has a lower probability than this, as the
            paper describes; none contrasts always, as AvisC's implementation does.
        negative: "image" keeps the image in the second branch, as A3Tune's code for LLaVA-Med 1.0
            does, which leaves the plausibility cut alone.
    """

    name = "m3id"
    paper = "Favero et al. 2024, arXiv:2403.14003; lamda 0.02 as in A3Tune, App. B"
    needs = ("image_span",)
    published = {"select": "sample", "temperature": 1.0}
    variants = {"official": {}, "a3tune": {"negative": "image"}, "a3tune15": {}}
    deviates = (
        "the authors published no code; official is AvisC's version, which A3Tune uses; a3tune "
        "replays LLaVA-Med 1.0, a3tune15 is 1.5, where the image is removed"
    )
    rows_per_token = "2"
    extra_memory = "keys and values of the text, padded to the length of the main rows"

    lamda: float = 0.02
    beta: float = 0.1
    m3id_gate: float | None = None
    negative: Literal["text", "image"] = "text"

    def __post_init__(self) -> None:
        if not 0 <= self.beta <= 1:
            raise ValueError("beta lies in 0 to 1")
        if self.m3id_gate is not None and not 0 < self.m3id_gate <= 1:
            raise ValueError("m3id_gate is a probability above 0")

    def branches(self, prompts: list[Prompt], context: DecodeContext) -> dict[str, list[Prompt]]:
        """Add the same prompts without the image."""
        if self.negative == "image":
            return {"text": prompts}
        return {"text": [prompt.without_image() for prompt in prompts]}

    def combine(self, logits, step):
        """Add what the image changes, by a weight that grows from exp(lamda) - 1 on."""
        conditioned, text = logits["main"].log_softmax(-1), logits["text"].log_softmax(-1)
        scores = conditioned + math.expm1(self.lamda * (step + 1)) * (conditioned - text)
        if self.m3id_gate is not None:
            unsure = conditioned.amax(-1, keepdim=True) < math.log(self.m3id_gate)
            scores = torch.where(unsure, scores, conditioned)
        return plausible(scores, conditioned, self.beta)
