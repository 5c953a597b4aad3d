"""A layout filled from runs: which run belongs where, and what must not stand in one table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from medbench import canonical, plugins
from medbench.differences import differences
from medbench.errors import UserError
from medbench.tables.arrange import task_hash
from medbench.tables.cells import cell_of, pool
from medbench.tables.layout import Layout, LayoutColumn, LayoutRow
from medbench.tables.model import Cell, Column, Place, Row, Table

if TYPE_CHECKING:
    from medbench.store import RunRecord


def fill(layout: Layout, records: Iterable[RunRecord], *, preset: str = "") -> list[Table]:
    """Return the tables of a layout.

    Runs of each preset, and partial ones of each limit, make tables of their own; whole runs come
    first. Without any run that fits there is one table of empty cells.

    Args:
        records: runs; those without scores are passed over.
        preset: only runs of this one; "" for all.

    Raises:
        UserError: runs of several kinds or over several data would stand in one cell or column.
    """
    kinds: dict[tuple[bool, str, int], list[RunRecord]] = defaultdict(list)
    for record in records:
        if record.scores and record.state in ("complete", "partial"):
            partial = record.state == "partial"
            limit = record.limit or 0 if partial else 0
            kinds[partial, record.preset, limit].append(record)
    found = [
        _table(layout, runs, kind[1], partial=kind[0])
        for kind, runs in sorted(kinds.items(), key=lambda item: item[0])
        if preset in ("", kind[1])
    ]
    return [table for table in found if table.cells] or [_table(layout, [], preset, partial=False)]


def _table(layout: Layout, records: Sequence[RunRecord], preset: str, *, partial: bool) -> Table:
    rows = {one: _row(one) for one in layout.rows}
    matched = _match(layout, records)
    columns = {
        one: _column(one, [run for row in layout.rows for run in matched[row, one]])
        for one in layout.columns
    }
    _check_backbones(matched)
    cells: dict[Place, Cell] = {}
    runs: dict[Place, list[RunRecord]] = {}
    for column, filled in columns.items():
        found = {row: matched[row, column] for row in layout.rows if matched[row, column]}
        for row, same in found.items():
            _check_one_kind(row, column, same)
        # What has answers but no such score is a missing cell, which `rescore` fills.
        scored = {row: same for row, same in found.items() if _have_score(same, column.metric)}
        for row, cell in _cells(scored, column).items():
            place = rows[row], filled
            cells[place], runs[place] = cell, scored[row]
    places = {(row.group, row.label): rows[row] for row in layout.rows}
    return Table(
        preset=preset,
        partial=partial,
        rows=tuple(rows.values()),
        columns=tuple(columns.values()),
        cells=cells,
        runs=runs,
        title=layout.title,
        about=layout.notes,
        across=layout.across,
        unit=layout.unit,
        references={rows[row]: places[row.reference] for row in layout.rows if row.reference},
    )


def _row(row: LayoutRow) -> Row:
    return Row(row.backbone, row.method, group=row.group, label=row.label)


def _match(
    layout: Layout, records: Sequence[RunRecord]
) -> dict[tuple[LayoutRow, LayoutColumn], list[RunRecord]]:
    found: dict[tuple[str, str, str], list[RunRecord]] = defaultdict(list)
    for one in records:
        backbone, task = canonical.backbone(one.backbone), canonical.task(one.task)
        found[backbone, task, canonical.method(one.method, one.task)].append(one)
    return {
        (row, column): found[
            canonical.backbone(row.backbone),
            canonical.task(column.task),
            canonical.method(row.method, column.task),
        ]
        for row in layout.rows
        for column in layout.columns
    }


def _column(column: LayoutColumn, runs: Sequence[RunRecord]) -> Column:
    """Return the column that its runs agree on.

    Raises:
        UserError: they are over different samples.
    """
    empty = Column(
        column.task, 0, "", None, 0, column.metric, heads=column.heads, where=column.where
    )
    if not runs:
        return empty
    _check_alike(
        f"the runs of {column.task} are not over the same samples",
        runs,
        [
            {
                **{key: value for key, value in run.identity["task"].items() if key != "source"},
                "limit": run.limit,
                "left out": run.missing_images,
            }
            for run in runs
        ],
    )
    first = runs[0]
    return replace(
        empty,
        version=first.identity["task"]["version"],
        identity=task_hash(first.identity["task"]),
        limit=first.limit,
        missing_images=first.missing_images,
        edition=first.edition,
        about=first.note,
    )


def _check_backbones(matched: Mapping[tuple[LayoutRow, LayoutColumn], Sequence[RunRecord]]) -> None:
    """Make sure that all rows of a backbone are of the same weights and the same engine."""
    by_backbone: dict[str, list[RunRecord]] = defaultdict(list)
    for (row, _), runs in matched.items():
        by_backbone[row.backbone] += runs
    for backbone, runs in by_backbone.items():
        # Of imported answers a backbone is known by name only.
        known = [run for run in runs if isinstance(run.identity.get("backbone"), dict)]
        parts = [
            {"engine": run.identity["engine"], "weights": run.identity["backbone"].get("weights")}
            for run in known
        ]
        _check_alike(f"the runs with {backbone} cannot be compared", known, parts)


def _check_alike(
    what: str, runs: Sequence[RunRecord], parts: Sequence[Mapping[str, object]]
) -> None:
    """Make sure that runs agree in something.

    Raises:
        UserError: two do not; they are named.
    """
    facts = differences(parts)
    if not facts:
        return
    path, values = next(iter(facts.items()))
    other = next(at for at, value in enumerate(values) if value != values[0])
    one, another = (plugins.shown(runs[at].folder) for at in (0, other))
    raise UserError(
        what,
        f"{path} is {values[0]} in {one} and {values[other]} in {another}.",
        "Move the runs that are not meant to another folder, or name a folder with --out.",
    )


def _check_one_kind(row: LayoutRow, column: LayoutColumn, runs: Sequence[RunRecord]) -> None:
    facts = differences([run.identity for run in runs])
    where = f"'{row.group} / {row.label}' on {column.task}"
    if facts:
        shown = "; ".join(
            f"{path}: {' or '.join(dict.fromkeys(values))}" for path, values in facts.items()
        )
        folders = ", ".join(plugins.shown(run.folder) for run in runs)
        raise UserError(
            f"there are runs of several kinds for {where}",
            f"They differ in {shown}. They are {folders}.",
            "Move those that are not meant to another folder; their mean would be of neither.",
        )
    seeds = [run.seed for run in runs]
    double = next((seed for seed in seeds if seeds.count(seed) > 1), None)
    if double is not None:
        one, other = [run.folder for run in runs if run.seed == double][:2]
        raise UserError(
            f"there are two runs of seed {double} for {where}",
            f"They are {plugins.shown(one)} and {plugins.shown(other)}.",
            "Move the one that is not meant to another folder.",
        )


def _have_score(runs: Sequence[RunRecord], metric: str) -> bool:
    return all(run.scores.get(metric, {}).get("value") is not None for run in runs)


def _cells(
    scored: Mapping[LayoutRow, Sequence[RunRecord]], column: LayoutColumn
) -> dict[LayoutRow, Cell]:
    """Return a column's cells, of all samples or of those that it asks for."""
    if not column.where:
        return {row: pool(same, column.metric) for row, same in scored.items()}
    if not scored:
        return {}
    # Only now: numpy, and files of megabytes.
    from medbench.items import read_items
    from medbench.tables.subset import members, score_subset

    # All are over the same samples: one of them tells which are meant.
    meant = members(next(iter(scored.values()))[0], column.where)
    cells: dict[LayoutRow, Cell] = {}
    for row, same in scored.items():
        answers = [(run, read_items(run.folder, restricted=run.restricted)) for run in same]
        scores = [score_subset(run, items, column.metric, meant) for run, items in answers]
        cells[row] = cell_of(same, scores, column.metric)
    return cells
