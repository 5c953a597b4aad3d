"""Each equation of A3Tune on tensors small enough to compute by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from medbench.methods.a3tune import A3Tune
from medbench.tuning.a3moe import A3MoEConfig, KeyMoE, QueryMoE
from medbench.tuning.alignment import energy, kl, selected_map, top_heads, visual_ratio
from medbench.tuning.batch import IGNORE, Targets
from medbench.tuning.experts import Experts, balance_loss, pooled, router, top_weights
from medbench.tuning.step import TrainView, language_loss

ln = math.log


def tensor(*values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def same(found: Tensor, *values: Any) -> None:
    torch.testing.assert_close(found.double(), tensor(*values), rtol=0, atol=1e-12)


def one_rank_experts(*pairs: tuple[list[float], list[float]], alpha: float = 1.0) -> Experts:
    """Return rank-1 experts from their rows A and columns B."""
    width, out = len(pairs[0][0]), len(pairs[0][1])
    experts = Experts(width, out, count=len(pairs), rank=1, alpha=alpha).double()
    with torch.no_grad():
        for index, (a, b) in enumerate(pairs):
            experts.lora_A[index, 0] = tensor(*a)
            experts.lora_B[index, :, 0] = tensor(*b)
    return experts


def test_pooling_is_the_mean_over_the_prompts_own_tokens() -> None:
    x = tensor([[1.0, 2.0], [3.0, 6.0], [50.0, 50.0]], [[7.0, 1.0], [1.0, 1.0], [1.0, 1.0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    same(pooled(x, mask), [2.0, 4.0], [7.0, 1.0])
    same(pooled(x, torch.zeros_like(mask)), [0.0, 0.0], [0.0, 0.0])


def test_eq_4_gates_are_the_softmax_of_the_router_of_the_pooled_prompt() -> None:
    moe = QueryMoE(nn.Linear(2, 2), A3MoEConfig(q_experts=2, rank=1)).double()
    with torch.no_grad():
        moe.router.weight.copy_(tensor([1.0, 0.0], [0.0, 1.0]))
        moe.router.bias.copy_(tensor(ln(3) - 2, -4.0))
    x = tensor([[1.0, 2.0], [3.0, 6.0], [50.0, 50.0]])
    # Pooled (2, 4); logits (ln 3, 0); gates (3/4, 1/4).
    same(moe.route(x, torch.tensor([[True, True, False]])), [0.75, 0.25])


def test_mlp_router_has_one_hidden_layer_of_a_quarter_with_silu() -> None:
    moe = cast(nn.Sequential, router(8, 2, "mlp")).double()
    assert [one.weight.shape for one in moe if isinstance(one, nn.Linear)] == [(2, 8), (2, 2)]
    with torch.no_grad():
        moe[0].weight.zero_()
        moe[0].bias.copy_(tensor(0.0, 1.0))
        moe[2].weight.copy_(tensor([5.0, 1.0], [5.0, 2.0]))
        moe[2].bias.zero_()
    silu = 1 / (1 + math.exp(-1))
    same(moe(torch.zeros(1, 8, dtype=torch.float64)), [silu, 2 * silu])


def test_eq_5_mixes_all_experts_by_the_gates_on_every_token() -> None:
    moe = QueryMoE(nn.Linear(2, 2), A3MoEConfig(q_experts=2, rank=1)).double()
    moe.experts = one_rank_experts(([1.0, 0.0], [1.0, 2.0]), ([0.0, 1.0], [10.0, 0.0]), alpha=0.5)
    x = tensor([[4.0, 2.0], [1.0, 1.0]])
    gates = tensor([0.75, 0.25])
    # Token (4, 2): 0.5 (0.75 * 4 * (1, 2) + 0.25 * 2 * (10, 0)) = (4, 3).
    # Token (1, 1): 0.5 (0.75 * 1 * (1, 2) + 0.25 * 1 * (10, 0)) = (1.625, 0.75).
    same(moe(x, gates, None), [[4.0, 3.0], [1.625, 0.75]])
    visual = torch.tensor([[True, False]])
    same(moe(x, gates, visual), [[4.0, 3.0], [1.625, 0.75]])
    moe.apply_to = "text"
    same(moe(x, gates, visual), [[0.0, 0.0], [1.625, 0.75]])


def test_eq_6_gates_are_one_softmax_a_token() -> None:
    moe = KeyMoE(nn.Linear(1, 1), A3MoEConfig(k_experts=2, rank=1)).double()
    with torch.no_grad():
        moe.router.weight.copy_(tensor([ln(3)], [0.0]))
        moe.router.bias.zero_()
    gates, _, _ = moe.route(tensor([[1.0], [0.0], [2.0]]))
    same(gates, [[0.75, 0.25], [0.5, 0.5], [0.9, 0.1]])


@pytest.mark.parametrize(
    ("combine", "weights"),
    [
        ("weighted", [0.0, 0.3, 0.4, 0.0]),
        ("weighted_renorm", [0.0, 3 / 7, 4 / 7, 0.0]),
        ("last_write", [0.0, 0.0, 1.0, 0.0]),
    ],
)
def test_eq_7_keeps_the_top_b_gates(combine: str, weights: list[float]) -> None:
    found, chosen = top_weights(tensor([0.2, 0.3, 0.4, 0.1]), 2, combine)  # type: ignore[arg-type]
    same(found, weights)
    same(chosen, [0.0, 1.0, 1.0, 0.0])


def test_last_write_takes_the_highest_index_of_the_top_b_and_not_the_highest_gate() -> None:
    found, _ = top_weights(tensor([0.6, 0.1, 0.3, 0.0]), 2, "last_write")
    same(found, [0.0, 0.0, 1.0, 0.0])


def test_a_b_beyond_the_number_of_experts_keeps_them_all() -> None:
    found, _ = top_weights(tensor([0.6, 0.4]), 5, "weighted")
    same(found, [0.6, 0.4])


@pytest.mark.parametrize(("text", "update"), [("none", 0.0), ("shared", 2 * 6.0 * 5)])
def test_eq_7_changes_visual_tokens_only_and_text_by_its_own_lora_where_asked(
    text: str, update: float
) -> None:
    config = A3MoEConfig(k_experts=3, k_top=2, rank=1, alpha=2.0, k_text=text)  # type: ignore[arg-type]
    moe = KeyMoE(nn.Linear(1, 1), config).double()
    moe.experts = one_rank_experts(([1.0], [1.0]), ([1.0], [10.0]), ([1.0], [100.0]), alpha=2.0)
    if moe.text is not None:
        moe.text = one_rank_experts(([2.0], [3.0]), alpha=2.0)
    weights = tensor([[0.5, 0.3, 0.0], [0.5, 0.3, 0.0]])
    visual = torch.tensor([[True, False]])
    # Visual token 7: 2 (0.5 * 1 + 0.3 * 10) 7 = 49. Text token 5: 2 * 2 * 3 * 5 or nothing.
    same(moe(tensor([[7.0], [5.0]]), weights, visual), [[49.0], [update]])


# Two heads in one layer, three rows over two visual columns; the rest of each row is text.
HEAD_0 = [[0.2, 0.4], [0.1, 0.1], [0.3, 0.1]]
HEAD_1 = [[0.5, 0.3], [0.3, 0.1], [0.1, 0.5]]


def two_heads() -> Tensor:
    return tensor(HEAD_0, HEAD_1)[None, None]


def test_eq_8_ratio_is_the_mean_mass_on_the_image() -> None:
    every = torch.ones(1, 3, dtype=torch.bool)
    # (0.6 + 0.2 + 0.4) / 3 and (0.8 + 0.4 + 0.6) / 3.
    same(visual_ratio(two_heads(), every), [[0.4, 0.6]])
    first_two = torch.tensor([[True, True, False]])
    same(visual_ratio(two_heads(), first_two), [[0.4, 0.6]])
    last = torch.tensor([[False, False, True]])
    same(visual_ratio(two_heads(), last), [[0.4, 0.6]])
    middle = torch.tensor([[False, True, False]])
    same(visual_ratio(two_heads(), middle), [[0.2, 0.4]])


def test_heads_are_the_highest_over_all_layers_for_each_sample() -> None:
    ratio = tensor([[0.1, 0.9], [0.8, 0.2]], [[0.5, 0.1], [0.2, 0.3]])
    assert top_heads(ratio, 2).tolist() == [
        [[False, True], [True, False]],
        [[True, False], [False, True]],
    ]
    assert top_heads(ratio, 1).sum() == 2
    assert top_heads(ratio, 99).all()


def test_eq_9_map_is_the_mean_of_the_chosen_heads() -> None:
    both = torch.tensor([[[True, True]]])
    same(selected_map(two_heads(), both), [[0.35, 0.35], [0.2, 0.1], [0.2, 0.3]])
    second = torch.tensor([[[False, True]]])
    same(selected_map(two_heads(), second), HEAD_1)


MAP = tensor([[0.3, 0.1, 0.0], [0.1, 0.2, 0.1]])
BOTH_ROWS = torch.tensor([[True, True]])
SEGMENTS = tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])


@pytest.mark.parametrize(
    ("reduce", "over", "present", "loss"),
    [
        # Pooled (0.2, 0.15, 0.05): shares 0.5 and 0.5.
        ("pool_then_square", "sum", [True, True], 0.25 + 0.25),
        ("pool_then_square", "mean", [True, True], 0.25),
        ("pool_then_square", "sum", [True, False], 0.25),
        ("pool_then_square", "mean", [True, False], 0.25),
        # Per row: shares (3/4, 1/4) and (1/4, 3/4).
        ("mean_of_squares", "sum", [True, True], (1 / 16 + 9 / 16) / 2 * 2),
        ("mean_of_squares", "mean", [True, True], (1 / 16 + 9 / 16) / 2),
        ("mean_of_squares", "sum", [False, False], 0.0),
        ("pool_then_square", "mean", [False, False], 0.0),
    ],
)
def test_eq_10_is_one_minus_the_share_in_each_segment_squared(
    reduce: str, over: str, present: list[bool], loss: float
) -> None:
    found = energy(
        MAP,
        BOTH_ROWS,
        SEGMENTS,
        torch.tensor([present]),
        reduce=reduce,  # type: ignore[arg-type]
        over_segments=over,  # type: ignore[arg-type]
    )
    same(found, loss)


def test_eq_10_pools_before_it_normalises() -> None:
    # Rows (0.8, 0) and (0, 0.2): pooled (0.4, 0.1), a share of 0.8, not the mean of 1 and 0.
    found = energy(
        tensor([[0.8, 0.0], [0.0, 0.2]]),
        BOTH_ROWS,
        tensor([[1.0, 0.0]]),
        torch.tensor([[True]]),
    )
    same(found, 0.2**2)


def test_a_vanished_segment_costs_1_in_the_energy_and_0_in_the_kl() -> None:
    empty, real = torch.zeros(1, 1, 3, dtype=torch.float64), torch.tensor([[True]])
    same(energy(MAP, BOTH_ROWS, empty, real), 1.0)
    same(energy(MAP, BOTH_ROWS, empty, real, reduce="mean_of_squares"), 1.0)
    same(kl(MAP, BOTH_ROWS, empty, real), 0.0)


def test_kl_is_that_of_the_segment_to_each_row_averaged() -> None:
    real = torch.tensor([[True]])
    segment = tensor([[1.0, 1.0, 0.0]])
    # Segment (1/2, 1/2, 0); rows (3/4, 1/4, 0) and (1/4, 1/2, 1/4).
    rows = [
        0.5 * ln(0.5 / 0.75) + 0.5 * ln(0.5 / 0.25),
        0.5 * ln(0.5 / 0.25) + 0.5 * ln(0.5 / 0.5),
    ]
    found = kl(MAP, BOTH_ROWS, segment, real)
    # The published epsilon of 1e-8 in both sums moves the seventh digit.
    torch.testing.assert_close(found, tensor(sum(rows) / 2), rtol=0, atol=1e-6)


def test_padded_rows_count_for_nothing_and_leave_gradients_finite() -> None:
    padded = torch.cat([MAP, torch.zeros_like(MAP)], dim=1).requires_grad_()
    valid = torch.tensor([[True, True, False, False]])
    real = torch.tensor([[True, False]])
    for loss in (
        energy(padded, valid, SEGMENTS, real),
        energy(padded, valid, SEGMENTS, real, reduce="mean_of_squares"),
        kl(padded, valid, SEGMENTS, real),
    ):
        (gradient,) = torch.autograd.grad(loss.sum(), padded)
        assert gradient.isfinite().all()
        assert gradient[:, :2].any() and not gradient[:, 2:].any()
    same(energy(padded, valid, SEGMENTS, real, reduce="mean_of_squares"), 0.3125)


def test_a_sample_without_query_rows_costs_nothing() -> None:
    nothing, real = torch.tensor([[False, False]]), torch.tensor([[True, True]])
    empty = torch.zeros_like(MAP)
    same(energy(empty, nothing, SEGMENTS, real), 0.0)
    same(energy(empty, nothing, SEGMENTS, real, reduce="mean_of_squares"), 0.0)
    same(kl(empty, nothing, SEGMENTS, real), 0.0)


def test_eq_11_is_the_mean_over_a_samples_answer_tokens() -> None:
    # Position by position: P(label) = 1/2, 1/4; the second sample has one label, P = 1/5.
    logits = tensor(
        [[ln(2), ln(1), ln(1)], [ln(2), ln(1), ln(1)], [9.0, 9.0, 9.0]],
        [[7.0, 7.0, 7.0], [ln(3), ln(1), ln(1)], [9.0, 9.0, 9.0]],
    )
    labels = torch.tensor([[0, 1], [IGNORE, 2]])
    found = language_loss(logits, labels)
    wanted = tensor((ln(2) + ln(4)) / 2, ln(5))
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=1e-6)


def view_of(attention: Tensor, segments: Tensor) -> TrainView:
    valid = torch.ones(1, attention.shape[3], dtype=torch.bool)
    present = torch.ones(1, segments.shape[1], dtype=torch.bool)
    batch = SimpleNamespace(targets={"segments": Targets(segments, present)})
    maps = SimpleNamespace(
        ratio=lambda valid: visual_ratio(attention, valid),
        mean=lambda heads: selected_map(attention, heads),
    )
    return TrainView(cast(Any, batch), cast(Any, maps), valid, None)


def test_eq_12_adds_lambda_times_the_alignment_loss_of_the_top_heads() -> None:
    view = view_of(two_heads(), tensor([[1.0, 0.0]]))
    # The second head has the higher ratio; pooled (0.9, 0.9) / 3: share 1/2, loss 1/4.
    losses = A3Tune(align_weight=0.2, R=1).auxiliary(view)
    assert losses.keys() == {"alignment"}
    same(losses["alignment"], 0.2 * 0.25)
    # Both heads: pooled (0.75, 0.75) / 3, again 1/2. Squares per row of the second head alone:
    # shares 5/8, 3/4, 1/6.
    same(A3Tune(align_weight=0.2, R=2).auxiliary(view)["alignment"], 0.2 * 0.25)
    official = A3Tune(align_weight=0.2, R=1, align_reduce="mean_of_squares")
    rows = ((3 / 8) ** 2 + (1 / 4) ** 2 + (5 / 6) ** 2) / 3
    same(official.auxiliary(view)["alignment"], 0.2 * rows)


def test_balance_is_mean_gate_times_mean_choice_summed_over_experts() -> None:
    gates = tensor([[[0.6, 0.4], [0.8, 0.2]]])
    chosen = tensor([[[1.0, 0.0], [1.0, 0.0]]])
    same(balance_loss(gates, chosen), 0.7 * 1.0)
    same(balance_loss(gates, tensor([[[1.0, 0.0], [0.0, 1.0]]])), 0.7 * 0.5 + 0.3 * 0.5)
    gates.requires_grad_()
    chosen.requires_grad_()
    balance_loss(gates, chosen).sum().backward()
    same(gates.grad, [[[0.5, 0.0], [0.5, 0.0]]])
    assert chosen.grad is None
