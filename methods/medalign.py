"""MedAlign: LoRA and a map on the visual tokens, distilled from a medical CLIP's view."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from medbench.backbone import Depth
from medbench.method import Target, Tuner
from medbench.model.llava import Backbone
from medbench.tuning import teacher
from medbench.tuning.batch import TrainBatch
from medbench.tuning.extensions import part, together
from medbench.tuning.reload_defect import DroppedLora
from medbench.tuning.step import TrainView
from medbench.tuning.visual_map import VisualMap


@dataclass(frozen=True)
class MedAlign(Tuner):
    """MedAlign: visual tokens as similar to each other, and as attended, as an expert has them.

    loss = language + similarity_weight * mean_ij (S_x - S_e)^2 + attention_weight * KL(t || p).
    S are cosine similarities of patches: the student's between layers l - 1 and l, where its
    visual tokens X become X + epsilon X W^T with W trained from zero, and the expert's. p is the
    attention of layer l from the prompt's text to the image, t that of the expert's class token.
    Needs no expert to answer; W stays. Not to be confused with other projects of that name.

    Args:
        similarity_weight: alpha of the paper; 0 turns the loss off.
        attention_weight: beta; 0 turns the loss off. Suits attn_norm=sum; the published 0.03 to
            0.06 belong to l2_legacy with batchmean_legacy.
        expert: provider of the expert's views: unimed_l14_336, unimed_b16, biomedclip, open_clip.
        layer: l, counted from 0; 0 takes layer_fraction of the depth. Several (16/20) each get a
            map, and the losses are averaged over them.
        layer_fraction: of the depth, rounded down: 20 of 32, 17 of 28.
        visual_map: "low_rank" makes W a product of rank map_rank; "none" leaves W out.
        map_epsilon: of the map.
        orthogonal_penalty: weight of |R^T R - I|^2 / width, R = I + epsilon W; not in the paper.
        query_span: rows of p. "prompt" is the prompt's text after the image, the token that makes
            the answer's first included; "prompt_legacy_colon" ends at the last span_token of
            prompt and answer, as published; "response" are the rows that make the answer.
        span_token: id of that token; 28747 is the colon of Mistral's tokenizer, 26818 was
            published for Qwen2.
        attn_norm: how p and t are normalised: to sum 1, which makes L_att a KL divergence; as
            published, to Euclidean length 1, which does not; or by softmax(values / attn_tau).
        attn_reduction: "batchmean_legacy" divides L_att by the number of patches, as published.
        mask_padding: leave patches of padding out of both losses.
        drop_wrapped_lora: answer without the LoRA that the published evaluation loses when it
            loads an adapter.
    """

    name = "medalign"
    paper = "Chang et al. 2026, MedAlign (AAAI), arXiv:2512.18554; github.com/Aofei-Chang/MedAlign"
    needs = ("training", "attention", "hidden_states", "image_span")
    supervision = {"expert": "expert"}
    variants = {
        "official": {
            "attention_weight": 0.03,
            "expert": "unimed_b16[variant=official]",
            "query_span": "prompt_legacy_colon",
            "attn_norm": "l2_legacy",
            "attn_reduction": "batchmean_legacy",
        },
    }
    deviates = (
        "the code that adds the losses up was not released; constant weights are what its "
        "arguments and the paper say. W and L_vis are float32, there bfloat16. The published "
        "evaluation takes position 34 for the image's first, here it is found; and it loses the "
        "LoRA of layer l - 1 and of the attention of layer l, which drop_wrapped_lora does too. "
        "Text-conditioned maps and the appendix's Q-MoE, off in all released scripts, are not here"
    )

    rank: int = 32
    similarity_weight: float = 1.0
    attention_weight: float = 1e-3
    expert: str = "unimed_l14_336"
    layer: tuple[int, ...] = (0,)
    layer_fraction: float = 0.625
    visual_map: Literal["dense", "low_rank", "none"] = "dense"
    map_rank: int = 64
    map_epsilon: float = 1.0
    orthogonal_penalty: float = 0.0
    query_span: Literal[
        "prompt", "prompt_legacy_colon", "last_prompt_token", "response", "all_text"
    ] = "prompt"
    span_token: int = 28747
    attn_norm: Literal["sum", "l2_legacy", "softmax"] = "sum"
    attn_tau: float = 1.0
    attn_reduction: Literal["sum", "batchmean_legacy"] = "sum"
    mask_padding: bool = False
    drop_wrapped_lora: bool = False

    def check(self, depth: Depth) -> None:
        """Make sure that the layers are there."""
        self._layers(depth.language)

    def _layers(self, depth: int) -> tuple[int, ...]:
        return teacher.chosen_layers(self.layer, depth=depth, fraction=self.layer_fraction)

    def extend(self, backbone: Backbone) -> nn.Module | None:
        """Build the map, and what the published reload loses where that is asked for."""
        layers = self._layers(backbone.layers)
        steered = VisualMap(
            backbone.language_model,
            layers,
            kind=self.visual_map,
            rank=self.map_rank,
            epsilon=self.map_epsilon,
        )
        dropped = DroppedLora(layers) if self.drop_wrapped_lora else None
        return together({"visual_map": steered, "dropped_lora": dropped})

    def supervised(self) -> tuple[str, ...]:
        """Ask for the expert only where a loss is on."""
        return ("expert",) if self.similarity_weight or self.attention_weight else ()

    def targets(self, backbone: Backbone, given: Mapping[str, Any]) -> Mapping[str, Target]:
        """Bring the expert's view to the student's patch grid."""
        if not self.supervised():
            return {}
        return teacher.targets(
            given["expert"],
            backbone,
            similarity=bool(self.similarity_weight),
            attention=bool(self.attention_weight),
            inside=self.mask_padding,
        )

    def queries(self, batch: TrainBatch) -> Tensor | None:
        """Read the rows that `query_span` names; none when the loss is off."""
        if not self.attention_weight:
            return None
        if self.query_span == "prompt_legacy_colon":
            return self._published_span(batch)
        return {
            "prompt": batch.after_image & batch.masks.prompt,
            "last_prompt_token": batch.last_prompt,
            "response": batch.generating,
            "all_text": batch.after_image,
        }[self.query_span]

    def _published_span(self, batch: TrainBatch) -> Tensor:
        """Return the text after the image up to the last span_token, never the very last token."""
        place = torch.arange(batch.tokens.shape[1], device=batch.tokens.device)
        last = torch.where(batch.tokens == self.span_token, place, -1).amax(1, keepdim=True)
        within = (place <= last) | (last < 0)
        return batch.after_image & within & (place < len(place) - 1)

    def attention_layers(self, backbone: Backbone) -> Sequence[int]:
        """Read the attention that the mapped tokens go into."""
        return self._layers(backbone.layers)

    def auxiliary(self, view: TrainView) -> dict[str, Tensor]:
        """Return both losses, and the penalty where it is asked for."""
        losses = dict[str, Tensor]()
        if self.similarity_weight:
            losses["similarity"] = self.similarity_weight * teacher.similarity_loss(view)
        if self.attention_weight:
            losses["attention"] = self.attention_weight * teacher.attention_loss(
                view, norm=self.attn_norm, reduction=self.attn_reduction, tau=self.attn_tau
            )
        steered = part(view.extension, VisualMap)
        if self.orthogonal_penalty and steered is not None and len(steered.maps):
            penalty = self.orthogonal_penalty * steered.penalty()
            losses["orthogonal"] = penalty.expand(len(view.batch.ids))
        return losses
