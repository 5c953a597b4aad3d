"""DAMRO: contrast with the few patches that the vision tower's class token looks at."""

from dataclasses import dataclass
from typing import Literal

import torch

from medbench.decoding.context import DecodeContext
from medbench.decoding.plausibility import contrast
from medbench.decoding.vision import class_attention
from medbench.method import Decoder
from medbench.model.prompt import Prompt


@dataclass(frozen=True)
class DAMRO(Decoder):
    """Contrast with the few patches that the vision tower's class token looks at most.

    scores = (1 + alpha) z - alpha z_outlier, where z(y) >= max z + ln beta; the second branch sees
    only the `topk` outlier patches.

    Args:
        alpha: weight of the contrast.
        beta: plausibility cut on the main branch; 0 cuts nothing.
        topk: how many patches are outliers.
        cls_attention: "single_head" is softmax(q k^T / sqrt(width)) over the full width, as
            published; "head_mean" averages the heads.
        cls_layer: hidden state whose block is read, as in `vision_feature_layer`, which none takes.
        neg_mode: "drop" leaves only the outliers, most attended first; "zero" keeps the length and
            zeroes the others.
    """

    name = "damro"
    paper = "Gong et al. 2024, arXiv:2410.04514; alpha 0.5, beta 0.1, top 10 as in A3Tune, App. B"
    needs = ("image_span", "class_attention")
    published = {"select": "sample", "temperature": 1.0}
    variants = {
        "official": {"alpha": 2.0},
        "medheval": {"cls_attention": "head_mean", "cls_layer": -1, "neg_mode": "zero"},
    }
    deviates = (
        "temperature, top-k and top-p act, which the published code leaves out; A3Tune's code has "
        "no working DAMRO, medheval is what its authors published later"
    )
    rows_per_token = "2"
    extra_memory = "keys and values of the text and topk patches, padded to the main rows' length"

    alpha: float = 0.5
    beta: float = 0.1
    topk: int = 10
    cls_attention: Literal["single_head", "head_mean"] = "single_head"
    cls_layer: int | None = None
    neg_mode: Literal["drop", "zero"] = "drop"

    def __post_init__(self) -> None:
        if not 0 <= self.beta <= 1:
            raise ValueError("beta lies in 0 to 1")
        if self.topk < 1:
            raise ValueError("topk is 1 or more")

    def check(self, depth):
        """Make sure that the vision tower has the block."""
        if self.cls_layer is not None and not -depth.vision <= self.cls_layer <= depth.vision:
            raise ValueError(f"there is no vision block that makes hidden state {self.cls_layer}")
        if self.cls_layer == 0:
            raise ValueError("hidden state 0 is the embeddings, which no block makes")

    def look(self, backbone, vision_states):
        """Return the patches that the class token attends to most, best first, int64 [1, topk]."""
        layer = backbone.vision_layer if self.cls_layer is None else self.cls_layer
        seen = class_attention(backbone.vision_tower, vision_states, layer, self.cls_attention)
        return seen.topk(min(self.topk, seen.shape[1])).indices

    def branches(self, prompts: list[Prompt], context: DecodeContext) -> dict[str, list[Prompt]]:
        """Add the same prompts with only the outlier patches."""
        assert context.looked is not None, "`look` has seen every image"
        reduced: list[Prompt] = []
        for prompt, patches in zip(prompts, context.looked, strict=True):
            features = prompt.features
            assert features is not None, "needs = ('image_span', ...) is checked before"
            # With the class token among the features, patches begin one later.
            outliers = patches + (context.backbone.vision_select == "full")
            kept = features[outliers]
            if self.neg_mode == "zero":
                kept = torch.zeros_like(features).index_copy(0, outliers, kept)
            reduced.append(prompt.with_features(kept))
        return {"outliers": reduced}

    def combine(self, logits, step):
        """Contrast the two branches where the main one finds a token plausible."""
        return contrast(logits["main"], logits["outliers"], self.alpha, self.beta)
