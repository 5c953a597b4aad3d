"""Scores along a method's parameter, or as points: which runs stand in the figure, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from medbench.figures import gather
from medbench.figures.along import Along, along
from medbench.figures.gather import Asked
from medbench.figures.layout import Layout, Named
from medbench.figures.notes import note
from medbench.store import RunRecord
from medbench.tables.commands import to_fill
from medbench.tables.model import Column, Row, Table

# Between groups of points, in widths of a place.
_GAP = 0.6


@dataclass(frozen=True)
class Ablation:
    """What stands in the figure.

    Attributes:
        x_label: "" where methods stand side by side.
        table: the scores, a row for each place and a column for each panel.
        places: the rows that have runs, and where on the x axis each stands.
        reference: the row that is a line, None for none.
        marked: where on the x axis the value is that the method has by default, and the words for
            it; None where there is none.
        note: below it.
        told: lines for the user on what is not in it.
    """

    title: str
    x_label: str
    table: Table
    places: tuple[tuple[Row, float], ...]
    reference: Row | None
    marked: tuple[float, str] | None
    note: str
    told: tuple[str, ...]

    def points(self, column: Column) -> list[tuple[float, Row]]:
        """Return the places that have a score of a column, from left to right."""
        return [(at, row) for row, at in self.places if (row, column) in self.table.cells]


def arrange(
    layout: Layout,
    records: Sequence[RunRecord],
    asked: Asked,
    metrics: Sequence[str] = (),
) -> Ablation:
    """Return what stands in a figure.

    Args:
        records: finished runs.
        asked: which of them; the figure's own task where none is said.
        metrics: in place of the figure's.

    Raises:
        UserError: there are no runs for it, or some that may not stand beside each other.
    """
    asked = replace(asked, task=asked.task or layout.task)
    varied = along(layout.method, layout.parameter) if layout.parameter else None
    kept, asked = gather.alike(_fitting(layout, varied, records), asked)
    points = _along(varied, layout, kept) if varied else list(layout.points)
    if not kept:
        methods = [one.method for one in points] or [layout.method]
        raise gather.nothing(layout.title, methods, asked, records)
    # In a group of its own, so that it is another row than a point of the same name.
    line = [Named(layout.reference, layout.reference, "line")] if layout.reference else []
    found = [*kept, *(run for one in line for run in gather.of_method(one.method, records))]
    named = gather.metrics_of(kept, metrics or layout.metrics, each=bool(metrics))
    table = gather.table(points, named, found, asked, beside=line)
    filled = {row for row, _ in table.cells}
    places = _places([row for row in table.rows[: len(points)] if row in filled])
    default = varied.default(asked.task) if varied else ""
    marked = next((at for row, at in places if varied and row.label == default), None)
    source = f"After {layout.source}. " if layout.source else ""
    return Ablation(
        title=layout.title,
        x_label=f"{layout.parameter} of {layout.method}" if varied else "",
        table=table,
        places=tuple(places),
        reference=table.rows[-1] if line else None,
        marked=None if marked is None else (marked, f"default on {asked.task}"),
        note=source + note(table),
        told=(*gather.left_out(table, kept), *_missing(layout, table, records)),
    )


def _fitting(layout: Layout, varied: Along | None, records: Sequence[RunRecord]) -> list[RunRecord]:
    """Return the runs of the figure's methods, on any task."""
    if varied:
        return [one for one in records if varied.value(one) is not None]
    return [one for one in layout.points for one in gather.of_method(one.method, records)]


def _along(varied: Along, layout: Layout, records: Sequence[RunRecord]) -> list[Named]:
    """Return the values that runs or the layout have, in order."""
    found = [value for one in records if (value := varied.value(one)) is not None]
    values = varied.in_order([*found, *layout.values])
    return [Named(value, varied.method_with(value)) for value in values]


def _places(rows: Sequence[Row]) -> list[tuple[Row, float]]:
    """Return rows side by side, with a gap where a group begins."""
    begins = [0.0, *(_GAP * (one.group != other.group) for one, other in pairwise(rows))]
    return [(row, at + sum(begins[: at + 1])) for at, row in enumerate(rows)]


def _missing(layout: Layout, table: Table, records: Sequence[RunRecord]) -> list[str]:
    """Return which rows have no runs, and the commands for these and for seeds that some lack."""
    filled = {row for row, _ in table.cells}
    lost = ", ".join(row.label for row in table.rows if row not in filled)
    name = f"{layout.parameter} = " if layout.parameter else ""
    told = [f"Left out for want of runs: {name}{lost}."] if lost else []
    return [*told, *(f"More runs: {command}" for command in to_fill(table, records))]
