"""Scoring: rows in, scores with intervals out; never touches a model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from medbench import plugins, spec
from medbench.errors import UserError
from medbench.metric import Measured, Metric, Setting
from medbench.metrics.counts import confusion, disagreements, health
from medbench.rows import Row
from medbench.stats import bootstrap, bootstrap_mean

# Maps are stored in half precision; text metrics are exact far beyond this.
_TOLERANCE = 1e-6
_PROBE = ("The heart is enlarged. No edema.", "Mild cardiomegaly without pulmonary edema.")
# Published values have six digits, and kinds of processors differ in the fourth.
_TOLERANCE_OF_WEIGHTS = 1e-3


@dataclass(frozen=True)
class Score:
    """One metric over the rows of a run.

    Attributes:
        name: full name of the metric.
        value: as a fraction; None if the metric applies to no row.
        low, high: 95 % interval, clustered by image (`medbench.stats`); None with fewer than two
            images.
        n: rows that the metric applies to, its denominator.
        groups: images among them.
        notes: counts that the metric wants printed beside its score.
        made_with: versions and hashes of weights that the values depend on.
        per_item: one value per row given, None where the metric does not apply.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    groups: int
    notes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    made_with: Mapping[str, Any] = field(default_factory=dict[str, Any])
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
            "made_with": dict(self.made_with),
        }


def score_rows(
    rows: Sequence[Row], metric_names: Sequence[str], setting: Setting | None = None
) -> tuple[dict[str, Score], list[Row]]:
    """Score a run's rows with metrics, given by full name or spec.

    Args:
        rows: of a run.
        metric_names: e.g. "closed/strict", "bertscore[rescaled=on]".
        setting: where metrics that load something compute.

    Returns:
        The scores by full name, in the order asked for, and copies of the rows with their `scores`.

    Raises:
        UserError: a metric is unknown or cannot be computed, or a row cannot be read.
    """
    metrics = [load_metric(name) for name in dict.fromkeys(metric_names)]
    scores = {metric.full_name: measure(metric, rows, setting) for metric in metrics}
    return scores, with_scores(rows, scores)


def with_scores(rows: Sequence[Row], scores: Mapping[str, Score]) -> list[Row]:
    """Return copies of rows with the values of scores added to those they have."""
    return [
        cast(
            "Row",
            {
                **row,
                "scores": {
                    **row.get("scores", {}),
                    **{name: score.per_item[at] for name, score in scores.items()},
                },
            },
        )
        for at, row in enumerate(rows)
    ]


def score(
    name: str,
    *,
    predictions: Sequence[str],
    golds: Sequence[str],
    kinds: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    options: Sequence[Sequence[str]] | None = None,
    setting: Setting | None = None,
) -> Score:
    """Score texts with one metric.

    Args:
        name: full name of the metric or its spec, e.g. "recall/paper", "bertscore[rescaled=on]".
        predictions: what the model said, one text an item.
        golds: the gold answers.
        kinds: kind of each item; items of a kind that the metric is not for are left out. By
            default all are of a kind that it is for.
        groups: image of each item, for the interval; by default every item has its own.
        options: of each item, for metrics of multiple choice.
        setting: where a metric that loads something computes.

    Raises:
        UserError: the metric is unknown or needs more than texts, or the lengths differ.
    """
    metric = load_metric(name)
    if "meta" in metric.needs and options is None:
        raise UserError(
            f"{name} compares an answer with the options it was given",
            "There are none.",
            "Give options=[[...], ...], one list for each prediction.",
        )
    if not set(metric.needs) <= {"meta"}:
        raise UserError(
            f"{name} cannot be computed from texts",
            f"It needs {' and '.join(metric.needs)}.",
            "Run a method that records them, then 'medbench rescore'.",
        )
    n = len(predictions)
    for what, given in (
        ("golds", golds), ("kinds", kinds), ("groups", groups), ("options", options),
    ):  # fmt: skip
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
            "meta": {} if options is None else {"options": list(options[at])},
        }
        for at in range(n)
    ]
    return measure(metric, rows, setting)


def to_json(
    scores: Mapping[str, Score],
    rows: Sequence[Row],
    unscored: Mapping[str, UserError] | None = None,
) -> dict[str, Any]:
    """Return what a run's scores amount to, ready for `json.dumps`.

    The same rows give the same content: no times, no machine, no order of evaluation.

    Args:
        scores: by full name.
        rows: that they are of.
        unscored: why a metric has no score.

    Returns:
        "scores" by metric; "unscored" by metric, in three lines; and what `metrics.counts` counts:
        "health", "confusion" of yes and no, "disagreements" between published and strict rules.
    """
    return {
        "scores": {name: score.to_json() for name, score in scores.items()},
        "unscored": {
            name: [error.what, error.why, error.do] for name, error in (unscored or {}).items()
        },
        "health": health(rows),
        "confusion": confusion(rows),
        "disagreements": disagreements(rows),
    }


def load_metric(name: str) -> Metric:
    """Return the metric that a full name or a spec names.

    Raises:
        UserError: there is none, a value makes no sense, or its file is broken.
    """
    return cast("Metric", plugins.create("metric", spec.parse(name))[1])


def check_golden(metric: Metric, setting: Setting | None = None) -> None:
    """Make sure that a metric still gives the values of its own examples.

    Metrics that load something do so here, unless they gave these values before with the same
    versions and weights (`medbench.scorers.engine`).

    Raises:
        UnavailableError: something that it computes with is not on this machine.
        UserError: an example has another value, so nothing this metric says can be trusted.
    """
    examples = [*metric.golden, *(metric.golden_published if metric.published else ())]
    if not examples:
        return
    rows = [_example(metric, output, gold) for output, gold, _ in examples]
    if metric.external:
        # What is known of any weights may be known without them: this one they must answer.
        rows.append(_example(metric, *_PROBE))
    measured = metric.measure(rows, setting or Setting())
    if metric.full_name != metric.name:  # its examples are of the defaults; but it does answer
        return
    exact = len(metric.golden)
    for at, (output, gold, expected) in enumerate(examples):
        found = measured.items[at]
        tolerance = _TOLERANCE if at < exact else _TOLERANCE_OF_WEIGHTS
        if not math.isclose(found, expected, abs_tol=tolerance):
            raise UserError(
                f"metric {metric.full_name} fails its own example",
                f"For '{output}' and gold '{gold}' it gives {found:g}, not {expected:g}.",
                "The installation is damaged or the metric was changed; reinstall medbench."
                if at < exact
                else "Its weights are not the published ones, or a package computes otherwise; "
                "weights named by you are taken as they are.",
            )


def _example(metric: Metric, output: str, gold: str) -> Row:
    # Metrics that read more than texts make their rows themselves.
    make = getattr(metric, "example", None)
    if make is not None:
        return make(output, gold)
    return {
        "id": "example",
        "group": "example",
        "kind": metric.kinds[0],
        "output": output,
        "gold": gold,
    }


def measure(metric: Metric, rows: Sequence[Row], setting: Setting | None = None) -> Score:
    """Score rows with one metric.

    Raises:
        UnavailableError: something that the metric computes with is not on this machine.
        UserError: it failed, or a row cannot be read.
    """
    where = [at for at, row in enumerate(rows) if metric.applies(row)]
    chosen = [rows[at] for at in where]
    groups = [
        row.get("group", row.get("id", str(at))) for at, row in zip(where, chosen, strict=True)
    ]
    # Once, not once a row: some metrics load a model for it.
    found = metric.measure(chosen, setting or Setting()) if chosen else Measured([])
    if len(found.items) != len(chosen):
        raise ValueError(f"{metric.name} gave {len(found.items)} values for {len(chosen)} rows")
    per_item: list[float | None] = [None] * len(rows)
    for at, item in zip(where, found.items, strict=True):
        per_item[at] = float(item)
    value, interval = _value(metric, found, groups)
    low, high = interval or (None, None)
    return Score(
        name=metric.full_name,
        value=value,
        low=low,
        high=high,
        n=len(chosen),
        groups=len(set(groups)),
        notes={**metric.notes(rows), **found.notes},
        made_with=found.made_with,
        per_item=tuple(per_item),
    )


def _value(
    metric: Metric, found: Measured, groups: Sequence[str]
) -> tuple[float | None, tuple[float, float] | None]:
    """Return a score and its interval; both must be numbers where there are rows."""
    if not found.items:
        return None, None
    if found.pooled is None:
        value = sum(found.items) / len(found.items)
        interval = bootstrap_mean(found.items, groups)
    else:
        totals = found.pooled.totals
        value = float(found.pooled.value(totals.sum(axis=0)))
        interval = bootstrap(totals, found.pooled.value, groups)
    if not all(map(math.isfinite, (*found.items, value, *(interval or ())))):
        raise UserError(
            f"metric {metric.full_name} gave something that is no number",
            "One of its values is not finite.",
            "Please report it, with the versions that 'medbench doctor' prints.",
        )
    return float(value), interval
