"""The runs found as methods x tasks: what belongs together beside each other, nothing else."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medbench import canonical, plugins, spec
from medbench.differences import differences
from medbench.errors import UserError
from medbench.spec import normalise
from medbench.tables.cells import pool
from medbench.tables.model import Column, Place, Row, Table

if TYPE_CHECKING:
    from medbench.store import RunRecord

# Without --metric a table shows the two rules that are always told together.
_HEADLINE = ("paper", "strict")
_HASH_LENGTH = 8


def collect(
    root: Path, *, tasks: Sequence[str] = (), backbones: Sequence[str] = ()
) -> list[RunRecord]:
    """Return the runs below a folder, those of the given tasks and backbones only.

    Args:
        root: folder of the runs.
        tasks, backbones: names, or whole specs; none for all.

    Raises:
        UserError: there are no runs, or none of a task or backbone given.
    """
    from medbench.run_index import find_runs

    records = find_runs(root)
    if not records:
        raise UserError(
            f"no runs in {root}",
            "",
            "medbench run --method greedy --task phantom --backbone phantom makes one.",
        )
    # What is broken has no task or backbone to go by, and stays to be counted.
    broken = [record for record in records if record.state == "broken"]
    sound = [record for record in records if record.state != "broken"]
    sound = _only("task", tasks, [(record.task, record) for record in sound])
    return _only("backbone", backbones, [(record.backbone, record) for record in sound]) + broken


def arrange(records: Iterable[RunRecord], metrics: Sequence[str] = ()) -> list[Table]:
    """Return the tables of the runs that have scores, whole runs before partial ones.

    Args:
        records: runs; those without scores are passed over.
        metrics: full names, or what stands before the `/`; none for the headline metrics.

    Raises:
        UserError: no run has one of the metrics given.
    """
    scored = [r for r in records if r.state in ("complete", "partial") and r.scores]
    known = sorted({name for record in scored for name in record.scores})
    for metric in metrics:
        if scored and not any(_is_metric(metric, name) for name in known):
            raise UserError(
                f"no run has a score named '{metric}'",
                plugins.close(metric, known),
                f"There are: {', '.join(known)}.",
            )
    tables: dict[tuple[bool, str], list[RunRecord]] = defaultdict(list)
    for record in scored:
        tables[record.state == "partial", record.preset].append(record)
    return [
        _table(preset, partial, tables[partial, preset], metrics)
        for partial, preset in sorted(tables)
    ]


def referring(tables: Sequence[Table], reference: str) -> list[Table]:
    """Return tables whose rows are compared with those of one method on the same backbone.

    Args:
        tables: without references.
        reference: spec of the method.

    Raises:
        UserError: no table has that method, or one has two rows of it on one backbone.
    """
    found = [replace(table, references=_references(table, reference)) for table in tables]
    if tables and not any(table.references for table in found):
        names = sorted({row.method for table in tables for row in table.rows})
        raise UserError(
            f"no runs of method '{reference}' to compare with",
            plugins.close(reference, names),
            f"There are runs of: {', '.join(names)}.",
        )
    return found


def _references(table: Table, reference: str) -> dict[Row, Row]:
    wanted = canonical.method(reference)
    by_backbone: dict[str, Row] = {}
    for row in table.rows:
        if canonical.method(row.method) != wanted:
            continue
        if row.backbone in by_backbone:
            raise UserError(
                f"there are several kinds of runs of '{reference}' with {row.backbone}",
                f"They differ in {by_backbone[row.backbone].note} and {row.note}.",
                "Narrow them by --task or --preset, or move those that are not meant.",
            )
        by_backbone[row.backbone] = row
    return {
        row: by_backbone[row.backbone]
        for row in table.rows
        if row.backbone in by_backbone and by_backbone[row.backbone] != row
    }


def _table(preset: str, partial: bool, records: list[RunRecord], metrics: Sequence[str]) -> Table:
    hashes = {one.folder: task_hash(one.identity["task"]) for one in records}
    names = _task_names(records, hashes)
    same: dict[tuple[Row, Column], list[RunRecord]] = defaultdict(list)
    for record in records:
        identity = hashes[record.folder]
        column = Column(
            names[identity],
            record.identity["task"]["version"],
            identity,
            record.limit,
            record.missing_images,
            "",
            record.edition,
            record.note,
        )
        same[Row(record.backbone, record.method), column].append(record)
    runs: dict[Place, list[RunRecord]] = {}
    for (row, column), several in same.items():
        for note, pooled in _pooled(several):
            noted = replace(row, note=note)
            shown = {record.folder: _shown(record, metrics) for record in pooled}
            for metric in dict.fromkeys(name for names in shown.values() for name in names):
                runs[noted, replace(column, metric=metric)] = [
                    record for record in pooled if metric in shown[record.folder]
                ]
    order = {column: position for position, (_, column) in enumerate(runs)}
    return Table(
        preset,
        partial,
        tuple(sorted({row for row, _ in runs}, key=lambda r: (r.backbone, r.method, r.note))),
        tuple(sorted(order, key=lambda c: (c.task, c.version, c.identity, c.limit or 0, order[c]))),
        {place: pool(pooled, place[1].metric) for place, pooled in runs.items()},
        runs,
    )


def task_hash(task: Mapping[str, Any]) -> str:
    """Hash what makes scores of a task comparable: all but the text of its file."""
    kept = {key: value for key, value in task.items() if key != "source"}
    text = json.dumps(kept, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_LENGTH]


def _task_names(records: Iterable[RunRecord], hashes: Mapping[Path, str]) -> dict[str, str]:
    """Return the shortest spec of each task, since defaults may be written or not."""
    names: dict[str, set[str]] = defaultdict(set)
    for record in records:
        names[hashes[record.folder]].add(record.task)
    return {key: min(written, key=lambda name: (len(name), name)) for key, written in names.items()}


def _pooled(runs: list[RunRecord]) -> list[tuple[str, list[RunRecord]]]:
    """Return (note, runs) groups that differ by seed only; the note says what else differs."""
    facts = differences([run.identity for run in runs])
    groups: dict[str, list[RunRecord]] = defaultdict(list)
    for at, run in enumerate(runs):
        note = ", ".join(f"{path}={values[at]}" for path, values in sorted(facts.items()))
        groups[note].append(run)
    return [pair for note, same in groups.items() for pair in _once_a_seed(note, same)]


def _once_a_seed(note: str, runs: list[RunRecord]) -> list[tuple[str, list[RunRecord]]]:
    """Take runs apart that even share the seed, such as those with adapters from elsewhere."""
    if len({run.seed for run in runs}) == len(runs):
        return [(note, runs)]
    return [(", ".join(filter(None, (note, run.key))), [run]) for run in runs]


def _shown(record: RunRecord, metrics: Sequence[str]) -> list[str]:
    """Return the names of a run's scores that a table shows, in the run's order."""
    scores = [name for name, score in record.scores.items() if score["value"] is not None]
    if metrics:
        return [name for name in scores if any(_is_metric(metric, name) for metric in metrics)]
    return [name for name in scores if name.partition("/")[2] in _HEADLINE] or scores


def _is_metric(asked: str, name: str) -> bool:
    return normalise(asked) in (normalise(name), normalise(name).partition("/")[0])


def _only(kind: str, asked: Sequence[str], records: list[tuple[str, RunRecord]]) -> list[RunRecord]:
    for text in asked:
        if not any(_is_of(text, given) for given, _ in records):
            names = sorted({spec.parse(given).name for given, _ in records})
            raise UserError(
                f"no runs of {kind} '{text}'",
                plugins.close(text, names),
                f"There are runs of: {', '.join(names)}." if names else "",
            )
    return [
        record for given, record in records if not asked or any(_is_of(t, given) for t in asked)
    ]


def _is_of(asked: str, given: str) -> bool:
    wanted, have = spec.parse(asked), spec.parse(given)
    return wanted.name == have.name and (not wanted.values or wanted == have)
