"""MedAlign's losses against released code (float32) and the formulas (float64)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from medbench.tuning.distillation import attention, similarity, student_map
from medbench.tuning.visual_map import Residual

FOLDER = Path(__file__).parents[1] / "golden" / "medalign"
META: dict[str, Any] = json.loads((FOLDER / "meta.json").read_text())
FIRST, LAST = META["a16"]["visual_span"]
YES = torch.tensor([True])
TEACHERS = ("teacher", "teacher_zeros")
LEGACY: dict[str, Any] = {"norm": "l2_legacy", "reduction": "batchmean_legacy"}
NORMS: dict[str, dict[str, Any]] = {
    "l2_legacy": LEGACY,
    "sum_kl": {},
    "softmax_tau1_kl": {"norm": "softmax"},
    "softmax_tau0.5_kl": {"norm": "softmax", "tau": 0.5},
}


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load_file(FOLDER / "medalign.safetensors")


def close(found: Tensor, wanted: Any) -> None:
    wanted = torch.as_tensor(wanted)
    tolerance = 1e-10 if wanted.dtype == torch.float64 else 1e-6
    torch.testing.assert_close(found.double(), wanted.double(), rtol=0, atol=tolerance)


def l_vis(golden: dict[str, Tensor], kind: torch.dtype, **options: Any) -> tuple[Tensor, ...]:
    """Return the loss on the mapped states, the states and W."""
    states = golden["v16.visual_states_in"].to(kind, copy=True).requires_grad_()
    weight = golden["v16.W"].to(kind, copy=True).requires_grad_()
    mapped = states + META["v16"]["epsilon"] * states @ weight.T
    target = golden["v16.teacher_similarity"].to(kind)
    return similarity(mapped[None], target[None], YES, **options)[0], states, weight


@pytest.mark.parametrize(("source", "kind"), [("official", torch.float32), ("f64", torch.float64)])
def test_similarity_loss_is_the_golden_one(
    golden: dict[str, Tensor], source: str, kind: torch.dtype
) -> None:
    close(l_vis(golden, kind)[0], golden[f"v16.{source}.loss"])
    weighted, _, _ = l_vis(golden, kind, weight=golden["v16.token_weight"][None].to(kind))
    close(weighted, golden[f"v16.{source}.loss_weighted"])


def test_gradients_of_the_similarity_loss_are_those_of_the_released_code(
    golden: dict[str, Tensor],
) -> None:
    loss, states, weight = l_vis(golden, torch.float32)
    loss.backward()
    assert states.grad is not None and weight.grad is not None
    for found, name in ((states.grad, "grad_states"), (weight.grad, "grad_W")):
        assert golden[f"v16.official.{name}"].abs().max() > 1e-3
        close(found, golden[f"v16.official.{name}"])


def test_the_map_adds_what_the_golden_states_were_made_with(golden: dict[str, Tensor]) -> None:
    residual = Residual(16, epsilon=META["v16"]["epsilon"])
    with torch.no_grad():
        residual.weight.copy_(golden["v16.W"])
    states = golden["v16.visual_states_in"]
    mapped = states + residual(states)
    target = golden["v16.teacher_similarity"]
    close(similarity(mapped[None], target[None], YES)[0].detach(), golden["v16.official.loss"])
    with torch.no_grad():
        residual.weight.zero_()
    assert torch.equal(states + residual(states), states)


def rows(golden: dict[str, Tensor], case: str, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the whole attention [H, T, T] and the map of the rows that a case reads, [1, N]."""
    whole = golden["a16.attention"].to(kind, copy=True).requires_grad_()
    first, last = META[case]["rows_used"]
    read = whole[None, :, first:last, FIRST:LAST]
    return whole, student_map(read, torch.ones(1, last - first, dtype=torch.bool))


def test_student_map_is_the_golden_one(golden: dict[str, Tensor]) -> None:
    close(rows(golden, "a16", torch.float64)[1][0].detach(), golden["a16.student_map.f64"])


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("teacher", TEACHERS)
def test_attention_loss_is_the_formulas(golden: dict[str, Tensor], teacher: str, norm: str) -> None:
    found = attention(
        rows(golden, "a16", torch.float64)[1],
        golden[f"a16.{teacher}"][None].double(),
        YES,
        **NORMS[norm],
    )
    close(found[0].detach(), golden[f"a16.{teacher}.f64.{norm}"])


@pytest.mark.parametrize("teacher", TEACHERS)
def test_legacy_loss_is_that_of_the_released_code(golden: dict[str, Tensor], teacher: str) -> None:
    whole, found = rows(golden, "a16", torch.float32)
    loss = attention(found, golden[f"a16.{teacher}"][None], YES, **LEGACY)[0]
    close(loss.detach(), golden[f"a16.{teacher}.official.l2_legacy"])
    loss.backward()
    assert whole.grad is not None
    close(whole.grad, golden[f"a16.{teacher}.official.l2_legacy.grad_attention"])


@pytest.mark.parametrize("teacher", TEACHERS)
def test_gradient_of_the_kl_is_the_formulas(golden: dict[str, Tensor], teacher: str) -> None:
    whole, found = rows(golden, "a16", torch.float64)
    attention(found, golden[f"a16.{teacher}"][None].double(), YES)[0].backward()
    assert whole.grad is not None
    close(whole.grad, golden[f"a16.{teacher}.f64.sum_kl.grad_attention"])


@pytest.mark.parametrize("case", ["a16_q_at_T", "a16_q_minus1"])
@pytest.mark.parametrize("norm", ["l2_legacy", "sum_kl", "softmax_tau1_kl"])
def test_a_span_without_an_end_leaves_out_the_last_token(
    golden: dict[str, Tensor], case: str, norm: str
) -> None:
    found = attention(
        rows(golden, case, torch.float64)[1], golden["a16.teacher"][None].double(), YES,
        **NORMS[norm],
    )  # fmt: skip
    # The released code computed its one in float32.
    kind = torch.float32 if norm == "l2_legacy" else torch.float64
    close(found[0].detach(), torch.tensor(META[case][norm], dtype=kind))


def test_anchors() -> None:
    anchor = META["vis_anchor"]
    expert = torch.nn.functional.normalize(torch.tensor(anchor["E"]), dim=-1)
    found = similarity(torch.tensor(anchor["X"])[None], (expert @ expert.T)[None], YES)
    close(found[0], torch.tensor(anchor["official"]))
    exact = torch.tensor([[0.5, 0.3, 0.2, 0.0]], dtype=torch.float64)
    # The anchors' inputs were rounded to float32.
    t = exact.float()
    maps = (torch.tensor([[0.1, 0.2, 0.3, 0.4]]), exact.clamp(min=1e-9).sqrt().float())
    for p, wanted in zip(maps, META["att_anchors"].values(), strict=True):
        legacy = attention(p, t, YES, **LEGACY)[0]
        close(legacy, torch.tensor(wanted["l2_legacy_official"]))
        kl = attention(p.double(), t.double(), YES)[0]
        close(kl, torch.tensor(wanted["sum_kl_f64"], dtype=torch.float64))


def test_the_mean_over_a_batch_is_that_of_single_samples(golden: dict[str, Tensor]) -> None:
    _, one = rows(golden, "a16", torch.float64)
    _, other = rows(golden, "a16_q_at_T", torch.float64)
    teacher = golden["a16.teacher"].double().expand(2, -1)
    found = attention(torch.cat([one, other]), teacher, torch.tensor([True, True])).detach()
    wanted = torch.tensor([META["a16"]["sum_kl"], META["a16_q_at_T"]["sum_kl"]])
    close(found, wanted)
