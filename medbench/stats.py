"""Intervals: a bootstrap that knows that several questions may share one image."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# As many drawn indices as fit in a few MB at a time.
_INDICES_AT_ONCE = 1_000_000


def bootstrap_mean(
    values: Sequence[float],
    groups: Sequence[Hashable] | None = None,
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Return the percentile bootstrap interval of the mean of `values`.

    Whole groups are drawn with replacement, as many as there are; the mean of a resample is over
    all the items drawn, so large groups weigh more, as they do in the mean itself. The quantiles
    are interpolated linearly. The same arguments give the same interval.

    Args:
        values: one per item.
        groups: the image of each item; without it every item stands alone.
        level: share of the resampled means that the interval holds.
        resamples: number of resamples.
        seed: of the draws.

    Returns:
        (low, high), or None with fewer than two groups: no items have no mean, and one group
        says nothing about how groups differ.

    Raises:
        ValueError: `groups` has another length than `values`.
    """
    import numpy as np

    totals = np.stack([np.asarray(values, dtype=np.float64), np.ones(len(values))], axis=1)
    members = range(len(values)) if groups is None else groups
    return bootstrap(
        totals,
        lambda sums: sums[..., 0] / sums[..., 1],
        members,
        level=level,
        resamples=resamples,
        seed=seed,
    )


def bootstrap(
    totals: np.ndarray,
    value: Callable[[np.ndarray], np.ndarray],
    groups: Sequence[Hashable],
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Return the percentile bootstrap interval of a score that follows from sums over items.

    Whole groups are drawn as in `bootstrap_mean`.

    Args:
        totals: float64 [items, k], what each item adds to the sums.
        value: sums [resamples, k] -> scores [resamples].
        groups: the image of each item.
        level: share of the resampled scores that the interval holds.
        resamples: number of resamples.
        seed: of the draws.

    Returns:
        (low, high), or None with fewer than two groups.

    Raises:
        ValueError: `groups` has another length than `totals`.
    """
    import numpy as np

    if len(groups) != len(totals):
        raise ValueError(f"{len(totals)} values but {len(groups)} groups")
    # Numbered in order of appearance, so that the draw does not depend on the groups' names.
    number: dict[Hashable, int] = {}
    index = [number.setdefault(member, len(number)) for member in groups]
    if len(number) < 2:
        return None
    sums = np.stack([np.bincount(index, weights=column) for column in totals.T], axis=1)
    generator = np.random.default_rng(seed)
    step = max(1, _INDICES_AT_ONCE // len(number))
    scores = np.empty(resamples)
    for start in range(0, resamples, step):
        stop = min(start + step, resamples)
        drawn = generator.integers(len(number), size=(stop - start, len(number)))
        # One column at a time: all at once would be k times the memory.
        resampled = np.stack([column[drawn].sum(axis=1) for column in sums.T], axis=1)
        scores[start:stop] = value(resampled)
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(scores, (tail, 1.0 - tail))
    return float(low), float(high)
