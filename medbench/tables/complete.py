"""A table with all that its reader asked to see beside the scores, and the notes below it."""

from __future__ import annotations

from dataclasses import replace

from medbench.tables.commands import made_by
from medbench.tables.model import Table
from medbench.tables.notes import commands, machines, provenance, scorers


def complete(table: Table, *, cost: bool = False, paper: str = "") -> Table:
    """Return a table with comparisons, costs, published numbers and notes.

    Rows that have a reference are compared with it; without any, no answers are read.

    Args:
        cost: whether what answering cost is shown.
        paper: name of published numbers, "" for none.

    Raises:
        UserError: a run's answers cannot be read, or two runs answered different samples.
    """
    if table.cells and (table.references or cost):
        # Only now: numpy, and files of megabytes.
        from medbench.tables.contrasts import answers_of, contrasts
        from medbench.tables.costs import costs

        answers = answers_of(table)
        table = replace(table, contrasts=contrasts(table, answers))
        if cost:
            table = replace(table, costs=costs(table, answers))
    if paper:
        from medbench.tables.published import published

        table = replace(table, published=published(table, paper))
    runs = table.each_run()
    below = [
        *scorers(table),
        *provenance(runs),
        *(machines(runs) if cost else []),
        *commands(made_by(runs)),
    ]
    return replace(table, notes=tuple(below))
