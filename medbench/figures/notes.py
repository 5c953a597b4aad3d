"""What stands below a figure: all that a reader must know to trust its points."""

from __future__ import annotations

from collections.abc import Sequence

from medbench.store import RunRecord
from medbench.tables.model import Table
from medbench.tables.notes import provenance


def note(table: Table) -> str:
    """Return what a figure's runs have in common, and where they differ."""
    lines = [setting(table.each_run()), _seeds(table), *_uneven(table), *_unwell(table)]
    return " ".join([*lines, *provenance(table.each_run())])


def setting(records: Sequence[RunRecord]) -> str:
    """Return what runs share: task, backbone and preset."""
    one = records[0]
    parts = [f"first {one.limit}" if one.limit else ""]
    parts.append(f"{one.missing_images} left out" if one.missing_images else "")
    partial = f" (PARTIAL: {', '.join(filter(None, parts))})" if one.state == "partial" else ""
    edition = f" ({one.edition} data)" if one.edition else ""
    return f"Task {one.task}{edition}{partial}; backbone {one.backbone}; preset {one.preset}."


def ranges(numbers: Sequence[int]) -> str:
    """Return sorted numbers as `0-4` or `0,2`."""
    if len(numbers) > 2 and list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]}-{numbers[-1]}"
    return ",".join(map(str, numbers))


def _seeds(table: Table) -> str:
    """Return the seeds that most rows have, and which rows have others."""
    of = {row: cell.seeds for (row, _), cell in table.cells.items()}
    every = list(of.values())
    common = max(every, key=every.count)
    others = [
        f"{ranges(seeds)}: {', '.join(row.label for row, its in of.items() if its == seeds)}"
        for seeds in dict.fromkeys(every)
        if seeds != common
    ]
    # A blank that does not break: the number stays beside its word.
    told = f"{'Seeds' if len(common) > 1 else 'Seed'}\N{NO-BREAK SPACE}{ranges(common)}"
    return f"{told} ({'; '.join(others)})." if others else f"{told}."


def _uneven(table: Table) -> list[str]:
    """Return the denominators of columns whose cells have several."""
    return [
        f"n of {column.metric}: "
        + ", ".join(
            f"{row.label}: {cell.n}" for (row, at), cell in table.cells.items() if at == column
        )
        + "."
        for column in table.columns
        if column not in table.denominators and any(at == column for _, at in table.cells)
    ]


def _unwell(table: Table) -> list[str]:
    """Return which rows' answers are not sound, as the tables mark by †."""
    told = dict.fromkeys(
        f"{row.label}, {words}" for (row, _), cell in table.cells.items() for words in cell.unwell
    )
    return [f"Answers that are not sound: {'; '.join(told)}."] if told else []
