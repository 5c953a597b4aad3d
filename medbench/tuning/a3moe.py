"""A3MoE: a prompt-level mixture on the query, a token-level sparse mixture on the key."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from medbench.model.rows import RowMasks
from medbench.tuning.experts import Combine, Experts, Router, pooled, router, top_weights


@dataclass(frozen=True)
class A3MoEConfig:
    """Sizes and variants of an A3MoE; the options are those of the `a3tune` method.

    Attributes:
        keeps_heads: whether to hold a fixed choice of heads (`A3MoE.heads`).
        late: tokens by which the image is taken to begin too late when answering.
    """

    q_experts: int = 4
    k_experts: int = 8
    k_top: int = 2
    rank: int = 16
    alpha: float = 8.0
    dropout: float = 0.05
    router: Router = "linear"
    q_pool: Literal["question", "official_span"] = "question"
    q_apply: Literal["all", "text"] = "all"
    k_combine: Combine = "weighted"
    k_text: Literal["none", "shared"] = "none"
    test_dropout: bool = False
    keeps_heads: bool = False
    late: int = 0


class QueryMoE(nn.Module):
    """Q-MoE: one gate per prompt and layer mixes all experts (Eq. 4 and 5)."""

    def __init__(self, layer: nn.Linear, config: A3MoEConfig) -> None:
        super().__init__()
        self.experts = Experts(
            layer.in_features,
            layer.out_features,
            count=config.q_experts,
            rank=config.rank,
            alpha=config.alpha,
        )
        self.router = router(layer.in_features, config.q_experts, config.router)
        self.apply_to = config.q_apply

    def route(self, x: Tensor, pool: Tensor) -> Tensor:
        """Return the gates of each row, [rows, E], from its pooled prompt (Eq. 4)."""
        return self.router(pooled(x, pool)).softmax(-1)

    def forward(self, x: Tensor, gates: Tensor, visual: Tensor | None) -> Tensor:
        """Return the update of the projection, [rows, T, out] (Eq. 5)."""
        update = self.experts(x, gates[:, None])
        if self.apply_to == "text" and visual is not None:
            update = update.masked_fill(visual[..., None], 0)
        return update


class KeyMoE(nn.Module):
    """K-MoE: each visual token picks its top B experts (Eq. 6 and 7)."""

    def __init__(self, layer: nn.Linear, config: A3MoEConfig) -> None:
        super().__init__()
        sizes: dict[str, Any] = {"rank": config.rank, "alpha": config.alpha}
        inputs, outputs = layer.in_features, layer.out_features
        self.experts = Experts(inputs, outputs, count=config.k_experts, **sizes)
        self.router = router(inputs, config.k_experts, config.router)
        self.text = (
            Experts(inputs, outputs, count=1, **sizes) if config.k_text == "shared" else None
        )
        self.top = config.k_top
        self.combine: Combine = config.k_combine

    def route(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return gates (Eq. 6), weights of the kept experts, and the choice; each [..., E]."""
        gates = self.router(x).softmax(-1)
        weights, chosen = top_weights(gates, self.top, self.combine)
        return gates, weights, chosen

    def forward(self, x: Tensor, weights: Tensor, visual: Tensor) -> Tensor:
        """Return the update of the projection: Eq. 7 on visual tokens, none or LoRA on text."""
        update = self.experts(x, weights * visual[..., None])
        return update if self.text is None else update + self.text_update(x, ~visual)

    def text_update(self, x: Tensor, text: Tensor) -> Tensor:
        """Return plain LoRA on text tokens; zeros where there is none."""
        if self.text is None:
            return x.new_zeros(())
        return self.text(x, text.to(x.dtype)[..., None])


@dataclass(frozen=True)
class Routing:
    """What one forward pass's K routers did: gates and choice, each [samples, T, E]."""

    gates: Tensor
    chosen: Tensor


class A3MoE(nn.Module):
    """The mixtures of all layers, attached to q_proj and k_proj by forward hooks.

    A whole sequence is routed when it comes; decode steps reuse its Q gates and, as in the
    published code, leave the key to the frozen projection. Routers and experts are float32, and
    the experts of a projection share one dropout draw.

    Attributes:
        heads: bool [layers, heads], the heads to align, none until they are chosen; saved with
            the weights. None where every sample chooses its own.
        routing: by layer, what the K routers last did.

    Args:
        language_model: its decoder layers have `self_attn.q_proj` and `.k_proj`.
        config: sizes and variants; zero experts leave that projection out.
    """

    heads: Tensor | None

    def __init__(self, language_model: PreTrainedModel, config: A3MoEConfig) -> None:
        super().__init__()
        projections = [layer.self_attn for layer in language_model.model.layers]
        shape = (len(projections), language_model.config.num_attention_heads)
        heads = torch.zeros(shape, dtype=torch.bool) if config.keeps_heads else None
        self.register_buffer("heads", heads)
        self.query = nn.ModuleList(
            QueryMoE(p.q_proj, config) for p in projections if config.q_experts
        )
        self.key = nn.ModuleList(KeyMoE(p.k_proj, config) for p in projections if config.k_experts)
        self.config = config
        self.routing: dict[int, Routing] = {}
        self._masks: RowMasks | None = None
        self._settled = False
        self._gates: dict[int, Tensor] = {}
        self._before: dict[int, Tensor] = {}
        self._noise: torch.Generator | None = None

    def attach(self, layers: nn.ModuleList) -> Callable[[], None]:
        """Hook the mixtures onto the layers; return the function that takes them off again."""
        handles = []
        for index, layer in enumerate(cast("Iterable[Any]", layers)):
            if len(self.query):
                hook = self._query_hook(index)
                handles.append(layer.self_attn.q_proj.register_forward_hook(hook))
            if len(self.key):
                hook = self._key_hook(index)
                handles.append(layer.self_attn.k_proj.register_forward_hook(hook))

        def detach() -> None:
            for handle in handles:
                handle.remove()

        return detach

    def begin(self, masks: RowMasks, *, joins: bool = False) -> None:
        """Take the masks of new rows; with `joins` they will stand below those there are."""
        if self.config.late and not self.training:
            masks = replace(masks, visual=_later(masks.visual, self.config.late))
        self._masks, self._settled = masks, False
        self._before = self._gates if joins else {}
        self._gates = {}
        self.routing.clear()
        if self.config.test_dropout and not self.training:
            # The same batch gets the same draws whenever it is decoded.
            self._noise = torch.Generator(masks.visual.device).manual_seed(0)

    def settle(self) -> None:
        """Put the gates of the new prompts below those of the rows there were."""
        for layer, gates in self._before.items():
            self._gates[layer] = torch.cat([gates, self._gates[layer]])
        self._before, self._settled = {}, True

    def keep(self, rows: Tensor) -> None:
        """Follow the rows of the batch through finished samples and beams."""
        self._gates = {layer: gates[rows] for layer, gates in self._gates.items()}

    def _query_hook(self, index: int) -> Callable[[nn.Module, tuple[Tensor], Tensor], Tensor]:
        query = cast("QueryMoE", self.query[index])

        def add(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            x, masks = inputs[0].float(), self._whole(inputs[0])
            if masks is not None:
                self._gates[index] = query.route(x, self._pool(masks))
            visual = None if masks is None else masks.visual
            update = query(self._dropped(x), self._gates[index], visual)
            return output + update.to(output.dtype)

        return add

    def _key_hook(self, index: int) -> Callable[[nn.Module, tuple[Tensor], Tensor], Tensor]:
        key = cast("KeyMoE", self.key[index])

        def add(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            x, masks = inputs[0].float(), self._whole(inputs[0])
            if masks is None:
                everywhere = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
                return output + key.text_update(self._dropped(x), everywhere).to(output.dtype)
            gates, weights, chosen = key.route(x)
            self.routing[index] = Routing(gates, chosen)
            return output + key(self._dropped(x), weights, masks.visual).to(output.dtype)

        return add

    def _whole(self, x: Tensor) -> RowMasks | None:
        """Return the masks if x is the batch's whole sequence, None if it is a decode step."""
        masks = self._masks
        if masks is None:
            raise RuntimeError("begin() comes before the first forward pass")
        whole = not self._settled and x.shape[1] == masks.visual.shape[1]
        return masks if whole else None

    def _dropped(self, x: Tensor) -> Tensor:
        """Return the experts' input after dropout; the router sees the input itself."""
        if self.training:
            return nn.functional.dropout(x, self.config.dropout)
        if self._noise is None:
            return x
        kept = torch.rand(x.shape, generator=self._noise, device=x.device) >= self.config.dropout
        return x * kept / (1 - self.config.dropout)

    def _pool(self, masks: RowMasks) -> Tensor:
        """Return the tokens that the Q router averages, bool [rows, T]."""
        if self.config.q_pool == "question":
            return masks.question
        # The released code trains on all of the prompt after the image, and when it answers
        # leaves out the first and the last token of that. Without an image all text counts.
        seen = masks.visual.long().cumsum(1)
        after = (seen == seen[:, -1:]) & ~masks.visual & masks.prompt
        if self.training:
            return after
        place = after.long().cumsum(1)
        return after & (place > 1) & (place < place[:, -1:])


def _later(visual: Tensor, by: int) -> Tensor:
    """Return image positions [rows, T] moved to later tokens, or to earlier ones."""
    moved = visual.roll(by, dims=1)
    # What leaves the row at one end does not come in at the other.
    edge = slice(0, by) if by > 0 else slice(by, None)
    moved[:, edge] = False
    return moved
