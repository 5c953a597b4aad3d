"""Published numbers, read from `results/paper`, for the cells of a layout."""

from __future__ import annotations

import csv
from pathlib import Path

from medbench.errors import UserError
from medbench.shipped import results
from medbench.tables.model import Place, Published, Table


def read_numbers(name: str) -> dict[tuple[str, str, str], Published]:
    """Return the cells of a published table: (group, row, column) -> what is printed there.

    Args:
        name: of a file in `results/paper`, without ending.
    """
    path = results("paper") / f"{name}.csv"
    if not path.is_file():
        names = ", ".join(sorted(one.stem for one in results("paper").glob("*.csv")))
        raise UserError(f"no published numbers called '{name}'", "", f"There are: {names}.")
    return dict(_lines(path))


def published(table: Table, name: str) -> dict[Place, Published]:
    """Return what was published of a table's cells.

    Args:
        table: of a layout, whose rows and columns are called as in the file.
        name: of the file.
    """
    numbers = read_numbers(name)
    return {
        (row, column): number
        for row in table.rows
        for column in table.columns
        if (number := numbers.get((row.group, row.label, " / ".join(column.heads))))
    }


def _lines(path: Path) -> list[tuple[tuple[str, str, str], Published]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [
            (
                (line["group"], line["row"], line["column"]),
                Published(
                    value=_fraction(line["value"], line["metric"]),
                    text=line["value"],
                    n=int(line["n"]) if line["n"] else None,
                    source=line["source"],
                    note=line["note"],
                ),
            )
            for line in csv.DictReader(file)
            if line["value"]
        ]


def _fraction(printed: str, metric: str) -> float:
    # The paper prints attention as fractions, all else in percent.
    as_printed = metric.partition("/")[0] in ("coverage", "intensity")
    return float(printed) if as_printed else float(printed) / 100
