"""Whether a metric of a task exists, calls the gold answers perfect, and bears empty outputs."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from medbench.contract.breach import breach, telling
from medbench.errors import UnavailableError
from medbench.metric import Metric
from medbench.rows import Row, row_of
from medbench.scoring import load_metric, measure
from medbench.task import Sample

_NEARLY, _EXACTLY = 0.99, 1 - 1e-9


def check_metric(name: str, samples: Sequence[Sample], kinds: Collection[str]) -> None:
    """Fail where a metric cannot score a task's samples.

    Metrics that read more than texts, or need what this machine lacks, are only looked up.

    Args:
        name: of the metric; samples: whose gold answers are scored.
        kinds: those of all test samples.
    """
    with telling(f"'metrics' names '{name}', which cannot be made"):
        metric = load_metric(name)
    if not set(metric.kinds) & set(kinds):
        breach(
            f"{name} applies to no test sample",
            f"It is for {', '.join(metric.kinds)}; the samples are {', '.join(sorted(kinds))}.",
            "Leave it out of 'metrics', or see to the samples' kind.",
        )
    if not set(metric.needs) <= {"meta"}:
        return
    # What a data set has no answer to, no output answers.
    answered = [sample for sample in samples if sample.answer.strip()]
    gold = _value(metric, [row_of(sample, sample.answer) for sample in answered])
    if gold is None:
        return
    if metric.better == "higher" and metric.range == "0 to 1" and gold < _least(metric):
        breach(
            f"{name} gives the gold answers {gold:.3f} instead of 1",
            "What is right word for word must be right.",
            "See to spaces, case and units in Sample.answer, or to its kind.",
        )
    _value(metric, [row_of(sample, "") for sample in samples])


def _value(metric: Metric, rows: Sequence[Row]) -> float | None:
    """Return a metric's value of rows; None where it applies to none, or cannot be computed."""
    with telling(f"{metric.name} cannot score them"):
        try:
            return measure(metric, rows).value
        except UnavailableError:
            return None


def _least(metric: Metric) -> float:
    """Return what gold answers must reach; METEOR keeps a trace of its penalty from them."""
    return _NEARLY if metric.external else _EXACTLY
