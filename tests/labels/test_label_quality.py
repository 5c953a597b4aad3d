"""Quality of weak labels: overlaps by hand, chance against a count of all draws."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from medbench.labels.quality import (
    Ranked,
    best_iou,
    chance,
    is_hit,
    overlaps,
    retrieval,
)


def _mask(*cells: int) -> np.ndarray:
    mask = np.zeros(12, bool)
    mask[list(cells)] = True
    return mask.reshape(3, 4)


def _ranked(ious: list[float], scores: list[float]) -> Ranked:
    return Ranked(np.array(ious), np.array(scores))


def test_overlap_is_intersection_over_union() -> None:
    region = _mask(0, 1, 2, 3)
    masks = np.stack([region, _mask(0, 1), _mask(2, 3, 4, 5), _mask(8), _mask()])
    assert overlaps(masks, region).tolist() == [1, 0.5, 2 / 6, 0, 0]
    assert best_iou(masks[1:], region) == 0.5
    assert best_iou(masks[:0], region) == 0
    assert overlaps(np.stack([_mask()]), _mask()).tolist() == [0]


@pytest.mark.parametrize("k", [1, 2, 4, 9])
@pytest.mark.parametrize(("masks", "right"), [(5, 0), (5, 1), (5, 3), (4, 4), (1, 1), (0, 0)])
def test_chance_counts_every_draw(masks: int, right: int, k: int) -> None:
    draws = list(combinations(range(masks), min(k, masks)))
    lucky = sum(any(index < right for index in draw) for draw in draws)
    assert chance(masks, right, k) == pytest.approx(lucky / len(draws))


def test_a_hit_is_above_one_half_and_ties_keep_their_order() -> None:
    assert is_hit(_ranked([0.2, 0.51, 0.9], [0.1, 0.3, 0.2]), 1)
    assert not is_hit(_ranked([0.5, 0.9], [0.3, 0.2]), 1)
    assert is_hit(_ranked([0.5, 0.9], [0.3, 0.2]), 2)
    assert is_hit(_ranked([0.9, 0.1], [0.3, 0.3]), 1)
    assert not is_hit(_ranked([0.1, 0.9], [0.3, 0.3]), 1)
    assert not is_hit(_ranked([], []), 4)


def test_retrieval_tells_the_ceiling_from_the_ranking() -> None:
    questions = [
        _ranked([0.9, 0.0, 0.0, 0.0], [1, 0, 0, 0]),
        _ranked([0.9, 0.0], [0, 1]),
        _ranked([0.3, 0.1], [1, 0]),
        _ranked([], []),
    ]
    counted = retrieval(questions, 1)
    assert (counted.n, counted.matched, counted.masks) == (4, 2, 2.0)
    assert (counted.ceiling, counted.hit, counted.hit_matched) == (0.5, 0.25, 0.5)
    assert counted.chance == pytest.approx((0.25 + 0.5) / 4)
    assert counted.chance_matched == pytest.approx((0.25 + 0.5) / 2)
    assert retrieval(questions, 4).hit == counted.ceiling
    assert retrieval(questions[2:], 2).hit_matched == 0
    with pytest.raises(ValueError, match="no question"):
        retrieval([], 1)
