"""The end of every run: its rows are scored by its task's metrics, and the folder is complete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medbench import store
from medbench.errors import UnavailableError, UserError
from medbench.metric import Metric, Setting
from medbench.reporting import Report
from medbench.restricted import withholding
from medbench.rows import Row
from medbench.scoring import Score, check_golden, load_metric, measure, to_json, with_scores
from medbench.task import Sample, Task


def ready_metrics(task: Task, device: str) -> tuple[tuple[Metric, ...], dict[str, UserError]]:
    """Let the task's metrics answer their golden examples; tell those that can do so from others.

    Returns:
        The metrics that can be computed, and by name what the others lack on this machine.

    Raises:
        UserError: a metric gives other values than it should.
    """
    ready: list[Metric] = []
    unavailable: dict[str, UserError] = {}
    for metric in map(load_metric, task.metrics):
        try:
            check_golden(metric, Setting(device))
            ready.append(metric)
        except UnavailableError as error:
            unavailable[metric.full_name] = error
    return tuple(ready), unavailable


def finish(
    folder: Path,
    rows: Sequence[Row],
    task: Task,
    samples: Sequence[Sample],
    *,
    metrics: Sequence[Metric],
    unavailable: Mapping[str, UserError],
    device: str,
    report: Report,
) -> dict[str, Any]:
    """Score the rows of a run and write them and their scores, which makes it complete.

    A metric that computes with packages and fails does not lose the others.

    Args:
        folder: of the run, held by this process.
        samples: that the rows answer; a restricted task's errors tell nothing of them.
        metrics: to score by; unavailable: why the others cannot.

    Returns:
        The content of scores.json.

    Raises:
        UserError: a row cannot be scored.
    """
    setting = Setting(device, progress=report.progress)
    scores: dict[str, Score] = {}
    unscored = dict(unavailable)
    for metric in metrics:
        report.stage("score", metric.full_name)
        try:
            with withholding(task, samples):
                scores[metric.full_name] = measure(metric, rows, setting)
        except UserError as error:
            if not metric.external:
                raise
            unscored[metric.full_name] = error
    scored = with_scores(rows, scores)
    return store.finish(folder, scored, to_json(scores, scored, unscored))
