"""Paired comparisons against plain loops, full enumeration and the textbook."""

from __future__ import annotations

import random
import time
from collections import Counter
from itertools import product
from math import comb

import numpy as np
import pytest
from scipy.stats import binomtest
from statsmodels.stats.contingency_tables import mcnemar

from medbench.paired import Images, compare, flip_signs, holm
from medbench.stats import bootstrap_mean

# Values of open questions: the share of an answer's words that were named.
SHARES = (0, 1 / 3, 1 / 2, 2 / 3, 1)
# How many questions only the second method answers right, and how many only the first.
TABLES = [(0, 1), (0, 6), (3, 3), (7, 2), (12, 30), (41, 40), (90, 130)]


def enumerated(differences: list[int]) -> float:
    """Go through all assignments of signs."""
    found = abs(sum(differences))
    sums = [
        sum(sign * one for sign, one in zip(signs, differences, strict=True))
        for signs in product((-1, 1), repeat=len(differences))
    ]
    return sum(abs(one) >= found for one in sums) / len(sums)


def counted(differences: list[int]) -> float:
    """Count assignments in whole numbers, which are as long as they need to be."""
    ways = Counter({0: 1})
    for one in differences:
        more: Counter[int] = Counter()
        for total, count in ways.items():
            more[total + one] += count
            more[total - one] += count
        ways = more
    far = sum(count for total, count in ways.items() if abs(total) >= abs(sum(differences)))
    return far / 2 ** len(differences)


def binomial(better: int, worse: int) -> float:
    """McNemar's exact test: as many or more of one kind among questions that differ."""
    n = better + worse
    fewer = sum(comb(n, count) for count in range(min(better, worse) + 1))
    return min(1.0, 2 * fewer / 2**n)


def looped(differences: np.ndarray, groups: list[str], resamples: int) -> list[float]:
    """Draw whole images in a loop, by the same generator, and average the questions drawn."""
    generator = np.random.default_rng(0)
    names = list(dict.fromkeys(groups))
    items = {
        name: [float(d) for d, g in zip(differences, groups, strict=True) if g == name]
        for name in names
    }
    means: list[float] = []
    for _ in range(resamples):
        picked = generator.integers(len(names), size=len(names))
        drawn = [one for number in picked for one in items[names[number]]]
        means.append(sum(drawn) / len(drawn))
    return means


def grouped(questions: int, images: int) -> list[str]:
    generator = random.Random(5)
    more = [generator.randrange(images) ** 2 // images for _ in range(questions - images)]
    return [f"image{number}" for number in (*range(images), *more)]


def judged(seeds: int, questions: int, right: float, number: int) -> np.ndarray:
    """Right and wrong answers; the seeds of a method agree on most questions."""
    generator = np.random.default_rng(number)
    easy = generator.random(questions) < right
    return (easy ^ (generator.random((seeds, questions)) < 0.1)).astype(float)


def shares(seeds: int, questions: int, number: int) -> np.ndarray:
    return np.random.default_rng(number).choice(SHARES, size=(seeds, questions))


class TestFlipSigns:
    @pytest.mark.parametrize("images", range(1, 13))
    def test_all_assignments_of_signs(self, images: int) -> None:
        generator = np.random.default_rng(images)
        for reach in (1, 2, 3, 15):
            differences = generator.integers(-reach, reach + 1, size=images)
            assert flip_signs(differences) == pytest.approx(enumerated(differences.tolist()))

    @pytest.mark.parametrize(("better", "worse"), TABLES)
    def test_with_one_question_an_image_it_is_mcnemars(self, better: int, worse: int) -> None:
        found = flip_signs(np.array([1] * better + [-1] * worse + [0] * 20))
        assert found == pytest.approx(binomial(better, worse), rel=1e-12)

    @pytest.mark.parametrize(("better", "worse"), TABLES)
    def test_against_packages(self, better: int, worse: int) -> None:
        found = flip_signs(np.array([1] * better + [-1] * worse + [0] * 20))
        assert found == pytest.approx(binomtest(better, better + worse).pvalue)
        table = [[50, worse], [better, 20]]
        assert found == pytest.approx(mcnemar(table, exact=True).pvalue)

    def test_many_images_counted_in_whole_numbers(self) -> None:
        generator = np.random.default_rng(3)
        for lift in (0, 0.3, 2):
            differences = np.rint(generator.normal(lift, 3, size=300)).astype(int)
            found = flip_signs(differences)
            assert found == pytest.approx(counted(differences.tolist()), rel=1e-12)

    def test_a_tiny_p_is_not_rounded_to_zero(self) -> None:
        assert flip_signs(np.ones(858, dtype=int)) == pytest.approx(2.0**-857)
        # No number is as small as 2 ** -1999.
        assert 0 < flip_signs(np.ones(2000, dtype=int)) < 1e-300

    def test_scale_order_and_side_do_not_matter(self) -> None:
        generator = np.random.default_rng(4)
        differences = generator.integers(-4, 6, size=60)
        found = flip_signs(differences)
        assert 0 < found < 1
        assert flip_signs(6 * differences) == found
        assert flip_signs(-differences) == found
        assert flip_signs(np.append(differences, [0] * 9)) == found
        assert flip_signs(generator.permutation(differences)) == pytest.approx(found, rel=1e-12)

    @pytest.mark.parametrize("differences", [[], [0], [0, 0, 0], [3, -3], [1, -3, 2], [5]])
    def test_no_difference_at_all(self, differences: list[int]) -> None:
        assert flip_signs(np.array(differences, dtype=np.int64)) == 1.0


class TestResamples:
    def test_they_are_those_of_a_single_score(self) -> None:
        groups = grouped(200, 60)
        values = judged(1, 200, 0.6, 1)[0]
        means = Images(groups).resampled(values)
        expected = bootstrap_mean(list(values), groups)
        assert tuple(np.quantile(means, (0.025, 0.975))) == pytest.approx(expected, abs=1e-12)

    def test_blocks_of_draws_do_not_matter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        groups, values = grouped(200, 60), judged(1, 200, 0.6, 1)[0]
        whole = Images(groups, resamples=500).resampled(values)
        # 77 resamples of 60 images a block: 500 are no whole number of blocks.
        monkeypatch.setattr("medbench.paired._IMAGES_AT_ONCE", 77 * 60 + 1)
        assert Images(groups, resamples=500).resampled(values) == pytest.approx(whole, abs=1e-12)

    def test_names_of_images_do_not_matter(self) -> None:
        groups, values = grouped(200, 60), judged(1, 200, 0.6, 1)[0]
        number = {name: len(groups) - at for at, name in enumerate(dict.fromkeys(groups))}
        renamed = Images([number[group] for group in groups], resamples=500)
        assert (renamed.resampled(values) == Images(groups, resamples=500).resampled(values)).all()

    def test_more_of_them_begin_with_fewer(self) -> None:
        groups, values = grouped(200, 60), judged(1, 200, 0.6, 1)[0]
        more = Images(groups, resamples=20_000)
        expected = Images(groups, resamples=10_000).resampled(values)
        assert (more.resampled(values, 10_000) == expected).all()
        # Asked for the rest, it draws on.
        means = more.resampled(values)
        assert means.shape == (20_000,)
        assert (means[:10_000] == expected).all()
        assert (means[10_000:] != expected).any()

    def test_there_are_no_more_than_asked_for(self) -> None:
        groups, values = grouped(200, 60), judged(1, 200, 0.6, 1)[0]
        assert Images(groups, resamples=500).resampled(values, 10_000).shape == (500,)

    def test_the_seed_of_the_draws(self) -> None:
        groups, values = grouped(200, 60), judged(1, 200, 0.6, 1)[0]
        one, other = (Images(groups, resamples=500, seed=seed).resampled(values) for seed in (0, 1))
        assert (one != other).any()


class TestCompare:
    @pytest.mark.parametrize("kind", ["judged", "shares"])
    @pytest.mark.parametrize(("seeds", "others"), [(1, 1), (5, 5), (3, 5)])
    def test_against_plain_loops(self, kind: str, seeds: int, others: int) -> None:
        groups = grouped(90, 30)
        if kind == "judged":
            first, second = judged(seeds, 90, 0.6, 1), judged(others, 90, 0.75, 2)
        else:
            first, second = shares(seeds, 90, 1), shares(others, 90, 2)
        differences = np.array(
            [
                sum(second[:, at]) / len(second) - sum(first[:, at]) / len(first)
                for at in range(first.shape[1])
            ]
        )
        found = compare(first, second, Images(groups, resamples=800))
        means = looped(differences, groups, 800)
        assert found.gap == pytest.approx(sum(differences) / 90, abs=1e-12)
        assert (found.low, found.high) == pytest.approx(
            tuple(np.quantile(means, (0.025, 0.975))), abs=1e-12
        )
        assert found.standard_error == pytest.approx(float(np.std(means, ddof=1)))
        assert (found.n, found.groups) == (90, 30)
        if kind == "judged":
            assert found.test == "mcnemar"
            by_image = Counter()
            for group, one in zip(groups, differences, strict=True):
                by_image[group] += round(one * seeds * others)
            assert found.p == pytest.approx(counted(list(by_image.values())))
        else:
            assert found.test == "bootstrap"
            below = sum(mean < 1e-12 for mean in means)
            above = sum(mean > -1e-12 for mean in means)
            assert found.p == pytest.approx(min(1, 2 * (min(below, above) + 1) / 801))

    def test_one_question_an_image_is_mcnemars_test(self) -> None:
        first, second = judged(1, 150, 0.6, 1), judged(1, 150, 0.7, 2)
        table = [[((first == a) & (second == b)).sum() for b in (1, 0)] for a in (1, 0)]
        found = compare(first, second, Images(range(150)))
        assert 0 < found.p < 1
        assert found.p == pytest.approx(mcnemar(table, exact=True).pvalue)

    @pytest.mark.parametrize(("seeds", "others"), [(1, 1), (2, 3)])
    def test_mcnemars_p_counts_swaps_of_whole_images(self, seeds: int, others: int) -> None:
        groups = grouped(40, 10)
        first, second = judged(seeds, 40, 0.5, 1), judged(others, 40, 0.75, 2)
        mine, theirs = first.mean(axis=0), second.mean(axis=0)
        names = sorted(set(groups))
        gaps: list[float] = []
        for swapped in product((False, True), repeat=len(names)):
            swap = np.array([swapped[names.index(group)] for group in groups])
            gaps.append(float(np.where(swap, mine - theirs, theirs - mine).mean()))
        # The first swaps nothing.
        far = sum(abs(gap) >= abs(gaps[0]) - 1e-12 for gap in gaps)
        found = compare(first, second, Images(groups))
        assert (found.test, found.gap) == ("mcnemar", pytest.approx(gaps[0]))
        assert 0 < found.p < 1
        assert found.p == pytest.approx(far / len(gaps))

    @pytest.mark.parametrize("kind", ["judged", "shares"])
    def test_the_interval_is_the_same_however_many_resamples_p_needs(self, kind: str) -> None:
        groups = grouped(90, 30)
        first, second = judged(1, 90, 0.6, 1), judged(1, 90, 0.7, 2)
        if kind == "shares":
            first, second = shares(1, 90, 1), shares(1, 90, 2)
        few = compare(first, second, Images(groups, resamples=10_000))
        images = Images(groups, resamples=30_000)
        many = compare(first, second, images)
        assert (many.low, many.high) == (few.low, few.high)
        assert many.standard_error == few.standard_error
        if kind == "shares":
            means = images.resampled((second - first)[0])
            fewer = min((means <= 1e-12).sum(), (means >= -1e-12).sum())
            assert many.p == pytest.approx(2 * (fewer + 1) / 30_001)
            assert many.p != few.p

    def test_p_is_never_zero(self) -> None:
        images = Images(grouped(90, 30), resamples=200)
        first, lower = np.full((1, 90), 0.5), np.full((1, 90), 0.25)
        assert compare(first, lower, images).p == compare(lower, first, images).p == 2 / 201
        right = np.ones((1, 90))
        assert compare(right - 1, right, images).p == 2 / 2**30

    @pytest.mark.parametrize("make", [judged, shares])
    def test_swapped_methods(self, make) -> None:
        images = Images(grouped(90, 30))
        first, second = (
            (judged(2, 90, 0.6, 1), judged(3, 90, 0.7, 2))
            if make is judged
            else (shares(2, 90, 1), shares(3, 90, 2))
        )
        one, other = compare(first, second, images), compare(second, first, images)
        assert other.gap == -one.gap
        assert (other.low, other.high) == pytest.approx((-one.high, -one.low), abs=1e-12)
        assert 0 < one.p < 1
        assert other.p == one.p
        assert other.standard_error == pytest.approx(one.standard_error)
        assert other.test == one.test

    @pytest.mark.parametrize("values", [judged(5, 90, 0.6, 1), shares(3, 90, 1)])
    def test_the_same_answers(self, values: np.ndarray) -> None:
        # Other orders of the seeds have other roundings in their means.
        found = compare(values, values[::-1], Images(grouped(90, 30)))
        assert (found.gap, found.low, found.high, found.p) == (0, 0, 0, 1)
        assert found.standard_error == found.smallest == 0

    def test_the_number_of_seeds_is_no_difference(self) -> None:
        values = judged(1, 90, 0.6, 1)
        found = compare(values, np.repeat(values, 3, axis=0), Images(grouped(90, 30)))
        assert (found.gap, found.low, found.high, found.p) == (0, 0, 0, 1)

    def test_what_is_given_stays_as_it_is(self) -> None:
        first, second = shares(1, 90, 1), shares(1, 90, 2)
        kept = first.copy(), second.copy()
        compare(first, second, Images(grouped(90, 30), resamples=50))
        assert (first == kept[0]).all()
        assert (second == kept[1]).all()

    def test_one_image_says_nothing_of_others(self) -> None:
        found = compare(judged(1, 9, 0.4, 1), judged(1, 9, 0.8, 2), Images(["a"] * 9))
        assert found.gap != 0
        assert (found.low, found.high, found.p) == (None, None, None)
        assert found.standard_error is found.smallest is None
        assert (found.n, found.groups) == (9, 1)

    @pytest.mark.parametrize("number", [0.5, 2.0, -1.0])
    def test_one_value_beside_right_and_wrong_is_enough(self, number: float) -> None:
        first, second = judged(1, 90, 0.6, 1), judged(1, 90, 0.7, 2)
        images = Images(grouped(90, 30), resamples=200)
        assert compare(first, second, images).test == "mcnemar"
        second[0, 7] = number
        assert compare(first, second, images).test == "bootstrap"
        assert compare(second, first, images).test == "bootstrap"

    def test_p_and_interval_agree(self) -> None:
        """Where p is the bootstrap's, up to one draw: the interval is interpolated between two."""
        groups = grouped(90, 30)
        images = Images(groups, resamples=1000)
        first, second = shares(1, 90, 1), shares(1, 90, 2)
        seen = Counter()
        for shift in np.linspace(-0.5, 0.5, 1001):
            found = compare(first, second + shift, images)
            left_out = not found.low <= 0 <= found.high
            seen[left_out] += 1
            if left_out:
                assert found.p <= 0.05 + 2 / 1001
            else:
                assert found.p > 0.05
        assert min(seen.values()) > 100

    def test_values_must_be_numbers(self) -> None:
        first, second = shares(1, 90, 1), shares(1, 90, 2)
        second[0, 3] = np.nan
        with pytest.raises(ValueError, match="numbers"):
            compare(first, second, Images(grouped(90, 30)))

    def test_there_must_be_questions(self) -> None:
        with pytest.raises(ValueError, match="there"):
            compare(np.empty((1, 0)), np.empty((1, 0)), Images([]))

    def test_questions_must_be_those_of_the_images(self) -> None:
        with pytest.raises(ValueError, match="length"):
            compare(judged(1, 8, 0.5, 1), judged(1, 8, 0.5, 2), Images("abcdefghi"))

    def test_smallest_by_its_formula(self) -> None:
        groups = grouped(300, 80)
        first, second = judged(1, 300, 0.6, 1), judged(1, 300, 0.7, 2)
        found = compare(first, second, Images(groups))
        # Of the means of resamples, without any: residuals of a ratio, summed by image.
        differences = (second - first)[0]
        by_image = Counter()
        for group, one in zip(groups, differences, strict=True):
            by_image[group] += one - differences.mean()
        error = sum(one**2 for one in by_image.values()) ** 0.5 / 300
        assert found.standard_error == pytest.approx(error, rel=0.05)
        # Quantiles 0.975 and 0.8 of the normal distribution, from a printed table.
        assert found.smallest == pytest.approx((1.959964 + 0.841621) * found.standard_error)

    def test_as_large_as_tasks_get(self) -> None:
        images = Images(grouped(3391, 858))
        first, second = judged(5, 3391, 0.6, 1), judged(5, 3391, 0.62, 2)
        compare(first, second, images)  # draws the resamples
        begin = time.process_time()
        for seeds in (5, 4, 3, 2, 1):  # 5 against 4 has the most distinct differences
            found = compare(first, second[:seeds], images)
            assert found.p is not None
        # Measured: 0.08 s.
        assert time.process_time() - begin < 2


class TestHolm:
    def textbook(self, p_values: list[float], level: float) -> list[bool]:
        """Reject the smallest p first, and stop at the first that stays."""
        rejected = [False] * len(p_values)
        for done, at in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
            if p_values[at] > level / (len(p_values) - done):
                break
            rejected[at] = True
        return rejected

    def test_against_the_textbook(self) -> None:
        generator = random.Random(6)
        for _ in range(60):
            p_values = [generator.random() ** 4 for _ in range(generator.randint(1, 14))]
            corrected = holm(p_values)
            for level in (0.001, 0.01, 0.05, 0.2):
                rejected = self.textbook(p_values, level)
                assert [p <= level for p in corrected] == rejected

    def test_by_hand(self) -> None:
        assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
        assert holm([0.5, 0.02, 0.02]) == pytest.approx([0.5, 0.06, 0.06])
        assert holm([0.6, 0.9]) == [1.0, 1.0]

    def test_one_or_none(self) -> None:
        assert holm([0.03]) == [0.03]
        assert holm([]) == []
