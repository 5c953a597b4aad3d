"""Tables: runs as methods x tasks, what belongs together beside each other and nothing else.

`collect` reads the runs, `arrange` puts them into tables; `medbench.table_text` writes those down.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medbench import plugins, spec
from medbench.differences import differences
from medbench.errors import UserError
from medbench.spec import normalise

if TYPE_CHECKING:
    from medbench.store import RunRecord

# Without --metric a table shows the two rules that are always told together.
_HEADLINE = ("paper", "strict")
_HASH_LENGTH = 8
# What is no better for being high: no cell of it is the best.
_WITHOUT_BEST = ("yes_rate",)


@dataclass(frozen=True)
class Column:
    """One metric of one task; runs over different samples are in different columns.

    Attributes:
        task: spec of the task.
        version: of the task.
        identity: hash of the task's parameters and samples.
        limit: how many samples were asked for; None for all.
        missing_images: samples left out for want of an image.
        metric: full name.
        edition, about: which copy of the data, if not the official one, and what to know of it.
    """

    task: str
    version: int
    identity: str
    limit: int | None
    missing_images: int
    metric: str
    edition: str = ""
    about: str = ""


@dataclass(frozen=True)
class Row:
    """One method on one backbone; `note` tells rows of the same names apart."""

    backbone: str
    method: str
    note: str = ""


@dataclass(frozen=True)
class Cell:
    """A score as a fraction.

    Attributes:
        value: the mean over the seeds.
        low, high: 95 % interval over the images, of one run; averaged over the seeds.
        n: answers in the denominator; groups: images they are about.
        spread: standard deviation between the seeds; None for one seed.
        seeds: those that the value is the mean of; keys: of their runs.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    groups: int
    spread: float | None
    seeds: tuple[int, ...]
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Cells that may be compared: one preset, and either whole runs or partial ones."""

    preset: str
    partial: bool
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    cells: Mapping[tuple[Row, Column], Cell]

    def best(self, row: Row, column: Column) -> bool:
        """Say whether a cell is the highest of its backbone and column, and others are lower."""
        if column.metric in _WITHOUT_BEST:
            return False
        rivals = [
            cell.value
            for other in self.rows
            if other.backbone == row.backbone and (cell := self.cells.get((other, column)))
        ]
        cell = self.cells.get((row, column))
        return cell is not None and cell.value == max(rivals) > min(rivals)


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
    from medbench.store import find_runs

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


def _table(preset: str, partial: bool, records: list[RunRecord], metrics: Sequence[str]) -> Table:
    names = _task_names(records)
    runs: dict[tuple[Row, Column], list[RunRecord]] = defaultdict(list)
    for record in records:
        task = record.identity["task"]
        identity = _task_hash(task)
        for metric in _shown(record, metrics):
            column = Column(
                names[identity],
                task["version"],
                identity,
                record.limit,
                record.missing_images,
                metric,
                record.edition,
                record.note,
            )
            runs[Row(record.backbone, record.method), column].append(record)
    cells = {
        (Row(row.backbone, row.method, note), column): _cell(pooled, column.metric)
        for (row, column), same in runs.items()
        for note, pooled in _pooled(same)
    }
    order = {column: position for position, (_, column) in enumerate(runs)}
    return Table(
        preset,
        partial,
        tuple(sorted({row for row, _ in cells}, key=lambda r: (r.backbone, r.method, r.note))),
        tuple(sorted(order, key=lambda c: (c.task, c.version, c.identity, c.limit or 0, order[c]))),
        cells,
    )


def _task_hash(task: Mapping[str, Any]) -> str:
    """Hash what makes scores of a task comparable: all but the text of its file."""
    kept = {key: value for key, value in task.items() if key != "source"}
    text = json.dumps(kept, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_LENGTH]


def _task_names(records: Iterable[RunRecord]) -> dict[str, str]:
    """Return the shortest spec of each task, since defaults may be written or not."""
    names: dict[str, set[str]] = defaultdict(set)
    for record in records:
        names[_task_hash(record.identity["task"])].add(record.task)
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


def _cell(runs: list[RunRecord], metric: str) -> Cell:
    runs = sorted(runs, key=lambda run: run.seed)
    scores = [run.scores[metric] for run in runs]
    values = [score["value"] for score in scores]
    bounds: list[float | None] = []
    for end in ("low", "high"):
        given = [score[end] for score in scores if score[end] is not None]
        bounds.append(statistics.fmean(given) if len(given) == len(scores) else None)
    return Cell(
        value=statistics.fmean(values),
        low=bounds[0],
        high=bounds[1],
        n=scores[0]["n"],
        groups=scores[0]["groups"],
        spread=statistics.stdev(values) if len(values) > 1 else None,
        seeds=tuple(run.seed for run in runs),
        keys=tuple(run.key for run in runs),
    )


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
