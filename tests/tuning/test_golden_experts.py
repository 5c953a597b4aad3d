"""Q-MoE, K-MoE and the balance loss against released code and the paper's equations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from medbench.model.rows import RowMasks
from medbench.tuning.a3moe import A3MoE, A3MoEConfig, KeyMoE, QueryMoE
from medbench.tuning.experts import balance_loss

FOLDER = Path(__file__).parents[1] / "golden" / "a3moe"
TOKENS, TRAINED_PROMPT = 631, 623


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load_file(FOLDER / "qk_llavamed15.safetensors")


@pytest.fixture(scope="module")
def balanced() -> dict[str, Tensor]:
    loaded = load_file(FOLDER / "balance.safetensors")
    return {name.removeprefix("balance.e4_b1."): value for name, value in loaded.items()}


def close(found: Tensor, wanted: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(found.double(), wanted.double(), rtol=0, atol=tolerance)


def config(**options: Any) -> A3MoEConfig:
    sizes = {"q_experts": 4, "k_experts": 8, "rank": 4, "alpha": 2.0, "dropout": 0.0}
    return A3MoEConfig(**{**sizes, **options})


def fill(moe: QueryMoE | KeyMoE, golden: dict[str, Tensor], name: str) -> None:
    moe.load_state_dict(
        {
            "experts.lora_A": golden[f"{name}.lora_A"],
            "experts.lora_B": golden[f"{name}.lora_B"],
            "router.weight": golden[f"{name}.router.weight"],
            "router.bias": golden[f"{name}.router.bias"],
        }
    )


def linear(golden: dict[str, Tensor], name: str) -> nn.Linear:
    weight = golden[f"{name}.base.weight"]
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.load_state_dict({"weight": weight, "bias": golden[f"{name}.base.bias"]})
    return layer


class OneLayer(nn.Module):
    """What A3MoE needs of a language model: one decoder layer's two projections."""

    def __init__(self, golden: dict[str, Tensor], query: str) -> None:
        super().__init__()
        layer = nn.Module()
        layer.self_attn = nn.Module()
        layer.self_attn.q_proj = linear(golden, query)
        layer.self_attn.k_proj = linear(golden, "k")
        self.model = nn.Module()
        self.model.layers = nn.ModuleList([layer])
        self.config = type("Config", (), {"num_attention_heads": 4})

    @property
    def q_proj(self) -> nn.Module:
        return self.model.layers[0].self_attn.q_proj

    @property
    def k_proj(self) -> nn.Module:
        return self.model.layers[0].self_attn.k_proj


def attached(
    golden: dict[str, Tensor], *, pool: str = "question", query: str = "q", **options: Any
) -> tuple[OneLayer, A3MoE]:
    """Return the projections with A3MoE on them, its first batch begun."""
    model = OneLayer(golden, query)
    moe = A3MoE(model, config(**options))  # type: ignore[arg-type]
    fill(moe.query[0], golden, query)  # type: ignore[arg-type]
    fill(moe.key[0], golden, "k")  # type: ignore[arg-type]
    moe.train(pool == "train_span")
    moe.attach(model.model.layers)
    filled = torch.ones(2, TOKENS, dtype=torch.bool)
    prompt = filled.clone()
    if pool == "train_span":
        prompt[:, TRAINED_PROMPT:] = False
    moe.begin(RowMasks(filled, golden["visual_mask"], golden["q.pool_mask.question"], prompt))
    return model, moe


SPANS = {"question": "question", "fallback": "official_span", "train_span": "official_span"}


@pytest.mark.parametrize("pool", SPANS)
def test_query_is_eq_4_and_5_for_each_span_in_prefill_and_decode(
    golden: dict[str, Tensor], pool: str
) -> None:
    model, moe = attached(golden, pool=pool, q_pool=SPANS[pool])
    close(model.q_proj(golden["hidden_states"]), golden[f"q.paper.{pool}.prefill"], 1e-5)
    close(moe._gates[0], golden[f"q.paper.{pool}.alpha"], 1e-6)
    close(model.q_proj(golden["decode_hidden_states"]), golden[f"q.paper.{pool}.decode"], 1e-5)


def test_query_is_the_released_one_when_answering_and_decodes_with_the_kept_gates(
    golden: dict[str, Tensor],
) -> None:
    model, moe = attached(golden, q_pool="official_span")
    assert torch.equal(moe._pool(moe._masks), golden["q.pool_mask.fallback"])  # type: ignore[arg-type]
    close(model.q_proj(golden["hidden_states"]), golden["q.official.fallback.prefill"], 1e-5)
    close(moe._gates[0], golden["q.official.fallback.routing"], 1e-6)
    close(model.q_proj(golden["decode_hidden_states"]), golden["q.official.fallback.decode"], 1e-5)


def test_query_is_the_released_one_in_training(golden: dict[str, Tensor]) -> None:
    model, moe = attached(golden, pool="train_span", q_pool="official_span")
    assert torch.equal(moe._pool(moe._masks), golden["q.pool_mask.train_span"])  # type: ignore[arg-type]
    found = model.q_proj(golden["hidden_states"])
    close(found[:1], golden["q.official.train_span.prefill"], 1e-5)
    close(moe._gates[0][:1], golden["q.official.train_span.routing"], 1e-6)


def test_a_single_query_expert_is_plain_lora_as_released(golden: dict[str, Tensor]) -> None:
    model, _ = attached(golden, query="q1", q_experts=1)
    close(model.q_proj(golden["hidden_states"]), golden["q1.official.prefill"], 1e-5)
    close(model.q_proj(golden["decode_hidden_states"]), golden["q1.official.decode"], 1e-5)


def test_query_gradients_are_the_papers(golden: dict[str, Tensor]) -> None:
    layer = linear(golden, "q")
    moe = QueryMoE(layer, config())
    fill(moe, golden, "q")
    moe.double()
    layer.double()
    x = golden["hidden_states"].double()
    gates = moe.route(x, golden["q.pool_mask.question"])
    found = layer(x) + moe(x, gates, None)
    close(found, golden["q.paper.question.prefill"], 1e-10)
    (found * golden["q.grad_probe"]).sum().backward()
    for name, weight in moe.named_parameters():
        wanted = golden[f"q.paper.question.grad.{name.removeprefix('experts.')}"]
        assert weight.grad is not None
        # Gradients are sums over all tokens, up to hundreds.
        torch.testing.assert_close(weight.grad, wanted, rtol=1e-10, atol=1e-8)


COMBINATIONS = [
    ("last_write", "official", 1e-5),
    ("weighted", "paper", 1e-5),
    ("weighted_renorm", "option_renorm", 1e-5),
]


@pytest.mark.parametrize("top", [1, 2, 3])
@pytest.mark.parametrize(("combine", "golden_name", "tolerance"), COMBINATIONS)
def test_key_is_the_golden_one_and_frozen_in_decode_steps(
    golden: dict[str, Tensor], combine: str, golden_name: str, tolerance: float, top: int
) -> None:
    model, moe = attached(golden, k_combine=combine, k_top=top)
    found = model.k_proj(golden["hidden_states"])
    close(found, golden[f"k.{golden_name}.B{top}.prefill"], tolerance)
    visual = golden["visual_mask"]
    routing = moe.routing[0]
    gates = routing.gates[visual].view(2, -1, 8)
    close(gates, golden["k.official.routing"], 1e-6)
    close(gates, golden["k.paper.beta"], 1e-6)
    chosen = routing.chosen[visual].view(2, -1, 8)
    assert torch.equal(chosen, golden[f"k.official.B{top}.expert_choice"])
    close(model.k_proj(golden["decode_hidden_states"]), golden["k.official.decode"], 1e-6)


def key_in(golden: dict[str, Tensor], dtype: torch.dtype, combine: str, top: int) -> KeyMoE:
    """Return a K-MoE with gradients of the golden probe, checked forward on the way."""
    layer = linear(golden, "k").to(dtype)
    moe = KeyMoE(layer, config(k_combine=combine, k_top=top))
    fill(moe, golden, "k")
    moe.to(dtype)
    x = golden["hidden_states"].to(dtype)
    found = layer(x) + moe(x, moe.route(x)[1], golden["visual_mask"])
    (found * golden["k.grad_probe"].to(dtype)).sum().backward()
    return moe


@pytest.mark.parametrize("top", [1, 2, 3])
def test_key_gradients_are_the_papers(golden: dict[str, Tensor], top: int) -> None:
    moe = key_in(golden, torch.float64, "weighted", top)
    for name, weight in moe.named_parameters():
        wanted = golden[f"k.paper.B{top}.grad.{name.removeprefix('experts.')}"]
        assert weight.grad is not None
        torch.testing.assert_close(weight.grad, wanted, rtol=1e-10, atol=1e-8)


@pytest.mark.parametrize("top", [1, 2, 3])
def test_key_gradients_are_the_released_ones_and_the_router_has_none(
    golden: dict[str, Tensor], top: int
) -> None:
    moe = key_in(golden, torch.float32, "last_write", top)
    assert moe.experts.lora_B.grad is not None
    wanted = golden[f"k.official.B{top}.grad.lora_B"]
    torch.testing.assert_close(moe.experts.lora_B.grad, wanted, rtol=1e-5, atol=1e-4)
    assert [weight.grad for weight in moe.router.parameters()] == [None, None]


@pytest.mark.parametrize("grouping", ["experts", "official_mod4"])
def test_balance_loss_and_its_gradient_are_the_released_ones(
    balanced: dict[str, Tensor], grouping: str
) -> None:
    probs = balanced["probs"].clone().requires_grad_()
    loss = 0.01 * balance_loss(probs, balanced["choice"], grouping=grouping)  # type: ignore[arg-type]
    close(loss[0], balanced["official10_num_experts_4.loss"], 1e-8)
    close(loss[0], balanced["true_num_experts.loss"], 1e-8)
    loss.sum().backward()
    assert probs.grad is not None
    close(probs.grad, balanced["true_num_experts.grad_probs"], 1e-8)
    exact = balance_loss(balanced["probs"].double(), balanced["choice"].double())
    close(0.01 * exact[0], balanced["f64.loss"], 1e-10)


@pytest.mark.parametrize("experts", [8, 16])
@pytest.mark.parametrize("grouping", ["experts", "official_mod4"])
def test_balance_loss_is_a_plain_loop_for_more_experts(experts: int, grouping: str) -> None:
    generator = torch.Generator().manual_seed(experts)
    gates = torch.rand(2, 3, 5, experts, generator=generator, dtype=torch.float64).softmax(-1)
    chosen = (gates > gates.median(-1, keepdim=True).values).double()
    columns = 4 if grouping == "official_mod4" else experts
    wanted = []
    for sample in range(3):
        gate, choice, rows = [0.0] * columns, [0.0] * columns, 2 * 5 * experts / columns
        for layer in range(2):
            for token in range(5):
                for expert in range(experts):
                    gate[expert % columns] += float(gates[layer, sample, token, expert]) / rows
                    choice[expert % columns] += float(chosen[layer, sample, token, expert]) / rows
        wanted.append(sum(g * c for g, c in zip(gate, choice, strict=True)))
    found = balance_loss(gates, chosen, grouping=grouping)  # type: ignore[arg-type]
    close(found, torch.tensor(wanted, dtype=torch.float64), 1e-12)
