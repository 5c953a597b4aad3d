"""The alignment loss against released code (float32) and the paper's equations (float64)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from medbench.tuning.alignment import energy, kl, selected_map, top_heads, visual_ratio

FOLDER = Path(__file__).parents[1] / "golden" / "a3moe"
FIRST, LAST, END = 3, 18, 29
ROWS = {
    "all_after_image": (LAST, END),
    "question": (18, 22),
    "answer": (22, END),
    "last": (28, END),
}
RS = (1, 5, 12, 18)
SETS = ("n1", "n2", "n3", "n4", "n3_vanished", "n1_vanished", "n2_second_empty", "n0")


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    loaded = load_file(FOLDER / "align.safetensors")
    return {name.removeprefix("B."): value for name, value in loaded.items()}


def masks(golden: dict[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    """Return the segments [1, K, N] of a set and which of them are real, [1, K]."""
    some = golden["segments"].flatten(1)
    none = torch.zeros_like(some[:1])
    chosen = {
        "n3_vanished": torch.cat([some[:1], none, some[2:3]]),
        "n1_vanished": none,
        "n2_second_empty": torch.cat([some[:1], none]),
        "n0": none,
    }
    segments = chosen[name] if name in chosen else some[: int(name[1])]
    present = torch.ones(1, len(segments), dtype=torch.bool)
    if name in ("n2_second_empty", "n0"):
        present[0, -1] = False
    return segments[None], present


def rows_of(attention: Tensor, rows: str) -> tuple[Tensor, Tensor]:
    """Return these rows at the visual columns, [1, L, H, Q, N], and that all are real."""
    first, last = ROWS[rows]
    read = attention[None, :, :, first:last, FIRST:LAST]
    return read, torch.ones(1, last - first, dtype=torch.bool)


def heads_on(attention: Tensor, rows: str, count: int) -> Tensor:
    return top_heads(visual_ratio(*rows_of(attention, rows)), count)


def loss_of(
    attention: Tensor,
    golden: dict[str, Tensor],
    *,
    name: str,
    count: int,
    kind: str,
    rows: str = "all_after_image",
    chosen_on: str = "all_after_image",
) -> Tensor:
    read, valid = rows_of(attention, rows)
    visual_map = selected_map(read, heads_on(attention, chosen_on, count))
    segments, present = masks(golden, name)
    inputs = (visual_map, valid, segments.to(attention.dtype), present)
    if kind == "kl":
        return kl(*inputs)[0]
    return energy(*inputs, reduce=kind)[0]  # type: ignore[arg-type]


def close(found: Tensor, golden: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(found.double(), golden.double(), rtol=0, atol=tolerance)


@pytest.mark.parametrize("kind", ["energy", "kl"])
@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("count", RS)
def test_loss_is_that_of_the_released_15_code(
    golden: dict[str, Tensor], count: int, name: str, kind: str
) -> None:
    form = "kl" if kind == "kl" else "mean_of_squares"
    found = loss_of(golden["attention"], golden, name=name, count=count, kind=form)
    close(found, golden[f"official15.R{count}.{name}.{kind}"], 1e-5)


@pytest.mark.parametrize("kind", ["energy", "kl"])
@pytest.mark.parametrize("name", SETS)
def test_loss_with_one_layers_worth_of_heads_is_that_of_the_released_10_code(
    golden: dict[str, Tensor], name: str, kind: str
) -> None:
    form = "kl" if kind == "kl" else "mean_of_squares"
    found = loss_of(golden["attention"], golden, name=name, count=6, kind=form)
    close(found, golden[f"official10.{name}.{kind}"], 1e-5)


@pytest.mark.parametrize(
    ("case", "count"),
    [
        ("official10.n4.energy", 6),
        ("official10.n4.kl", 6),
        ("official10.n3_vanished.energy", 6),
        ("official10.n3_vanished.kl", 6),
        ("official15.R5.n4.energy", 5),
        ("official15.R5.n4.kl", 5),
        ("paper.R5.n4.energy", 5),
    ],
)
def test_gradient_with_respect_to_attention_is_the_golden_one(
    golden: dict[str, Tensor], case: str, count: int
) -> None:
    paper = case.startswith("paper")
    attention = golden["attention"].double() if paper else golden["attention"].clone()
    attention.requires_grad_()
    kind = "kl" if case.endswith("kl") else "pool_then_square" if paper else "mean_of_squares"
    name = case.split(".")[-2]
    loss_of(attention, golden, name=name, count=count, kind=kind).backward()
    assert attention.grad is not None
    wanted = golden[f"{case}.grad_attention"]
    assert wanted.abs().max() > 0.01
    close(attention.grad, wanted, 1e-10 if wanted.dtype == torch.float64 else 1e-5)


@pytest.mark.parametrize("rows", ROWS)
def test_ratio_is_eq_8_for_every_set_of_rows(golden: dict[str, Tensor], rows: str) -> None:
    found = visual_ratio(*rows_of(golden["attention"].double(), rows))[0]
    # The stored rows sum to 1 to float32 only; the golden ratio divides by that sum.
    close(found, golden[f"paper.ratio.rows_{rows}"], 1e-7)


@pytest.mark.parametrize("count", [*RS, 6])
def test_heads_are_those_of_the_paper(golden: dict[str, Tensor], count: int) -> None:
    found = heads_on(golden["attention"].double(), "all_after_image", count)[0]
    assert {tuple(pair) for pair in found.nonzero().tolist()} == {
        tuple(pair) for pair in golden[f"paper.R{count}.heads"].tolist()
    }


@pytest.mark.parametrize("count", [*RS, 6])
def test_map_is_eq_9_over_all_rows(golden: dict[str, Tensor], count: int) -> None:
    attention = golden["attention"].double()
    found = selected_map(
        attention[None, :, :, :, FIRST:LAST], heads_on(attention, "all_after_image", count)
    )
    close(found[0], golden[f"paper.R{count}.map_tilde"], 1e-10)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("count", [*RS, 6])
def test_map_pooled_over_rows_is_the_papers(
    golden: dict[str, Tensor], count: int, rows: str
) -> None:
    attention = golden["attention"].double()
    visual_map = selected_map(
        rows_of(attention, rows)[0], heads_on(attention, "all_after_image", count)
    )
    close(visual_map[0].mean(0), golden[f"paper.R{count}.pooled.rows_{rows}"], 1e-10)


def energies(golden: dict[str, Tensor], prefix: str) -> list[str]:
    return [
        name
        for name in golden
        if name.startswith(prefix) and ".energy.rows_" in name and "grad" not in name
    ]


def test_energy_is_eq_10_for_every_golden_case(golden: dict[str, Tensor]) -> None:
    names = energies(golden, "paper.")
    assert len(names) == 140
    for name in names:
        _, count, which, _, rows, *same = name.split(".")
        rows = rows.removeprefix("rows_")
        found = loss_of(
            golden["attention"].double(),
            golden,
            name=which,
            count=int(count[1:]),
            kind="pool_then_square",
            rows=rows,
            chosen_on=rows if same else "all_after_image",
        )
        close(found, golden[name], 1e-10)


def test_mean_of_squares_is_the_golden_one_for_every_case(golden: dict[str, Tensor]) -> None:
    names = energies(golden, "f64_mean_of_squares.")
    assert len(names) == 60
    for name in names:
        _, count, which, _, rows = name.split(".")
        found = loss_of(
            golden["attention"].double(),
            golden,
            name=which,
            count=int(count[1:]),
            kind="mean_of_squares",
            rows=rows.removeprefix("rows_"),
        )
        close(found, golden[name], 1e-10)
