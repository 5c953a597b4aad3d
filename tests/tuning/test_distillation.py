"""MedAlign's losses on tensors small enough to compute by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from medbench.tuning.distillation import attention, similarity, student_map

ln = math.log
YES = torch.tensor([True])


def tensor(*values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def same(found: Tensor, *values: Any, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(found.double(), tensor(*values), rtol=0, atol=tolerance)


# Cosines of these three tokens: 1/sqrt(2), 0 and 0; of the teacher's 0, 1/sqrt(2), 1/sqrt(2).
STUDENT = tensor([1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 2.0])[None]
FEATURES = torch.nn.functional.normalize(tensor([1.0, 0.0], [0.0, 1.0], [1.0, 1.0]), dim=-1)
TEACHER = (FEATURES @ FEATURES.T)[None]


def test_l_vis_is_the_mean_over_all_pairs_of_the_squared_difference() -> None:
    # Six of nine pairs differ by 1/sqrt(2).
    same(similarity(STUDENT, TEACHER, YES), 1 / 3)


def test_l_vis_does_not_know_lengths() -> None:
    same(similarity(STUDENT * tensor([2.0], [0.1], [7.0]), TEACHER, YES), 1 / 3)


def test_l_vis_with_weights_weighs_the_pairs_and_still_divides_by_all() -> None:
    # Pairs (0,1), (0,2), (1,2) have weights 2, 6 and 3, each twice, each 1/2.
    found = similarity(STUDENT, TEACHER, YES, weight=tensor([2.0, 1.0, 3.0]))
    same(found, 2 * (2 + 6 + 3) / 2 / 9)


def test_l_vis_inside_a_mask_is_the_mean_over_pairs_inside() -> None:
    found = similarity(STUDENT, TEACHER, YES, inside=torch.tensor([[True, True, False]]))
    same(found, 2 * 0.5 / 4)
    same(similarity(STUDENT, TEACHER, YES, inside=torch.zeros(1, 3, dtype=torch.bool)), 0.0)


def test_samples_without_a_target_cost_nothing_and_have_no_gradient() -> None:
    states = torch.cat([STUDENT, STUDENT, torch.zeros_like(STUDENT)]).requires_grad_()
    present = torch.tensor([False, True, False])
    loss = similarity(states, TEACHER.expand(3, 3, 3), present)
    same(loss, 0.0, 1 / 3, 0.0)
    loss.sum().backward()
    assert states.grad is not None and states.grad.isfinite().all()
    assert not states.grad[0].any() and states.grad[1].any()


def test_l_vis_is_float32_whatever_the_model_computes_in() -> None:
    found = similarity(STUDENT.bfloat16(), TEACHER.float(), YES)
    assert found.dtype == torch.float32
    same(found, 1 / 3, tolerance=1e-6)


def test_the_student_map_is_the_mean_over_heads_and_then_over_rows() -> None:
    rows = tensor([[[0.2, 0.4], [0.1, 0.1], [9.0, 9.0]], [[0.4, 0.0], [0.3, 0.5], [9.0, 9.0]]])
    found = student_map(rows, torch.tensor([[True, True, False]]))
    same(found, [0.25, 0.25])
    same(student_map(rows, torch.tensor([[False, True, False]])), [0.2, 0.3])
    same(student_map(rows, torch.zeros(1, 3, dtype=torch.bool)), [0.0, 0.0])


T = tensor([0.5, 0.3, 0.2, 0.0])
P = tensor([0.1, 0.2, 0.3, 0.4])


def test_anchor_sum_is_the_kl_divergence() -> None:
    found = attention(P, T, YES)
    same(found, 0.5 * ln(5) + 0.3 * ln(1.5) + 0.2 * ln(2 / 3))
    same(found, 0.8452655, tolerance=5e-8)
    # Neither side's scale counts.
    same(attention(P * 0.01, T * 7, YES), float(found))
    same(attention(T, T, YES), 0.0)


def test_anchor_l2_legacy_over_n_is_the_published_one() -> None:
    legacy: dict[str, Any] = {"norm": "l2_legacy", "reduction": "batchmean_legacy"}
    same(attention(P, T, YES, **legacy), 0.2948663, tolerance=5e-8)
    same(attention(P, T, YES, norm="l2_legacy"), 4 * 0.29486632, tolerance=5e-7)
    # It is no divergence: negative at its minimum, which is not at the teacher's map.
    root = T.clamp(min=1e-9).sqrt()
    same(attention(root, T, YES, **legacy), -0.0125862, tolerance=1e-7)
    assert float(attention(T, T, YES, **legacy)) == pytest.approx(0, abs=1e-12)


def test_softmax_takes_the_temperature_on_both_sides() -> None:
    student, teacher = tensor([0.0, ln(3)]), tensor([0.0, 0.0])
    # Softmax of the student: (1/4, 3/4); at temperature 2: 1 and sqrt(3), over their sum.
    same(attention(student, teacher, YES, norm="softmax"), 0.5 * ln(2) + 0.5 * ln(2 / 3))
    low, high = 1 / (1 + math.sqrt(3)), math.sqrt(3) / (1 + math.sqrt(3))
    found = attention(student, teacher, YES, norm="softmax", tau=2.0)
    same(found, 0.5 * ln(0.5 / low) + 0.5 * ln(0.5 / high))


@pytest.mark.parametrize("norm", ["sum", "l2_legacy", "softmax"])
def test_inside_a_mask_the_rest_does_not_count(norm: Any) -> None:
    inside = torch.tensor([[True, True, True, False]])
    wanted = attention(P[:, :3], T[:, :3], YES, norm=norm)
    for other in (0.0, 0.3):
        teacher = T + tensor([0.0, 0.0, 0.0, other])
        found = attention(P, teacher, YES, norm=norm, inside=inside)
        same(found, float(wanted))


@pytest.mark.parametrize("norm", ["sum", "l2_legacy", "softmax"])
def test_maps_without_rows_or_target_cost_nothing_and_have_finite_gradients(norm: Any) -> None:
    student = torch.cat([P, torch.zeros(1, 4), P]).requires_grad_()
    present = torch.tensor([True, True, False])
    loss = attention(student, torch.cat([T, T, torch.zeros(1, 4)]), present, norm=norm)
    assert loss[1:].tolist() == [0, 0] and loss[0].item() != 0
    loss.sum().backward()
    assert student.grad is not None and student.grad.isfinite().all()
    assert student.grad[0].any() and not student.grad[1:].any()


@pytest.mark.parametrize("norm", ["sum", "l2_legacy", "softmax"])
def test_gradients_are_those_of_finite_differences(norm: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(2, 6, generator=generator, dtype=torch.float64).requires_grad_()
    t = torch.rand(2, 6, generator=generator, dtype=torch.float64)
    both = torch.tensor([True, True])
    assert torch.autograd.gradcheck(lambda x: attention(x, t, both, norm=norm), p)
    x = torch.randn(2, 6, 3, generator=generator, dtype=torch.float64).requires_grad_()
    s = torch.rand(2, 6, 6, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: similarity(x, s, both), x)
