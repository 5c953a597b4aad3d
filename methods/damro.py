"""DAMRO: contrast with the few patches that the vision tower's class token looks at."""

from dataclasses import dataclass
from typing import Literal

import torch

from medbench.decoding.contrast import Contrast
from medbench.decoding.vision import class_attention


@dataclass(frozen=True)
class DAMRO(Contrast):
    """Contrast with the few patches that the vision tower's class token looks at most.

    scores = (1 + alpha) z - alpha z_outlier, where z(y) >= max z + ln beta.

    Args:
        alpha: weight of the contrast.
        topk: how many patches are outliers.
        cls_attention: "single_head" is softmax(q k^T / sqrt(width)) over the full width, as
            published; "head_mean" averages the heads.
        cls_layer: hidden state whose block is read; none takes the one the features come from.
        neg_mode: "drop" leaves only the outliers, most attended first; "zero" zeroes the others.
    """

    name = "damro"
    paper = "Gong et al. 2024, arXiv:2410.04514; alpha 0.5, beta 0.1, top 10 as in A3Tune, App. B"
    needs = ("image_span", "class_attention")
    variants = {
        "official": {"alpha": 2.0},
        "medheval": {"cls_attention": "head_mean", "cls_layer": -1, "neg_mode": "zero"},
    }
    deviates = (
        "the published code ignores temperature, top-k, top-p; A3Tune's has no DAMRO that runs"
    )
    extra_memory = "keys and values of text and outliers, padded to the main rows' length"

    alpha: float = 0.5
    topk: int = 10
    cls_attention: Literal["single_head", "head_mean"] = "single_head"
    cls_layer: int | None = None
    neg_mode: Literal["drop", "zero"] = "drop"

    def __post_init__(self):
        super().__post_init__()
        if self.topk < 1:
            raise ValueError("topk is 1 or more")

    def check(self, depth):
        """Make sure that a block of the vision tower makes the hidden state."""
        if self.cls_layer is not None and not -depth.vision <= self.cls_layer <= depth.vision:
            raise ValueError(f"cls_layer is {self.cls_layer}")
        if self.cls_layer == 0:
            raise ValueError("cls_layer 0 is the embeddings, which no block makes")

    def look(self, backbone, vision_states):
        """Return the patches that the class token attends to most, best first, int64 [1, topk]."""
        layer = backbone.vision_layer if self.cls_layer is None else self.cls_layer
        seen = class_attention(backbone.vision_tower, vision_states, layer, self.cls_attention)
        return seen.topk(min(self.topk, seen.shape[1])).indices

    def negative_prompts(self, prompts, context):
        """Return the same prompts with only the outlier patches."""
        assert context.looked is not None, "`look` has seen every image"
        # With the class token among the features, patches begin one later.
        outliers = context.looked + (context.backbone.vision_select == "full")
        return [
            p.with_features(self.only(p.image, o)) for p, o in zip(prompts, outliers, strict=True)
        ]

    def only(self, image, outliers):
        """Return image tokens [N, width] without those that are no outliers."""
        if self.neg_mode == "drop":
            return image[outliers]
        return torch.zeros_like(image).index_copy(0, outliers, image[outliers])

    def contrasted(self, main, negative, step):
        """Subtract what the outliers say."""
        return (1 + self.alpha) * main - self.alpha * negative
