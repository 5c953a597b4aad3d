"""Scoring runs again, or by further metrics, from the answers in their folders; loads no model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from medbench import store
from medbench.errors import UnavailableError, UserError
from medbench.metric import Metric, Setting
from medbench.reporting import Report
from medbench.restricted import check_texts, withholding_words
from medbench.rows import Row
from medbench.scoring import Score, check_golden, load_metric, measure, to_json, with_scores


def rescore(
    folders: Sequence[Path],
    metric_names: Sequence[str] = (),
    *,
    setting: Setting | None = None,
    report: Report | None = None,
) -> tuple[list[dict[str, Any]], dict[str, UserError]]:
    """Score finished runs with metrics, and write the values beside those that are there.

    Args:
        folders: of finished runs.
        metric_names: specs; none for all that each run's task names.
        setting: where metrics that load something compute.
        report: where to tell how far it is.

    Returns:
        The new content of each scores.json, and why a metric could not be computed.

    Raises:
        UserError: a metric is unknown or fails its own example, a folder cannot be read, or a run
            was exported without its texts.
    """
    report = report or Report()
    setting = replace(setting or Setting(), progress=report.progress)
    runs = [store.read_run(folder) for folder in folders]
    for folder, run in zip(folders, runs, strict=True):
        check_texts(folder, withheld=run.get("withheld", False), what="rescore")
    asked = [tuple(metric_names or run["metrics"]) for run in runs]
    metrics = {name: load_metric(name) for names in asked for name in names}
    failures: dict[str, UserError] = {}
    for name, metric in metrics.items():
        report.stage("score", metric.full_name)
        try:
            check_golden(metric, setting)
        except UnavailableError as error:
            failures[name] = error
            continue
        if len(folders) > 1 and metric.external:
            # At once: what keeps its values then loads but once. What fails is told with its run.
            with suppress(Exception):
                measure(metric, _rows_of(folders), setting)
    contents: list[dict[str, Any]] = []
    failed: dict[str, UserError] = {}
    for folder, names in zip(folders, asked, strict=True):
        wanted = {name: metrics[name] for name in names}
        content, of_run = _rescore(folder, wanted, failures, setting, report)
        contents.append(content)
        failed |= of_run
    return contents, failures | failed


def _rescore(
    folder: Path,
    metrics: dict[str, Metric],
    failures: dict[str, UserError],
    setting: Setting,
    report: Report,
) -> tuple[dict[str, Any], dict[str, UserError]]:
    """Score one run; return the new content of its scores.json, and what failed.

    As at the end of a run, a metric that computes with packages and fails does not lose the others.
    """
    run = store.read_run(folder)
    with store.locked(folder, wait=False, what="run", private=run["data"]["restricted"]):
        rows, before = store.read_rows(folder), store.read_scores(folder)
        assert before is not None, "`find` has seen to it"
        fresh: dict[str, Score] = {}
        failed: dict[str, UserError] = {}
        unscored = {name: UserError(*lines) for name, lines in before.get("unscored", {}).items()}
        for name, metric in metrics.items():
            report.stage("score", f"{metric.full_name} {run['display']['method']}")
            if name in failures:
                unscored[metric.full_name] = failures[name]
                continue
            try:
                with _quiet(metric, run):
                    fresh[metric.full_name] = measure(metric, rows, setting)
                unscored.pop(metric.full_name, None)
            except UserError as error:
                if not metric.external:
                    raise
                unscored[metric.full_name] = failed[name] = error
        for name in before["scores"]:
            unscored.pop(name, None)
        scored = with_scores(rows, fresh)
        content = to_json(fresh, scored, unscored)
        content["scores"] = {**before["scores"], **content["scores"]}
        return store.finish(folder, scored, content), failed


def _rows_of(folders: Sequence[Path]) -> list[Row]:
    return [row for folder in folders for row in store.read_rows(folder)]


def _quiet(metric: Metric, run: dict[str, Any]) -> AbstractContextManager[None]:
    """Keep texts of a restricted task out of errors."""
    restricted = run["data"]["restricted"]
    return withholding_words(f"{metric.full_name} failed", restricted=restricted)
