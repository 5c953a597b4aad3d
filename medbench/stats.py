"""Intervals: a bootstrap that knows that several questions may share one image."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

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

    members = range(len(values)) if groups is None else groups
    if len(members) != len(values):
        raise ValueError(f"{len(values)} values but {len(members)} groups")
    # Numbered in order of appearance, so that the draw does not depend on the groups' names.
    number: dict[Hashable, int] = {}
    index = [number.setdefault(member, len(number)) for member in members]
    if len(number) < 2:
        return None
    sums = np.bincount(index, weights=np.asarray(values, dtype=np.float64))
    counts = np.bincount(index).astype(np.float64)
    generator = np.random.default_rng(seed)
    step = max(1, _INDICES_AT_ONCE // len(number))
    means = np.empty(resamples)
    for start in range(0, resamples, step):
        stop = min(start + step, resamples)
        drawn = generator.integers(len(number), size=(stop - start, len(number)))
        means[start:stop] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(means, (tail, 1.0 - tail))
    return float(low), float(high)
