"""A3Tune: LoRA, a mixture of experts on query and key, and attention pulled towards regions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from medbench.backbone import Depth
from medbench.errors import UserError
from medbench.method import Target, Tuner
from medbench.model.llava import Backbone
from medbench.provider import Region
from medbench.task import Sample
from medbench.tuning import alignment, teacher
from medbench.tuning.a3moe import A3MoE, A3MoEConfig
from medbench.tuning.batch import TrainBatch
from medbench.tuning.experts import balance_loss
from medbench.tuning.extensions import part, together
from medbench.tuning.regions import on_tokens, selected
from medbench.tuning.step import TrainView
from medbench.tuning.visual_map import VisualMap


@dataclass(frozen=True)
class A3Tune(Tuner):
    """A3Tune: LoRA and A3MoE, with the most visual heads pulled towards prompt-aware regions.

    loss = language + align_weight * sum_s (1 - attention in s / attention on the image)^2, over
    the mean map of the R heads with the highest visual attention ratio (Eq. 8 to 12). Q-MoE and
    K-MoE (Eq. 4 to 7) take LoRA's place on q_proj and k_proj.

    Args:
        align_weight: lambda of Eq. 12; 0 turns the loss off.
        R: heads aligned, over all layers; a smaller model uses all it has.
        labels: provider of the regions to align with: sam-biomedclip, roi, ...; "wrong" moves the
            true ones away, as a control.
        K: regions aligned with, the likeliest first.
        threshold: of those, take only regions that fit the question as well as that (tau of
            Eq. 3); none takes them whatever their scores.
        moe, qmoe, kmoe: off leaves out both mixtures, Q-MoE or K-MoE; the projection then has
            plain LoRA.
        q_experts, k_experts, k_top: O^q, O^k and B.
        expert_rank, expert_alpha: of each expert.
        moe_router: "mlp" takes Eq. 4 and 6 at their word, "linear" is what was published.
        qmoe_pool, qmoe_apply: tokens the Q router averages, and tokens the Q experts change.
        kmoe_combine: Eq. 7, the same renormalised, or the published loop's last write.
        kmoe_text_lora: "shared" gives text keys a LoRA of their own.
        balance_weight, balance_grouping: load balance of the K router; not in the paper.
        head_selection: "per_sample" chooses heads at every step from the model as it is then,
            as published; "fixed" once, from the untuned model on the first batch.
        align_queries: rows of the map; align_reduce: pool them before or after the square.
        align_loss: "kl" is a variant of some published scripts.
        segment_reduce: sum (Eq. 10) or mean over segments.
        mask_geometry: "squash" lays masks on a squashed image, as the published code does.
        mask_resize, drop_empty: how masks reach the patch grid.
        span: where the mixtures look for the image when answering: "fixed" is where it stands in
            training prompts, as the published code's constants say; on LLaVA-Med 1.0, whose test
            prompts are a token shorter there, that is a token late.
        moe_test_dropout: keep expert dropout while answering, as the published evaluator does.
        similarity_weight: adds MedAlign's similarity loss with its map; not in the paper.
        expert, similarity_layer: of that loss, as medalign's expert and layer.
    """

    name = "a3tune"
    paper = "Chang et al. 2025, A3Tune (ACL); published code github.com/Aofei-Chang/A3Tune"
    needs = ("training", "attention", "image_span")
    supervision = {"labels": "regions", "expert": "expert"}
    variants = {
        "official": {
            "R": 32,
            "kmoe_combine": "last_write",
            "qmoe_pool": "official_span",
            "balance_weight": 0.01,
            "balance_grouping": "official_mod4",
            "align_reduce": "mean_of_squares",
            "mask_geometry": "squash",
            "drop_empty": False,
            "span": "fixed",
            "moe_test_dropout": True,
        },
        "official15": {
            "kmoe_combine": "last_write",
            "qmoe_pool": "official_span",
            "align_reduce": "mean_of_squares",
            "mask_geometry": "squash",
            "drop_empty": False,
            "span": "fixed",
            "moe_test_dropout": True,
        },
    }
    deviates = (
        "one dropout draw is shared by the experts of a projection; the published code draws one "
        "for each. variant=official is the LLaVA-Med 1.0 code, where R is always 32; official15 "
        "is the 1.5 code, with R as asked and no balance loss. Spans end where the prompt does; "
        "the published ones run a few tokens into the answer"
    )

    align_weight: float | None = None
    R: int = 128
    labels: str = "sam-biomedclip"
    K: int = 4
    threshold: float | None = None
    moe: bool = True
    qmoe: bool = True
    kmoe: bool = True
    q_experts: int = 4
    k_experts: int = 8
    k_top: int = 2
    expert_rank: int = 16
    expert_alpha: float = 8.0
    moe_router: Literal["linear", "mlp"] = "linear"
    qmoe_pool: Literal["question", "official_span"] = "question"
    qmoe_apply: Literal["all", "text"] = "all"
    kmoe_combine: Literal["weighted", "weighted_renorm", "last_write"] = "weighted"
    kmoe_text_lora: Literal["none", "shared"] = "none"
    balance_weight: float = 0.0
    balance_grouping: Literal["experts", "official_mod4"] = "experts"
    head_selection: Literal["per_sample", "fixed"] = "per_sample"
    align_queries: Literal["all_after_image", "answer", "question", "last"] = "all_after_image"
    align_reduce: Literal["pool_then_square", "mean_of_squares"] = "pool_then_square"
    align_loss: Literal["energy", "kl"] = "energy"
    segment_reduce: Literal["sum", "mean"] = "sum"
    mask_geometry: Literal["model", "squash"] = "model"
    mask_resize: Literal["nearest", "area"] = "nearest"
    drop_empty: bool = True
    span: Literal["computed", "fixed"] = "computed"
    moe_test_dropout: bool = False
    similarity_weight: float = 0.0
    expert: str = "unimed_l14_336"
    similarity_layer: tuple[int, ...] = (0,)

    def check(self, depth: Depth) -> None:
        """Make sure that the layers of the similarity loss are there."""
        self._steered_layers(depth.language)

    def _steered_layers(self, depth: int) -> tuple[int, ...]:
        if not self.similarity_weight:
            return ()
        return teacher.chosen_layers(self.similarity_layer, depth=depth)

    @property
    def _q_experts(self) -> int:
        return self.q_experts if self.moe and self.qmoe else 0

    @property
    def _k_experts(self) -> int:
        return self.k_experts if self.moe and self.kmoe else 0

    @property
    def _aligns(self) -> bool:
        return bool(self.align_weight and self.R)

    @property
    def _keeps_heads(self) -> bool:
        return self._aligns and self.head_selection == "fixed"

    def lora_targets(self) -> tuple[str, ...]:
        """Leave q_proj and k_proj to the mixtures."""
        taken = {"q_proj"} if self._q_experts else set[str]()
        taken |= {"k_proj"} if self._k_experts else set[str]()
        return tuple(name for name in super().lora_targets() if name not in taken)

    def extend(self, backbone: Backbone) -> nn.Module | None:
        """Build the A3MoE of every decoder layer, and the map of the similarity loss."""
        if self.align_weight is None:
            raise UserError(
                "a3tune does not know how strongly to align",
                "The task sets no align_weight.",
                'Write "a3tune[align_weight=0.1]", or 0 to leave alignment out.',
            )
        layers = self._steered_layers(backbone.layers)
        steered = VisualMap(backbone.language_model, layers) if layers else None
        return together({"a3moe": self._mixtures(backbone), "visual_map": steered})

    def _mixtures(self, backbone: Backbone) -> A3MoE | None:
        if not self._q_experts and not self._k_experts and not self._keeps_heads:
            return None
        config = A3MoEConfig(
            q_experts=self._q_experts,
            k_experts=self._k_experts,
            k_top=self.k_top,
            rank=self.expert_rank,
            alpha=self.expert_alpha,
            dropout=self.dropout,
            router=self.moe_router,
            q_pool=self.qmoe_pool,
            q_apply=self.qmoe_apply,
            k_combine=self.kmoe_combine,
            k_text=self.kmoe_text_lora,
            test_dropout=self.moe_test_dropout,
            keeps_heads=self._keeps_heads,
            late=_late(backbone) if self.span == "fixed" else 0,
        )
        return A3MoE(backbone.language_model, config)

    def supervised(self) -> tuple[str, ...]:
        """Ask for regions and an expert only where their losses are on."""
        wanted = {"labels": self._aligns, "expert": self.similarity_weight}
        return tuple(name for name, weight in wanted.items() if weight)

    def targets(self, backbone: Backbone, given: Mapping[str, Any]) -> Mapping[str, Target]:
        """Carry the K likeliest regions, and the expert's similarities, to the patch grid."""
        found = dict[str, Target]()
        if self._aligns:
            found["segments"] = self._segments(backbone, given)
        if self.similarity_weight:
            found |= teacher.targets(given["expert"], backbone, similarity=True)
        return found

    def _segments(self, backbone: Backbone, given: Mapping[str, Any]) -> Target:
        def chosen(sample: Sample) -> list[Region]:
            return selected(given["labels"](sample), most=self.K, threshold=self.threshold)

        return on_tokens(
            chosen,
            backbone,
            fit=self.mask_geometry,
            resize=self.mask_resize,
            drop_empty=self.drop_empty,
        )

    def queries(self, batch: TrainBatch) -> Tensor | None:
        """Read the rows that `align_queries` names; none when the loss is off."""
        if not self._aligns:
            return None
        return {
            "all_after_image": batch.after_image,
            "answer": batch.generating,
            "question": batch.masks.question,
            "last": batch.last_prompt,
        }[self.align_queries]

    def calibrate(self, views: Iterable[TrainView]) -> dict[str, Any]:
        """Choose the heads for good where `head_selection` is "fixed"; log (layer, head) pairs."""
        if not self._keeps_heads:
            return {}
        ratios, moe = [], None
        for view in views:
            assert view.maps is not None and view.valid is not None
            ratios.append(view.maps.ratio(view.valid))
            moe = part(view.extension, A3MoE)
        assert moe is not None and moe.heads is not None
        mean = torch.cat(ratios).mean(0, keepdim=True)
        moe.heads.copy_(alignment.top_heads(mean, self.R)[0])
        return {"heads": moe.heads.nonzero().tolist()}

    def auxiliary(self, view: TrainView) -> dict[str, Tensor]:
        """Return the alignment loss (Eq. 8 to 10) and those others that are asked for."""
        losses = {}
        if view.maps is not None:
            losses["alignment"] = (self.align_weight or 0.0) * self.alignment(view)
        moe = part(view.extension, A3MoE)
        if self.balance_weight and moe is not None:
            losses["balance"] = self.balance_weight * self.balance(view, moe)
        if self.similarity_weight:
            losses["similarity"] = self.similarity_weight * teacher.similarity_loss(view)
        return losses

    def alignment(self, view: TrainView) -> Tensor:
        """Return L_align of each sample, [samples]."""
        assert view.maps is not None and view.valid is not None
        moe = part(view.extension, A3MoE)
        if moe is not None and moe.heads is not None:
            heads = moe.heads.expand(len(view.valid), -1, -1)
        else:
            heads = alignment.top_heads(view.maps.ratio(view.valid), self.R)
        visual_map = view.maps.mean(heads)
        view.notes.update(heads=heads, map=visual_map.detach())
        segments = view.batch.targets["segments"]
        inputs = (visual_map, view.valid, segments.values, segments.present)
        if self.align_loss == "kl":
            return alignment.kl(*inputs, over_segments=self.segment_reduce)
        return alignment.energy(
            *inputs, reduce=self.align_reduce, over_segments=self.segment_reduce
        )

    def observe(self, view: TrainView) -> dict[str, Sequence[Any]]:
        """Log how much of the aligned map lies in the segments, and the heads chosen most often."""
        if "map" not in view.notes:
            return {}
        assert view.valid is not None
        segments = view.batch.targets["segments"]
        shares = alignment.share_inside(
            view.notes["map"], view.valid, segments.values, segments.present
        )
        seen: dict[str, Sequence[Any]] = {"in_segments": shares.tolist()}
        if self.head_selection == "per_sample":
            seen["top_heads"] = [
                (layer, head) for _, layer, head in view.notes["heads"].nonzero().tolist()
            ]
        return seen

    def balance(self, view: TrainView, moe: A3MoE) -> Tensor:
        """Return the balance term of each sample over its visual tokens, [samples]."""
        visual = view.batch.masks.visual
        rows = [moe.routing[layer] for layer in sorted(moe.routing)]
        shape = (len(visual), -1, rows[0].gates.shape[-1])
        gates = torch.stack([row.gates[visual].view(shape) for row in rows])
        chosen = torch.stack([row.chosen[visual].view(shape) for row in rows])
        return balance_loss(gates, chosen, grouping=self.balance_grouping)


def _late(backbone: Backbone) -> int:
    """Return how many tokens later the image begins in training prompts than in others."""
    nothing = torch.zeros(backbone.image_tokens, 0)
    tested, trained = (
        int(backbone.prompt("", nothing, training=training).visual.nonzero()[0])
        for training in (False, True)
    )
    return trained - tested
