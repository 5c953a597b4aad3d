"""Paired comparison: two methods on the same questions, several of which may share an image.

A method's value for a question is its mean over the seeds, so what is compared is what was run;
how far other seeds would have led elsewhere is told by their spread, and is not in here.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

LEVEL, POWER = 0.05, 0.8
# Differences of means of a few small fractions: what is below this is zero and rounding.
_ZERO = 1e-12
# An interval is made of so many resamples, however many more a p needs: the same comparison has the
# same interval wherever it is printed.
_OF_INTERVALS = 10_000
# As many drawn images as fit in a processor's cache.
_IMAGES_AT_ONCE = 100_000


@dataclass(frozen=True)
class Paired:
    """The gap between two methods in one score, which is a mean over questions.

    Attributes:
        gap: second minus first, as a fraction.
        low, high: 95 % interval of it, clustered by image, of 10 000 resamples at most; None with
            fewer than two images.
        p: two-sided, that there is no gap; None with fewer than two images.
        test: "mcnemar", exact over images, where every answer is right or wrong; else "bootstrap".
        n, groups: questions and images.
        standard_error: of the gap, None with fewer than two images.
    """

    gap: float
    low: float | None
    high: float | None
    p: float | None
    test: Literal["mcnemar", "bootstrap"]
    n: int
    groups: int
    standard_error: float | None

    @property
    def smallest(self) -> float | None:
        """The smallest true gap that most such comparisons would find, as a fraction.

        (z of 1 - 0.05 / 2 + z of 0.8) standard errors: 8 of 10 by the normal approximation, about 3
        of 4 in simulations (docs/statistics.md).
        """
        if self.standard_error is None:
            return None
        normal = NormalDist()
        return (normal.inv_cdf(1 - LEVEL / 2) + normal.inv_cdf(POWER)) * self.standard_error


class Images:
    """Questions by image, and resamples of the images that all comparisons over them share.

    Args:
        groups: the image of each question.
        resamples: number of resamples; more of them begin with those that fewer would be.
        seed: of the draws.
    """

    def __init__(
        self, groups: Sequence[Hashable], *, resamples: int = 10_000, seed: int = 0
    ) -> None:
        # Numbered in order of appearance, so that the draw does not depend on the groups' names.
        number: dict[Hashable, int] = {}
        self.of = np.array([number.setdefault(one, len(number)) for one in groups], dtype=np.intp)
        self.count = len(number)
        self.resamples = resamples
        self._generator = np.random.default_rng(seed)
        self._drawn: list[tuple[np.ndarray, np.ndarray]] = []

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of each image's values [images], for values [questions]."""
        return np.bincount(self.of, weights=values, minlength=self.count)

    def resampled(self, values: np.ndarray, at_most: int | None = None) -> np.ndarray:
        """Return the mean of each resample [resamples], for values [questions].

        Whole images are drawn; the mean is over all the questions drawn.

        Args:
            values: one a question.
            at_most: leave out the resamples after so many.
        """
        wanted = self.resamples if at_most is None else min(at_most, self.resamples)
        sums = self.sums(values)
        means = [times @ sums / sizes for times, sizes in self._blocks(wanted)]
        return np.concatenate(means)[:wanted]

    def _blocks(self, wanted: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield how often resamples hold each image, and of how many questions they are.

        The blocks, [rows, images] and [rows], have so many rows together or some more. They are
        drawn when they are first wanted, and kept for the next comparison.
        """
        rows = max(1, _IMAGES_AT_ONCE // self.count)
        for at in range(-(-wanted // rows)):
            if at == len(self._drawn):
                self._drawn.append(self._draw(rows))
            yield self._drawn[at]

    def _draw(self, rows: int) -> tuple[np.ndarray, np.ndarray]:
        picked = self._generator.integers(self.count, size=(rows, self.count))
        # Images of one row are told from those of another, so that all are counted at once.
        picked += np.arange(rows)[:, None] * self.count
        times = np.bincount(picked.ravel(), minlength=picked.size).reshape(picked.shape)
        sizes = times @ self.sums(np.ones(len(self.of)))
        # A byte is enough: the chance that one image is drawn 256 times is below 1 / 256!.
        return times.astype(np.uint8), sizes


def compare(first: np.ndarray, second: np.ndarray, images: Images) -> Paired:
    """Compare two methods by their values for the same questions.

    Args:
        first, second: float64 [seeds, questions], in the same order of questions; the numbers of
            seeds may differ.
        images: of the questions.

    Raises:
        ValueError: there is no question, or a value is NaN.
    """
    differences = second.mean(axis=0) - first.mean(axis=0)
    # NaN is on neither side of zero, and would come out as a tiny p.
    if not differences.size or np.isnan(differences).any():
        raise ValueError("values to compare must be there, and numbers")
    differences[np.abs(differences) < _ZERO] = 0.0
    judged = _is_judged(first) and _is_judged(second)
    test = "mcnemar" if judged else "bootstrap"
    gap = float(differences.mean())
    if images.count < 2:
        return Paired(gap, None, None, None, test, differences.size, images.count, None)
    # An exact p needs no resamples, and its interval not those beyond the first.
    means = images.resampled(differences, _OF_INTERVALS if judged else None)
    means[np.abs(means) < _ZERO] = 0.0
    of_interval = means[:_OF_INTERVALS]
    low, high = np.quantile(of_interval, (LEVEL / 2, 1 - LEVEL / 2))
    if judged:
        # Whole numbers: right answers of all seeds, each method's as often as the other has seeds.
        scaled = len(first) * second.sum(axis=0) - len(second) * first.sum(axis=0)
        p = flip_signs(np.rint(images.sums(scaled)).astype(np.int64))
    else:
        p = _by_bootstrap(means)
    return Paired(
        gap=gap,
        low=float(low),
        high=float(high),
        p=p,
        test=test,
        n=differences.size,
        groups=images.count,
        standard_error=float(of_interval.std(ddof=1)),
    )


def flip_signs(differences: np.ndarray) -> float:
    """Return the two-sided p of McNemar's exact test with whole images as its units.

    If two methods are alike, each image's difference in right answers could as well have had the
    other sign. Over all assignments of signs, p is the share whose sum is at least as far from
    zero as the one found; it is counted exactly, by adding image after image to the distribution
    of the sum. With one question an image this is McNemar's test (1947) in its exact form.

    Args:
        differences: int [images], second minus first.
    """
    sizes = np.abs(differences[differences != 0])
    if not sizes.size:
        return 1.0
    unit = np.gcd.reduce(sizes)
    sizes = sizes // unit
    reach, far = int(sizes.sum()), abs(int(differences.sum())) // int(unit)
    chance = np.zeros(reach + 1)  # that the images with a plus make up 0 .. reach
    chance[0] = 1.0
    for size in sizes:
        chance[size:] += chance[:-size]
        chance /= 2
    # Their part less the others' is far from zero on either side alike.
    p = 2 * float(chance[: (reach - far) // 2 + 1].sum())
    # Beyond some thousand images that agree, p is smaller than any number, but it is not 0.
    return min(1.0, max(p, sys.float_info.min))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values corrected for their number by Holm's step-down rule (1979).

    All null hypotheses with a corrected p of at most 0.05 can be rejected together with a chance
    of at most 5 % of a single wrong one.
    """
    if not p_values:
        return []
    # A second of imports, which only those who test pay.
    from statsmodels.stats.multitest import (  # pyright: ignore[reportMissingTypeStubs]
        multipletests,
    )

    return np.asarray(multipletests(p_values, method="holm")[1], dtype=np.float64).tolist()


def _is_judged(values: np.ndarray) -> bool:
    return bool(((values == 0) | (values == 1)).all())


def _by_bootstrap(means: np.ndarray) -> float:
    """Return the largest level at which the percentile interval would hold zero."""
    below, above = int((means <= 0).sum()), int((means >= 0).sum())
    return min(1.0, 2 * (min(below, above) + 1) / (means.size + 1))
