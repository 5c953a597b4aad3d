"""Resampling to another grid, of features and of nothing but their inner products."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from medbench.expert.resample import packed, similarity, unpacked, weights


def resized(features: Tensor, source: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """Return features [n, d] on another grid, [N, d], as the published notebooks resize them."""
    grid = features.T.view(1, -1, *source)
    found = torch.nn.functional.interpolate(grid, size=target, mode="bilinear", align_corners=False)
    return found.flatten(2)[0].T


def cosines(features: Tensor) -> Tensor:
    unit = torch.nn.functional.normalize(features, dim=-1)
    return unit @ unit.T


def test_weights_between_centres_by_hand() -> None:
    wanted = torch.tensor([[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]])
    assert torch.equal(weights((1, 2), (1, 4)), wanted)
    assert torch.equal(weights((2, 1), (4, 1)), wanted)
    # Rows run first: a cell of a 2 x 2 grid in the middle of 3 x 3 takes all four alike.
    assert weights((2, 2), (3, 3))[4].tolist() == [0.25] * 4


@pytest.mark.parametrize("grid", [(1, 1), (3, 5), (24, 24)])
def test_the_same_grid_is_left_alone(grid: tuple[int, int]) -> None:
    assert torch.equal(weights(grid, grid), torch.eye(grid[0] * grid[1]))


@pytest.mark.parametrize("prenorm", [True, False])
@pytest.mark.parametrize(
    ("source", "target"),
    [((4, 4), (6, 6)), ((14, 14), (24, 24)), ((3, 5), (7, 4)), ((8, 8), (4, 4))],
)
def test_inner_products_are_enough_for_the_similarities_of_resampled_features(
    source: tuple[int, int], target: tuple[int, int], prenorm: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(
        source[0] * source[1], 8, generator=generator, dtype=torch.float64
    ) * torch.rand(source[0] * source[1], 1, generator=generator, dtype=torch.float64)
    if prenorm:
        features = torch.nn.functional.normalize(features, dim=-1)
    spread = weights(source, target, torch.float64)
    found = similarity(features @ features.T, spread)
    wanted = cosines(resized(features, source, target))
    assert float((found - wanted).abs().max()) < 1e-13
    torch.testing.assert_close(found.diagonal(), torch.ones(len(spread), dtype=torch.float64))
    other = cosines(resized(torch.nn.functional.normalize(features, dim=-1), source, target))
    assert (float((found - other).abs().max()) < 1e-13) == prenorm


def test_without_another_grid_they_are_the_cosines() -> None:
    features = torch.tensor([[3.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(similarity(features @ features.T), cosines(features))


def test_a_map_divided_by_its_maximum_is_resampled_alike() -> None:
    spread = weights((4, 4), (6, 6), torch.float64)
    attention = torch.rand(16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    wanted = resized(attention[:, None], (4, 4), (6, 6))[:, 0]
    torch.testing.assert_close(spread @ attention, wanted, atol=1e-15, rtol=0)
    divided = spread @ (attention / attention.max())
    torch.testing.assert_close(divided, wanted / attention.max(), atol=1e-15, rtol=0)


def test_a_triangle_holds_all_of_a_symmetric_matrix() -> None:
    gram = torch.tensor([[1.0, 2.0, 3.0], [2.0, 4.0, 5.0], [3.0, 5.0, 6.0]])
    assert packed(gram).tolist() == [1, 2, 3, 4, 5, 6]
    assert torch.equal(unpacked(packed(gram), 3), gram)
