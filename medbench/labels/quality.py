"""How good weak labels are where the right regions are known.

Two questions, kept apart: does a mask for the region exist at all (what the segmenter sets as a
ceiling), and is it among the first k that the ranking names. A ranking is only worth its lead over
k masks taken at random, which is computed exactly here and not drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
import numpy.typing as npt

Masks = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

RIGHT = 0.5  # a mask is right if its IoU with the region is above


@dataclass(frozen=True)
class Ranked:
    """One question's masks: how much each overlaps the region, and how the ranking scores it.

    Attributes:
        ious: with the region, [masks]; may be empty.
        scores: the higher the earlier, [masks]; equal ones keep their order.
    """

    ious: Floats
    scores: Floats


@dataclass(frozen=True)
class Retrieval:
    """What is counted of some questions; shares are fractions.

    Attributes:
        n: number of questions; matched: of those with a right mask at all.
        masks: mean number of masks a question.
        ceiling: share of all questions that have a right mask.
        hit: share of all questions with a right mask among the first k; chance: of k at random.
        hit_matched, chance_matched: the same of the matched questions alone; 0 without any.
    """

    n: int
    matched: int
    masks: float
    ceiling: float
    hit: float
    chance: float
    hit_matched: float
    chance_matched: float


def overlaps(masks: Masks, region: Masks) -> Floats:
    """Return the IoU of each mask [n, h, w] with a region [h, w]; 0 where both are empty."""
    both = (masks & region).sum((-2, -1))
    either = (masks | region).sum((-2, -1))
    return both / np.maximum(either, 1)


def best_iou(masks: Masks, region: Masks) -> float:
    """Return the IoU of the best of some masks [n, h, w] with a region; 0 without masks."""
    return float(overlaps(masks, region).max(initial=0))


def is_hit(question: Ranked, k: int) -> bool:
    """Tell whether a right mask is among the first k of the ranking."""
    first = np.argsort(-question.scores, kind="stable")[:k]
    return bool((question.ious[first] > RIGHT).any())


def chance(masks: int, right: int, k: int) -> float:
    """Return how likely k of some masks, drawn at random without return, hold a right one."""
    taken = min(k, masks)
    return 1 - comb(masks - right, taken) / comb(masks, taken)


def retrieval(questions: Sequence[Ranked], k: int) -> Retrieval:
    """Count how often the first k masks of a ranking hold a right one.

    Raises:
        ValueError: there is no question.
    """
    if not questions:
        raise ValueError("no question to count")
    hits = np.array([is_hit(one, k) for one in questions], float)
    right = [int((one.ious > RIGHT).sum()) for one in questions]
    chances = np.array(
        [chance(len(one.ious), count, k) for one, count in zip(questions, right, strict=True)]
    )
    matched = np.array(right) > 0
    return Retrieval(
        n=len(questions),
        matched=int(matched.sum()),
        masks=float(np.mean([len(one.ious) for one in questions])),
        ceiling=float(matched.mean()),
        hit=float(hits.mean()),
        chance=float(chances.mean()),
        hit_matched=float(hits[matched].mean()) if matched.any() else 0.0,
        chance_matched=float(chances[matched].mean()) if matched.any() else 0.0,
    )
