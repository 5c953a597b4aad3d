"""Whether intervals hold the truth as often as they say, and tests err as seldom, by simulation.

    python benchmarks/intervals.py                                     # all, some ten minutes
    python benchmarks/intervals.py --case "12 images" --simulations 200

Answers are drawn from a model whose scores are known. To the method's level four normal numbers are
added: an effect of the image and one of the question, both shared by all methods, an effect of the
method on that image, and noise of its own. The answer is right if the sum is above a threshold;
open answers have four thresholds. How many questions an image has is drawn once for a case, all
else anew in each simulation. The simulations are of one seed a method.

Rates are in % of the simulations, with their Monte Carlo standard errors. docs/statistics.md
explains the columns.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from statistics import NormalDist

import numpy as np

from medbench.paired import LEVEL, Images, Paired, compare, flip_signs, holm
from medbench.stats import bootstrap_mean

# Methods that are compared with one reference, for Holm's rule.
OTHERS = 12
# All values are whole numbers of sixths.
UNITS = 6
# Effects of the method on the image, for two methods of one score that are unlike.
UNLIKE = 0.0, 3.0
_ZERO = 1e-9
CLOSED, OPEN = {1: 0.65}, {1 / 3: 0.6, 1 / 2: 0.5, 2 / 3: 0.42, 1: 0.35}
NORMAL = NormalDist()

SIGNS, BOOTSTRAP, QUESTIONS, UNPAIRED = TESTS = (
    "exact, images", "bootstrap, images", "exact, questions", "unpaired z",
)  # fmt: skip
HEADS = {
    "The data": (
        "questions", "images", "questions an image", "images, if even", "true score",
        "answers that differ", "answers alike", "differences alike",
    ),
    "The 95 % interval of a score holds the true one": ("images drawn", "questions drawn"),
    "The 95 % interval of the gap holds the true one": ("no gap", "the smallest gap"),
    "A test finds a gap where there is none": TESTS,
    "A test finds a gap between methods of one score that fail on other images": (SIGNS, BOOTSTRAP),
    "The smallest gap, as stated, and how often it is found": ("points", SIGNS, BOOTSTRAP),
    f"One of {OTHERS} methods or more is found to differ where none does": (
        "each p by itself", "by Holm's rule",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A task as the statistics see it.

    Attributes:
        questions, images: how many.
        uneven: whether some images have many more questions than others.
        reached: value -> part of the answers that have it or more, for a method of level 0.
        noise: what is a method's own, against what it shares with the others: how often two
            methods of one level answer differently.
    """

    questions: int
    images: int
    uneven: bool
    reached: dict[float, float] = field(default_factory=lambda: CLOSED)
    noise: float = 1.0

    def score(self, level: float) -> float:
        """Return the true score of a method, by its level in standard deviations."""
        values = [0.0, *self.reached]
        return sum(
            (values[at + 1] - values[at]) * NORMAL.cdf(NORMAL.inv_cdf(part) + level)
            for at, part in enumerate(self.reached.values())
        )

    def level(self, score: float) -> float:
        """Return the level of a method that has this true score, by halving."""
        low, high = -10.0, 10.0
        if not self.score(low) < score < self.score(high):
            raise ValueError(f"no method scores {score:.3f}")
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self.score(middle) < score else (low, middle)
        return low


@dataclass(frozen=True)
class Effects:
    """Standard deviations of an image's effects.

    Attributes:
        image: shared by all methods, where that of the question's effect is 1.
        own: of each method on each image, where that of its noise is 1.
    """

    image: float
    own: float


CASES = {
    "SLAKE closed": Case(355, 96, uneven=True),
    "SLAKE closed, methods agree": Case(355, 96, uneven=True, noise=0.25),
    "SLAKE closed, 95 % right": Case(355, 96, uneven=True, reached={1: 0.95}),
    "SLAKE open": Case(706, 96, uneven=True, reached=OPEN),
    "VQA-RAD closed": Case(254, 200, uneven=False),
    "phantom closed": Case(720, 590, uneven=False),
    "48 images": Case(240, 48, uneven=True),
    "24 images": Case(120, 24, uneven=True),
    "12 images": Case(60, 12, uneven=True),
    "12 images, even": Case(60, 12, uneven=False),
}
CORRELATIONS = {"none": Effects(0, 0), "moderate": Effects(0.8, 0.5), "strong": Effects(1.5, 1.2)}


class Setting:
    """A case and how alike answers about one image are.

    Attributes:
        of: the image of each question; each image has one at least.
        images, alone: resamples of whole images, and of questions as if each had its own.
    """

    def __init__(self, case: Case, effects: Effects, resamples: int) -> None:
        self.case, self.effects = case, effects
        generator = np.random.default_rng(0)
        weights = generator.standard_gamma(1, case.images) if case.uneven else np.ones(case.images)
        more = generator.multinomial(case.questions - case.images, weights / weights.sum())
        self.of = np.repeat(np.arange(case.images), 1 + more)
        self.images = Images(self.of.tolist(), resamples=resamples)
        self.alone = Images(range(case.questions), resamples=resamples)
        self._values = np.array([0.0, *case.reached])
        self._thresholds = np.array([-NORMAL.inv_cdf(part) for part in case.reached.values()])

    def answers(
        self,
        levels: Sequence[float],
        generator: np.random.Generator,
        owns: Sequence[float] | None = None,
    ) -> np.ndarray:
        """Draw the values [methods, questions] of methods of these levels.

        Args:
            levels: of the methods; owns: their own effects on images, if not the setting's.
        """
        draw, effects = generator.standard_normal, self.effects
        spread = np.array(owns or [effects.own] * len(levels))[:, None]
        shared = effects.image * draw(self.case.images)[self.of] + draw(self.case.questions)
        own = (spread * draw((len(levels), self.case.images)))[:, self.of]
        own += draw((len(levels), self.case.questions))
        # The sum has the variance 1, whatever the effects are, so that the true score stays.
        noise = self.case.noise
        whole = (effects.image**2 + 1 + noise**2 * (spread**2 + 1)) ** 0.5
        latent = np.array(levels)[:, None] + (shared + noise * own) / whole
        return self._values[np.searchsorted(self._thresholds, latent)]


def main() -> None:
    """Read the command line, simulate, and print the tables."""
    options = command_line()
    begin = time.process_time()
    tables: dict[str, list[str]] = {title: [] for title in HEADS}
    for at, (name, case) in enumerate(CASES.items()):
        if options.case not in ("", name):
            continue
        for number, (correlation, effects) in enumerate(CORRELATIONS.items()):
            setting = Setting(case, effects, options.resamples)
            found = simulate(setting, options.simulations, [options.seed, at, number])
            for rows, cells in zip(tables.values(), found, strict=True):
                rows.append(f"| {name} | {correlation} | {' | '.join(cells)} |")
            print(f"{name}, {correlation}: done", file=sys.stderr, flush=True)
    print(
        f"{options.simulations} simulations a row, {options.resamples} resamples,"
        f" seed {options.seed}, Python {platform.python_version()}, numpy {np.__version__},"
        f" statsmodels {version('statsmodels')}, {platform.machine()},"
        f" {(time.process_time() - begin) / 60:.1f} minutes of CPU time"
    )
    for title, rows in tables.items():
        heads = ("case", "correlation", *HEADS[title])
        print(f"\n{title}\n\n| {' | '.join(heads)} |\n{'|---' * len(heads)}|", *rows, sep="\n")


def command_line() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=1000, help="for each row of each table")
    parser.add_argument("--resamples", type=int, default=10_000, help="of the bootstrap")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", choices=tuple(CASES), default="", help="all by default")
    return parser.parse_args()


def simulate(setting: Setting, simulations: int, seed: Sequence[int]) -> list[tuple[str, ...]]:
    """Return the cells of a row of each table."""
    generator = np.random.default_rng(seed)
    case, sizes = setting.case, np.bincount(setting.of)
    none, stated, facts = of_no_gap(setting, simulations, generator)
    some = of_gap(setting, stated, simulations, generator)
    many = of_many(setting, simulations, generator)
    unlike = of_unlike(setting, simulations, np.random.default_rng([*seed, 1]))
    # So many images of one size would tell as much, if an image's answers were all the same.
    even = sizes.sum() ** 2 / (sizes**2).sum()
    data = (case.questions, case.images, f"{sizes.min()}-{sizes.max()}", f"{even:.0f}")
    differ, *alike = facts
    shown = (f"{case.score(0):.3f}", f"{100 * differ:.0f} %", *(f"{one:.2f}" for one in alike))
    return [
        (*map(str, data), *shown),
        (rate(none["images drawn"]), rate(none["questions drawn"])),
        (rate(none["gap"]), rate(some["gap"])),
        tuple(rate(none[test]) for test in TESTS),
        (rate(unlike[SIGNS]), rate(unlike[BOOTSTRAP])),
        (f"{100 * stated:.1f}", rate(some[SIGNS]), rate(some[BOOTSTRAP])),
        (rate(many["single"]), rate(many["holm"])),
    ]


def of_no_gap(
    setting: Setting, simulations: int, generator: np.random.Generator
) -> tuple[dict[str, list[bool]], float, tuple[float, float, float]]:
    """Simulate two methods of one level.

    Returns:
        What held or was found, a list of the simulations each; the mean of the smallest gaps
        stated; which part of the answers differ, and the correlations of one method's answers to
        two questions about one image, and of two such differences.
    """
    truth = setting.case.score(0)
    seen: dict[str, list[bool]] = defaultdict(list)
    smallest: list[float] = []
    differ: list[float] = []
    products: list[tuple[tuple[float, float], tuple[float, float]]] = []
    for number in range(simulations):
        first, second = setting.answers((0, 0), generator)
        for name, images in (("images drawn", setting.images), ("questions drawn", setting.alone)):
            interval = np.quantile(images.resampled(first), (LEVEL / 2, 1 - LEVEL / 2))
            if number == 0:
                # All runs over the same images share these draws, and so do all simulations.
                expected = bootstrap_mean(first, images.of.tolist(), resamples=images.resamples)
                np.testing.assert_allclose(interval, expected, atol=1e-12)
            # An end can be the truth itself, 39 of 60 questions say, but for its last digit.
            seen[name].append(interval[0] - _ZERO <= truth <= interval[1] + _ZERO)
        smallest.append(look(setting, first, second, 0, seen).smallest or 0.0)
        differences = second - first
        seen[QUESTIONS].append(flip_signs(whole(differences)) <= LEVEL)
        error = ((first.var() + second.var()) / len(first)) ** 0.5
        seen[UNPAIRED].append(abs(differences.mean()) > NORMAL.inv_cdf(1 - LEVEL / 2) * error)
        differ.append(float((differences != 0).mean()))
        products.append((pairs(first - truth, setting), pairs(differences, setting)))
    answers, gaps = (float(shared / squares) for shared, squares in np.mean(products, axis=0))
    return seen, float(np.mean(smallest)), (float(np.mean(differ)), answers, gaps)


def of_gap(
    setting: Setting, gap: float, simulations: int, generator: np.random.Generator
) -> dict[str, list[bool]]:
    """Simulate two methods, of which the second truly scores lower, by this gap."""
    levels = 0, setting.case.level(setting.case.score(0) - gap)
    seen: dict[str, list[bool]] = defaultdict(list)
    for _ in range(simulations):
        look(setting, *setting.answers(levels, generator), -gap, seen)
    return seen


def of_unlike(
    setting: Setting, simulations: int, generator: np.random.Generator
) -> dict[str, list[bool]]:
    """Simulate two methods of one score; the second is mostly right or wrong on whole images."""
    seen: dict[str, list[bool]] = defaultdict(list)
    for _ in range(simulations):
        look(setting, *setting.answers((0, 0), generator, UNLIKE), 0, seen)
    return seen


def of_many(
    setting: Setting, simulations: int, generator: np.random.Generator
) -> dict[str, list[bool]]:
    """Simulate methods of one level, all but one compared with that one."""
    seen: dict[str, list[bool]] = defaultdict(list)
    for number in range(simulations):
        reference, *others = setting.answers([0] * (1 + OTHERS), generator)
        found = [p_value(setting, reference, other) for other in others]
        if number == 0:
            expected = [compare(reference[None], one[None], setting.images).p for one in others]
            np.testing.assert_allclose(found, expected)
            np.testing.assert_allclose(min(holm(found)), min(1, OTHERS * min(found)))
        seen["single"].append(min(found) <= LEVEL)
        # Holm's rule finds something if it finds the smallest p; statsmodels' takes 50 ms.
        seen["holm"].append(OTHERS * min(found) <= LEVEL)
    return seen


def look(
    setting: Setting,
    first: np.ndarray,
    second: np.ndarray,
    gap: float,
    seen: dict[str, list[bool]],
) -> Paired:
    """Compare two methods; note if the interval holds the true gap, and which tests find one."""
    found = compare(first[None], second[None], setting.images)
    seen["gap"].append(found.low <= gap <= found.high)
    by_image = whole(setting.images.sums(second - first))
    seen[SIGNS].append(flip_signs(by_image) <= LEVEL)
    seen[BOOTSTRAP].append(not found.low <= 0 <= found.high)
    return found


def p_value(setting: Setting, first: np.ndarray, second: np.ndarray) -> float:
    """Return the p of `compare`; its interval takes most of the time, and is left out if it can."""
    if set(setting.case.reached) == {1}:
        return flip_signs(whole(setting.images.sums(second - first)))
    return compare(first[None], second[None], setting.images).p


def whole(values: np.ndarray) -> np.ndarray:
    """Return values in whole numbers, for the exact tests."""
    return np.rint(UNITS * values).astype(np.int64)


def pairs(values: np.ndarray, setting: Setting) -> tuple[float, float]:
    """Return the mean product of two values about one image, and of a value with itself."""
    sizes = setting.images.sums(np.ones_like(values))
    products = (setting.images.sums(values) ** 2 - setting.images.sums(values**2)).sum()
    return products / (sizes * (sizes - 1)).sum(), (values**2).mean()


def rate(seen: Sequence[bool]) -> str:
    """Return how often, in %, with its standard error."""
    # One more and one less: never seen in so many simulations is not never.
    part = (sum(seen) + 1) / (len(seen) + 2)
    error = (part * (1 - part) / len(seen)) ** 0.5
    return f"{100 * np.mean(seen):.1f} ± {100 * error:.1f}"


if __name__ == "__main__":
    main()
