"""What the two scores of CXR-Report-Metric share: how the published evaluation hands texts over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from medbench.metrics.gate import Pairs, let_in
from medbench.metrics.pairwise import Pairwise
from medbench.rows import Row


@dataclass(frozen=True)
class CxrReportMetric(Pairwise):
    """Base of the scores that A3Tune's evaluation takes from CXR-Report-Metric.

    Args:
        replace_short: put "No report generated." in place of texts of fewer than ten letters, empty
            ones included, as the published evaluation does; they are compared like any other then
    """

    variants = {"official": {"strip": "characters", "replace_short": True}}

    replace_short: bool = False

    def let_in(self, rows: Sequence[Row]) -> Pairs:
        """Return the texts of rows; where short ones are replaced, none is empty."""
        gated = let_in(rows, strip=self.strip, replace_short=self.replace_short)
        if not self.replace_short:
            return gated
        none = [False] * len(rows)
        return replace(gated, empty=none, empty_gold=none)

    def notes(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Return how many rows have a text that was replaced."""
        if not self.replace_short:
            return {}
        mine = [row for row in rows if self.applies(row)]
        before = let_in(mine, strip=self.strip).pairs
        after = let_in(mine, strip=self.strip, replace_short=True).pairs
        return {"n_replaced": sum(a != b for a, b in zip(before, after, strict=True))}
