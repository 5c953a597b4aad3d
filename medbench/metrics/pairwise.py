"""Metrics that compare a report with the gold one, by whatever means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from medbench.metric import Measured, Metric, Pooled, Setting
from medbench.metrics.gate import Pair, Pairs, let_in
from medbench.rows import Row


@dataclass(frozen=True)
class Judged:
    """What was found of pairs of texts.

    Attributes:
        items: one value a pair; None for one that had to be given up.
        pooled: how the score follows from the items; None for their mean.
        notes: counts to print beside the score.
        made_with: versions and hashes that the values depend on.
    """

    items: Sequence[float | None]
    pooled: Pooled | None = None
    notes: dict[str, Any] = field(default_factory=dict[str, Any])
    made_with: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Pairwise(Metric):
    """Base of the metrics of reports: texts pass one gate, and every row has a value.

    A row whose output or gold is empty has the value 0, whatever the package would say; so has one
    that the package did not answer in time. Both are counted beside the score.

    Class attributes:
        whole: whether empty texts are handed to the package as well, because its score is not the
            mean of the items and their lengths count in it.

    Args:
        strip: what is taken off an output: prefix ("Assistant:" in front), characters (as in the
            published code, the letters of "Assistant:" at both ends), none
    """

    kinds = ("report",)
    whole: ClassVar[bool] = False

    strip: Literal["prefix", "characters", "none"] = "prefix"

    def measure(self, rows: Sequence[Row], setting: Setting) -> Measured:
        """Return the values of rows: by the package where there is text, else by the rule."""
        gated = self.let_in(rows)
        empty = [a or b for a, b in zip(gated.empty, gated.empty_gold, strict=True)]
        asked = [at for at in range(len(rows)) if self.whole or not empty[at]]
        judged = self.judge([gated.pairs[at] for at in asked], setting)
        if len(judged.items) != len(asked):
            raise ValueError(f"{self.name}: {len(judged.items)} values for {len(asked)} pairs")
        items = [0.0] * len(rows)
        for at, item in zip(asked, judged.items, strict=True):
            if item is not None and not empty[at]:
                items[at] = float(item)
        notes = {**gated.notes, "n_gave_up": sum(item is None for item in judged.items)}
        return Measured(items, judged.pooled, {**notes, **judged.notes}, judged.made_with)

    def let_in(self, rows: Sequence[Row]) -> Pairs:
        """Return the texts of rows as `judge` is to see them."""
        return let_in(rows, strip=self.strip)

    def judge(self, pairs: Sequence[Pair], setting: Setting) -> Judged:
        """Return one value for each (output, gold), in order.

        Args:
            pairs: single lines, not empty unless `whole`; maybe none at all.
            setting: where to compute.
        """
        raise NotImplementedError
