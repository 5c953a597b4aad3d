"""Published numbers, read from `results/paper`, for the cells of a layout."""

from __future__ import annotations

import csv
from pathlib import Path

from medbench import spec
from medbench.errors import UserError
from medbench.shipped import results
from medbench.tables.model import Column, Place, Published, Row, Table


def published(table: Table, name: str) -> dict[Place, Published]:
    """Return what was published of a table's cells.

    Args:
        table: of a layout, whose rows and columns are called as in the file.
        name: of a file in `results/paper`, without ending.

    Raises:
        UserError: there is no such file, or it tells of no cell of the table.
    """
    path = results("paper") / f"{name}.csv"
    if not path.is_file():
        names = ", ".join(sorted(one.stem for one in results("paper").glob("*.csv")))
        raise UserError(f"no published numbers called '{name}'", "", f"There are: {names}.")
    lines = _lines(path)
    found = {
        (row, column): _number(line)
        for row in table.rows
        for column in table.columns
        if (line := lines.get((row.group, row.label, " / ".join(column.heads))))
        and _is_of(line, row, column)
    }
    if not found:
        raise UserError(
            f"{name} has no number for any cell of the table",
            "Its numbers are of its own rows, columns, backbone and tasks.",
            "Leave --with out, or --task and --backbone.",
        )
    return found


def _lines(path: Path) -> dict[tuple[str, str, str], dict[str, str]]:
    """Return the lines that have a value, by group, row and column."""
    with path.open(encoding="utf-8", newline="") as file:
        return {
            (line["group"], line["row"], line["column"]): line
            for line in csv.DictReader(file)
            if line["value"]
        }


def _is_of(line: dict[str, str], row: Row, column: Column) -> bool:
    """Say whether a number is of a cell's model, data and metric, whatever these are called."""
    names = [(line["backbone"], row.backbone), (line["task"], column.task)]
    # Not every source says which backbone it is about.
    alike = all(spec.parse(told).name == spec.parse(own).name for told, own in names if told)
    return alike and line["metric"] == column.metric


def _number(line: dict[str, str]) -> Published:
    return Published(
        value=_fraction(line["value"], line["metric"]),
        text=line["value"],
        n=int(line["n"]) if line["n"] else None,
        source=line["source"],
        note=line["note"],
    )


def _fraction(printed: str, metric: str) -> float:
    # The paper prints attention as fractions, all else in percent.
    as_printed = metric.partition("/")[0] in ("coverage", "intensity")
    return float(printed) if as_printed else float(printed) / 100
