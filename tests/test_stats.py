"""The clustered bootstrap against a plain loop, and what clustering is for."""

from __future__ import annotations

import random

import numpy as np
import pytest

from medbench.stats import bootstrap_mean


def naive(values: list[float], groups: list[str], resamples: int) -> tuple[float, float]:
    """Draw whole groups in a loop and average the items drawn."""
    generator = random.Random(11)
    names = sorted(set(groups))
    items = {name: [v for v, g in zip(values, groups, strict=True) if g == name] for name in names}
    means: list[float] = []
    for _ in range(resamples):
        drawn = [value for name in generator.choices(names, k=len(names)) for value in items[name]]
        means.append(sum(drawn) / len(drawn))
    means.sort()
    return means[round(0.025 * resamples)], means[round(0.975 * resamples)]


def correlated(n_groups: int = 40, size: int = 8) -> tuple[list[float], list[str]]:
    generator = random.Random(2)
    values: list[float] = []
    groups: list[str] = []
    for number in range(n_groups):
        easy = generator.random()
        for _ in range(generator.randint(1, size)):
            values.append(float(generator.random() < easy**3 * 1.2))
            groups.append(f"image{number}")
    return values, groups


def test_against_a_naive_loop() -> None:
    values, groups = correlated()
    found = bootstrap_mean(values, groups)
    assert found == pytest.approx(naive(values, groups, 10_000), abs=0.01)


def test_against_the_textbook_for_independent_items() -> None:
    values = [float(number < 300) for number in range(500)]
    error = (0.6 * 0.4 / 500) ** 0.5
    found = bootstrap_mean(values)
    assert found == pytest.approx((0.6 - 1.96 * error, 0.6 + 1.96 * error), abs=0.004)


def test_groups_widen_the_interval_of_correlated_items() -> None:
    values, groups = correlated()
    clustered, independent = bootstrap_mean(values, groups), bootstrap_mean(values)
    assert clustered is not None
    assert independent is not None
    assert clustered[1] - clustered[0] > 1.3 * (independent[1] - independent[0])


def test_groups_of_one_are_independent_items() -> None:
    values = [0.0, 1.0, 0.5, 1.0, 0.25]
    assert bootstrap_mean(values, list("edcba")) == bootstrap_mean(values)


def test_same_arguments_same_interval() -> None:
    values, groups = correlated()
    assert bootstrap_mean(values, groups) == bootstrap_mean(values, groups)
    assert bootstrap_mean(values, groups, seed=1) != bootstrap_mean(values, groups)


def test_names_of_groups_do_not_matter() -> None:
    values, groups = correlated()
    number = {group: index for index, group in enumerate(dict.fromkeys(groups))}
    assert bootstrap_mean(values, [number[group] for group in groups]) == bootstrap_mean(
        values, groups
    )


def test_blocks_of_draws_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    values, groups = correlated()
    whole = bootstrap_mean(values, groups)
    monkeypatch.setattr("medbench.stats._INDICES_AT_ONCE", 4_000)
    assert bootstrap_mean(values, groups) == whole


def test_level() -> None:
    values, groups = correlated()
    wide, narrow = bootstrap_mean(values, groups), bootstrap_mean(values, groups, level=0.5)
    assert wide is not None
    assert narrow is not None
    assert wide[0] < narrow[0] < np.mean(values) < narrow[1] < wide[1]


@pytest.mark.parametrize(
    ("values", "groups"), [([], None), ([], []), ([1.0], None), ([1.0, 0.0], ["a", "a"])]
)
def test_fewer_than_two_groups_have_no_interval(
    values: list[float], groups: list[str] | None
) -> None:
    assert bootstrap_mean(values, groups) is None


def test_values_that_agree_have_an_interval_of_no_width() -> None:
    assert bootstrap_mean([1.0, 1.0, 1.0]) == (1.0, 1.0)


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="2 values but 1 groups"):
        bootstrap_mean([1.0, 0.0], ["a"])
