"""Runs gathered for a figure: one task, one backbone, one preset, as a table of their scores.

What may stand in one picture is what may stand in one table, so `medbench.tables` decides it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from medbench import canonical, plugins, spec
from medbench.counting import counted
from medbench.errors import UserError
from medbench.figures.layout import Named
from medbench.run_index import find_runs
from medbench.store import RunRecord
from medbench.tables.fill import fill
from medbench.tables.layout import Layout, LayoutColumn, LayoutRow
from medbench.tables.model import Table


@dataclass(frozen=True)
class Asked:
    """Which runs are meant; "" for any task, backbone or preset."""

    task: str = ""
    backbone: str = ""
    preset: str = ""


def finished(root: Path, asked: Asked) -> list[RunRecord]:
    """Return the finished runs below a folder.

    Raises:
        UserError: there are no runs at all, or no such task or backbone.
    """
    if asked.task:
        plugins.get("task", spec.parse(asked.task).name)
    if asked.backbone:
        plugins.get("backbone", spec.parse(asked.backbone).name)
    records = find_runs(root)
    if not records:
        raise UserError(f"no runs in {root}", "", "Name the folder that holds them: --out DIR")
    return [one for one in records if one.state in ("complete", "partial")]


def narrowed(records: Iterable[RunRecord], asked: Asked) -> list[RunRecord]:
    """Return the runs that are meant.

    Raises:
        UserError: there are none.
    """
    every = list(records)
    kept = _meant(every, asked)
    if not kept:
        there = sorted({f"{one.task} with {one.backbone}, {one.preset}" for one in every})
        words = ", ".join(filter(None, (asked.task, asked.backbone, asked.preset)))
        raise UserError(
            f"no finished runs{f' of {words}' if words else ''}",
            f"There are runs of: {'; '.join(there)}." if there else "",
            "See: medbench list runs",
        )
    return kept


def alike(records: Iterable[RunRecord], asked: Asked) -> tuple[list[RunRecord], Asked]:
    """Return the runs of the task and backbone asked for, or of the only one; and these.

    Args:
        records: runs of the figure's methods; there may be none.

    Raises:
        UserError: there are several, and none was asked for.
    """
    kept = _meant(records, asked)
    task = asked.task or _only("task", kept)
    backbone = asked.backbone or _only("backbone", kept)
    return kept, replace(asked, task=task, backbone=backbone)


def of_method(method: str, records: Iterable[RunRecord]) -> list[RunRecord]:
    """Return a method's runs."""
    return [
        one
        for one in records
        if canonical.method(one.method, one.task) == canonical.method(method, one.task)
    ]


def metrics_of(
    records: Iterable[RunRecord], wanted: Sequence[str], *, each: bool
) -> tuple[str, ...]:
    """Return those metrics that some run has, as runs write them.

    Args:
        wanted: full names, in any case.
        each: whether all of them must be there, or one of them.

    Raises:
        UserError: they are not.
    """
    scores = (pair for one in records for pair in one.scores.items())
    known = list(dict.fromkeys(name for name, score in scores if score["value"] is not None))
    by_name = {spec.normalise(name): name for name in known}
    lost = [one for one in wanted if spec.normalise(one) not in by_name]
    if lost and (each or len(lost) == len(wanted)):
        raise UserError(
            f"these runs have no score named '{lost[0]}'",
            plugins.close(lost[0], known) or f"There are: {', '.join(known) or 'none'}.",
            "Name one that they have: --metric NAME",
        )
    return tuple(by_name[spec.normalise(one)] for one in wanted if one not in lost)


def table(
    points: Sequence[Named],
    metrics: Iterable[str],
    records: Sequence[RunRecord],
    asked: Asked,
    *,
    beside: Sequence[Named] = (),
) -> Table:
    """Return a table with a row for each point, then those beside, and a column for each metric.

    Partial runs count only where none of the points is whole.

    Args:
        metrics: full names, which some run has.
        records: runs of one task and backbone.
        asked: this task and backbone.

    Raises:
        UserError: some may not stand beside each other.
    """
    layout = Layout(
        name="",
        title="",
        source="",
        model="",
        published="",
        across="metrics",
        unit="percent",
        columns=tuple(LayoutColumn((), asked.task, metric) for metric in metrics),
        rows=tuple(
            LayoutRow(one.group, one.label, asked.backbone, one.method)
            for one in (*points, *beside)
        ),
        notes=(),
    )
    for state in ("complete", "partial"):
        tables = fill(layout, [one for one in records if one.state == state], preset=asked.preset)
        if len({one.preset for one in tables}) > 1:
            raise UserError(
                "runs of several presets may not stand in one figure",
                f"There are some of {' and '.join(one.preset for one in tables)}, "
                "which pick tokens by different rules.",
                f"Take one of them: --preset {tables[0].preset}",
            )
        if len(tables) > 1:
            limits = sorted({str(run.limit) for one in tables for run in one.each_run()})
            raise UserError(
                "runs over several parts of the samples may not stand in one figure",
                f"There are some with --limit {' and '.join(limits)}.",
                "Move those that are not meant to another folder, or name one with --out.",
            )
        shown = tables[0].rows[: len(points)]
        if any(row in shown for row, _ in tables[0].cells):
            return tables[0]
    names = " and ".join(column.metric for column in layout.columns)
    raise UserError(
        f"no method has {names} in all its runs",
        "A point is the mean over all seeds.",
        "Score them: medbench rescore RUNS --metric NAME",
    )


def nothing(
    what: str, methods: Iterable[str], asked: Asked, records: Iterable[RunRecord]
) -> UserError:
    """Return what to say where no run fits a figure.

    Args:
        what: the figure; methods: that it shows.
        records: all finished runs.
    """
    options = {"--task": asked.task or "TASK", "--backbone": asked.backbone}
    words = [word for pair in options.items() if pair[1] for word in pair]
    made = shlex.join(["medbench", "run", "--method", ",".join(methods), *words])
    on = f" on {asked.task}" if asked.task else ""
    others = sorted({one.task for one in records})
    return UserError(
        f"no finished runs for '{what}'{on}{f' with {asked.backbone}' if asked.backbone else ''}",
        f"There are finished runs on: {', '.join(others)}." if others else "",
        f"Make them: {made}",
    )


def left_out(found: Table, records: Iterable[RunRecord]) -> list[str]:
    """Return a line on the runs that are partial, where whole ones are shown."""
    partial = [one for one in records if one.state == "partial"]
    if found.partial or not partial:
        return []
    return [f"Left out: {counted(len(partial), 'run')} over part of the samples."]


def _meant(records: Iterable[RunRecord], asked: Asked) -> list[RunRecord]:
    task = asked.task and canonical.task(asked.task)
    backbone = asked.backbone and canonical.backbone(asked.backbone)
    return [
        one
        for one in records
        if task in ("", canonical.task(one.task))
        and backbone in ("", canonical.backbone(one.backbone))
        and asked.preset in ("", one.preset)
    ]


def _only(kind: Literal["task", "backbone"], records: Iterable[RunRecord]) -> str:
    """Return the task or backbone of all runs, by the shortest of its names; "" without runs.

    Raises:
        UserError: there are several.
    """
    meaning = {"task": canonical.task, "backbone": canonical.backbone}[kind]
    named: dict[str, list[str]] = {}
    for one in records:
        named.setdefault(meaning(getattr(one, kind)), []).append(getattr(one, kind))
    shortest = sorted(min(names, key=lambda name: (len(name), name)) for names in named.values())
    if len(shortest) > 1:
        raise UserError(
            f"runs of several {kind}s may not stand in one figure",
            f"There are some of {', '.join(shortest)}.",
            f"Take one of them: --{kind} {shortest[0]}",
        )
    return "".join(shortest)
