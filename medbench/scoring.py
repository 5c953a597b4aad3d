"""Scoring: rows in, scores with intervals out; never touches a model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from medbench import plugins
from medbench.errors import UserError
from medbench.metric import Metric
from medbench.metrics.vqa import disagreements, health
from medbench.rows import Row
from medbench.stats import bootstrap_mean

# Maps are stored in half precision; text metrics are exact far beyond this.
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Score:
    """One metric over the rows of a run.

    Attributes:
        name: full name of the metric.
        value: as a fraction; None if the metric applies to no row.
        low, high: 95 % interval, clustered by image (`medbench.stats`); None with fewer than two
            images, and for metrics that are not a mean of items.
        n: rows that the metric applies to, its denominator.
        groups: images among them.
        notes: counts that the metric wants printed beside its score.
        per_item: one value per row given, None where the metric does not apply.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    groups: int
    notes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    per_item: tuple[float | None, ...] = ()

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval (low, high), None where there is none."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    def to_json(self) -> dict[str, Any]:
        """Return what `scores.json` holds; the values of single rows stand in the rows."""
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "n": self.n,
            "groups": self.groups,
            "notes": dict(self.notes),
        }


def score_rows(
    rows: Sequence[Row], metric_names: Sequence[str]
) -> tuple[dict[str, Score], list[Row]]:
    """Score a run's rows with metrics, given by full name.

    Returns:
        The scores by name, in the order asked for, and copies of the rows with their `scores`.

    Raises:
        UserError: a metric is unknown, or a row cannot be read.
    """
    scores = {name: _score(load_metric(name), rows) for name in dict.fromkeys(metric_names)}
    scored = [
        cast("Row", {**row, "scores": {name: score.per_item[at] for name, score in scores.items()}})
        for at, row in enumerate(rows)
    ]
    return scores, scored


def score(
    name: str,
    *,
    predictions: Sequence[str],
    golds: Sequence[str],
    kinds: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
) -> Score:
    """Score texts with one metric.

    Args:
        name: full name of the metric, e.g. "recall/paper".
        predictions: what the model said, one text an item.
        golds: the gold answers.
        kinds: kind of each item; items of a kind that the metric is not for are left out. By
            default all are of a kind that it is for.
        groups: image of each item, for the interval; by default every item has its own.

    Raises:
        UserError: the metric is unknown or needs more than texts, or the lengths differ.
    """
    metric = load_metric(name)
    if metric.needs:
        raise UserError(
            f"{name} cannot be computed from texts",
            f"It needs {' and '.join(metric.needs)}.",
            "Run a method that records them, then 'medbench rescore'.",
        )
    n = len(predictions)
    for what, given in (("golds", golds), ("kinds", kinds), ("groups", groups)):
        if given is not None and len(given) != n:
            raise UserError(
                f"{n} predictions but {len(given)} {what}",
                "Each prediction needs one of each.",
                "Give sequences of the same length.",
            )
    rows: list[Row] = [
        {
            "id": str(at),
            "group": str(at) if groups is None else groups[at],
            "kind": metric.kinds[0] if kinds is None else kinds[at],
            "output": predictions[at],
            "gold": golds[at],
        }
        for at in range(n)
    ]
    return _score(metric, rows)


def to_json(scores: Mapping[str, Score], rows: Sequence[Row]) -> dict[str, Any]:
    """Return what a run's scores amount to, ready for `json.dumps`.

    The same rows give the same content: no times, no machine, no order of evaluation.

    Returns:
        "scores" by metric; "health" (`vqa.health`); "disagreements" between published and strict
        rules (`vqa.disagreements`).
    """
    return {
        "scores": {name: score.to_json() for name, score in scores.items()},
        "health": health(rows),
        "disagreements": disagreements(rows),
    }


def load_metric(name: str) -> Metric:
    """Return the metric of a full name.

    Raises:
        UserError: there is none, or its file is broken.
    """
    return cast("Metric", plugins.load(plugins.get("metric", name))())


def check_golden(metric: Metric) -> None:
    """Make sure that a metric still gives the values of its own examples.

    Raises:
        UserError: an example has another value, so nothing this metric says can be trusted.
    """
    for output, gold, expected in metric.golden:
        row: Row = {
            "id": "example",
            "group": "example",
            "kind": metric.kinds[0],
            "output": output,
            "gold": gold,
        }
        # Metrics that read more than texts make their rows themselves.
        make = getattr(metric, "example", None)
        if make is not None:
            row = make(output, gold)
        (found,) = metric.items([row])
        if not math.isclose(found, expected, abs_tol=_TOLERANCE):
            raise UserError(
                f"metric {metric.name} fails its own example",
                f"For '{output}' and gold '{gold}' it gives {found:g}, not {expected:g}.",
                "The installation is damaged or the metric was changed; reinstall medbench.",
            )


def _score(metric: Metric, rows: Sequence[Row]) -> Score:
    where = [at for at, row in enumerate(rows) if metric.applies(row)]
    chosen = [rows[at] for at in where]
    groups = [
        row.get("group", row.get("id", str(at))) for at, row in zip(where, chosen, strict=True)
    ]
    # Once, not once a row: some metrics load a model for it.
    items = metric.items(chosen) if chosen else []
    if len(items) != len(chosen):
        raise ValueError(f"{metric.name} gave {len(items)} values for {len(chosen)} rows")
    # Resampled means are the interval of a mean, and of nothing else.
    is_mean = type(metric).aggregate is Metric.aggregate
    interval = bootstrap_mean(items, groups) if is_mean else None
    low, high = interval or (None, None)
    per_item: list[float | None] = [None] * len(rows)
    for at, item in zip(where, items, strict=True):
        per_item[at] = float(item)
    return Score(
        name=metric.name,
        value=float(metric.aggregate(items, chosen)) if chosen else None,
        low=low,
        high=high,
        n=len(chosen),
        groups=len(set(groups)),
        notes=metric.notes(rows),
        per_item=tuple(per_item),
    )
