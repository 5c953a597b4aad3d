"""Metrics: functions from rows to a score, each with a full name and a written rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from medbench.rows import Row


@dataclass(frozen=True)
class Metric:
    """Scores the rows of the kinds it applies to; the subclass's docstring is its rule.

    Class attributes (literals, read from the source by `medbench list` and `show`):
        name: full name with its variant, such as "closed/paper".
        paper: where the rule comes from.
        kinds: kinds of sample it applies to.
        needs: row fields it reads beyond the texts, e.g. ("attention", "roi").
        golden: (output, gold, value) examples that must hold; one is tried before a model loads.
    """

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    kinds: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[tuple[str, ...]] = ()
    golden: ClassVar[tuple[tuple[str, str, float], ...]] = ()

    def applies(self, row: Row) -> bool:
        """Say whether a row is in this metric's denominator."""
        return row["kind"] in self.kinds and all(field in row for field in self.needs)

    def items(self, rows: Sequence[Row]) -> list[float]:
        """Return one value per row, in order; every row given is one that applies.

        An item is never dropped: a row that cannot be judged has a value by the written rule.
        """
        raise NotImplementedError

    def aggregate(self, items: Sequence[float], rows: Sequence[Row]) -> float:
        """Return the score of the rows whose values are `items`; the mean by default."""
        return sum(items) / len(items)

    def notes(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Return counts worth printing beside the score, e.g. {"n_empty": 3}.

        Unlike the others this gets every row of the run, so that skipped ones can be counted.
        """
        return {}
