"""What every metric keeps to: its examples hold, and it bears whatever a model says."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from medbench.contract.breach import breach, telling
from medbench.contract.reading import ReadingContract
from medbench.metric import Metric, Setting
from medbench.rows import Row
from medbench.scoring import check_golden

_OUTPUTS = ("", " \n", "yes", "No.", "yes no", "ä 漢字 \U0001f600", "[b]*(\\", "heart " * 300)
_GOLDS = ("yes", "no", "left lung, right lung", "a heart .")


class MetricContract(ReadingContract):
    """What a metric keeps to; a subclass names it."""

    kind = "metric"

    @pytest.fixture
    def metric(self, made: Any) -> Metric:
        """The metric with its defaults."""
        return made

    @pytest.fixture
    def rows(self, metric: Metric) -> list[Row]:
        """Odd outputs for a few gold answers."""
        if not set(metric.needs) <= {"meta"}:
            pytest.skip(f"{metric.name} reads more than texts")
        return [
            {
                "id": f"{at}",
                "group": f"{at}",
                "kind": metric.kinds[0],
                "output": output,
                "gold": gold,
                "meta": {"options": list(_GOLDS)},
            }
            for at, (output, gold) in enumerate((o, g) for o in _OUTPUTS for g in _GOLDS)
        ]

    def test_its_kinds_are_named(self, metric: Metric) -> None:
        """It says which kinds of sample it applies to."""
        if not metric.kinds:
            breach(f"{metric.name} applies to nothing", "", "kinds = ('open',), or others.")

    def test_its_golden_examples_hold(self, metric: Metric) -> None:
        """It has examples, and they hold; runs try them before a model loads."""
        if not metric.golden and not metric.golden_published:
            breach(
                f"{metric.name} has no golden example",
                "Nothing would tell a user that it computes what it did.",
                "golden = ((output, gold, value), ...).",
            )
        with telling(f"a golden example of {metric.name} does not hold"):
            check_golden(metric)

    def test_it_bears_odd_texts(self, metric: Metric, rows: list[Row]) -> None:
        """Values are numbers in its range, whatever the output."""
        low, high = _bounds(metric)
        for row, value in zip(rows, _items(metric, rows), strict=True):
            if not math.isfinite(value) or not low <= value <= high:
                breach(
                    f"{metric.name} gives {value} for {row['output'][:40]!r}",
                    f"Its range is {metric.range}.",
                    "Say in its rule what an output that cannot be judged is worth.",
                )

    def test_a_value_does_not_depend_on_its_neighbours(
        self, metric: Metric, rows: list[Row]
    ) -> None:
        """A row has the value that it has alone."""
        together = _items(metric, rows)
        for row, value in zip(rows, together, strict=True):
            alone = _items(metric, [row])[0]
            if not math.isclose(value, alone, rel_tol=1e-6, abs_tol=1e-6):
                breach(
                    f"{metric.name} gives {value:g} among others and {alone:g} alone",
                    "Values of single samples are compared between methods.",
                    "Compute each row for itself; a score that is no mean is Pooled.",
                )


def _items(metric: Metric, rows: list[Row]) -> list[float]:
    with telling(f"{metric.name} cannot score them"):
        return list(metric.measure(rows, Setting()).items)


def _bounds(metric: Metric) -> tuple[float, float]:
    """Return what values a metric may take, as far as its range says so in numbers."""
    found = re.fullmatch(r"(-?[\d.]+) to (-?[\d.]+)", metric.range)
    return (float(found[1]), float(found[2])) if found else (-math.inf, math.inf)
