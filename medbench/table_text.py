"""Tables written down: aligned text, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import groupby

from medbench.table import Cell, Column, Row, Table

MISSING = "–"
CSV_FIELDS = (
    "preset", "partial", "limit", "missing_images", "backbone", "method", "note", "task",
    "version", "edition", "identity", "metric", "value", "low", "high", "n", "groups", "spread",
    "seeds", "keys",
)  # fmt: skip


def as_text(tables: Sequence[Table], bold: Callable[[str], str] | None = None) -> str:
    """Return the tables aligned with blanks; the best of a column has a `*`, or is bold.

    Args:
        tables: what to write.
        bold: makes a text bold where that can be shown; it must not change the width.
    """
    return "\n\n".join(_text(table, bold) for table in tables)


def as_markdown(tables: Sequence[Table]) -> str:
    """Return the tables in Markdown."""
    return "\n\n".join(_markdown(table) for table in tables)


def as_csv(tables: Sequence[Table]) -> str:
    """Return one line a cell; scores are fractions, seeds and keys have blanks between them."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_FIELDS)
    for table in tables:
        for (row, column), cell in _filled(table):
            facts = {"preset": table.preset, "partial": table.partial, **asdict(row)}
            facts |= asdict(column) | asdict(cell)
            facts |= {"seeds": " ".join(map(str, cell.seeds)), "keys": " ".join(cell.keys)}
            writer.writerow([facts[name] for name in CSV_FIELDS])
    return out.getvalue()


def as_json(tables: Sequence[Table]) -> str:
    """Return the tables as JSON; scores are fractions, a missing cell is null."""
    return json.dumps(
        [
            {
                "preset": table.preset,
                "partial": table.partial,
                "caption": caption(table),
                "columns": [asdict(column) for column in table.columns],
                "rows": [
                    {**asdict(row), "cells": [_facts(table, row, c) for c in table.columns]}
                    for row in table.rows
                ],
            }
            for table in tables
        ],
        indent=1,
        ensure_ascii=False,
    )


def caption(table: Table) -> list[str]:
    """Return what a reader must know to read the numbers, in a few lines."""
    cells = list(table.cells.values())
    chosen = {
        "published": "each method picks tokens as its authors did",
        "matched": "all methods pick tokens by the same rule",
        "imported": "answers that other programs wrote, each picking tokens its own way",
    }
    preset = chosen.get(table.preset)
    lines = [f"Preset {table.preset}{f': {preset}' if preset else ''}."]
    if table.partial:
        lines.append(
            "Partial: these runs left samples out and are not to be compared with whole ones."
        )
    notes = {
        (column.task, column.edition, column.about) for column in table.columns if column.about
    }
    lines += [f"{task} ({edition}): {about}" for task, edition, about in sorted(notes)]
    line = "Percent; q: questions, img: images."
    if any(cell.low is not None for cell in cells):
        line += " [low, high]: 95 % interval over the images."
    lines.append(line)
    if any(cell.spread is not None for cell in cells):
        lines.append(
            "± : standard deviation between seeds, of which the value is the mean; the interval "
            "is that of one run, averaged over the seeds."
        )
    return lines


def _text(table: Table, bold: Callable[[str], str] | None) -> str:
    head = [["", *parts] for parts in zip(*_headers(table), strict=True)]
    lines: list[list[str]] = []
    marked: set[tuple[int, int]] = set()
    for backbone, rows in groupby(table.rows, key=lambda row: row.backbone):
        lines.append([backbone, *[""] * len(table.columns)])
        for row in rows:
            lines.append([f"  {_method(row)}", *(_body(table, row, c) for c in table.columns)])
            marked |= {
                (len(lines) - 1, position)
                for position, column in enumerate(table.columns, start=1)
                if table.best(row, column)
            }
    widths = [max(map(len, column)) for column in zip(*head, *lines, strict=True)]
    written = ["PARTIAL"] if table.partial else []
    written += [_aligned(line, widths) for line in head]
    for number, line in enumerate(lines):
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        for position in range(1, len(cells)):
            best = (number, position) in marked
            if bold is None:
                cells[position] = f"{'*' if best else ' '}{cells[position]}"
            else:
                cells[position] = f" {bold(cells[position]) if best else cells[position]}"
        written.append(" ".join(cells).rstrip())
    legend = [f"{'Bold' if bold else '*'}: best of a backbone."] if marked else []
    return "\n".join([*written, "", *caption(table), *legend])


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(c.ljust(width) for c, width in zip(line, widths, strict=True)).rstrip()


def _markdown(table: Table) -> str:
    heads = [" ".join(filter(None, parts)) for parts in _headers(table)]
    lines = ["**Partial runs**", ""] if table.partial else []
    lines.append(_markdown_line(["backbone", "method", *heads]))
    lines.append(_markdown_line(["---"] * (len(heads) + 2)))
    for row in table.rows:
        bodies = [(_body(table, row, column), table.best(row, column)) for column in table.columns]
        cells = [f"**{text}**" if best else text for text, best in bodies]
        lines.append(_markdown_line([row.backbone, _method(row), *cells]))
    marked = any(table.best(row, column) for row in table.rows for column in table.columns)
    below = [*caption(table), *(["Bold: best of a backbone."] if marked else [])]
    # Two blanks at the end of a line break it in Markdown.
    return "\n".join([*lines, "", "  \n".join(below)])


def _markdown_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _headers(table: Table) -> list[tuple[str, str, str]]:
    """Return each column's task, metric and denominator; no two columns have the same."""
    heads: list[tuple[str, str, str]] = []
    for column in table.columns:
        task = column.task
        if column.edition:
            task += f" ({column.edition})"
        if column.version != 1:
            task += f" v{column.version}"
        if _has_twin(table, column):
            task += f" #{column.identity}"
        if column.limit is not None:
            task += f", first {column.limit}"
        if column.missing_images:
            task += f", {column.missing_images} left out"
        heads.append((task, column.metric, _common_denominator(table, column)))
    return heads


def _has_twin(table: Table, column: Column) -> bool:
    """Say whether another task of the same spec and version has other samples or parameters."""
    return any(
        (other.task, other.version) == (column.task, column.version)
        and other.identity != column.identity
        for other in table.columns
    )


def _common_denominator(table: Table, column: Column) -> str:
    """Return the denominator that all of a column's cells have, empty where they differ."""
    texts = {_denominator(cell) for (_, c), cell in table.cells.items() if c == column}
    return texts.pop() if len(texts) == 1 else ""


def _denominator(cell: Cell) -> str:
    return f"{cell.n} q / {cell.groups} img"


def _body(table: Table, row: Row, column: Column) -> str:
    cell = table.cells.get((row, column))
    if cell is None:
        return MISSING
    text = f"{100 * cell.value:.2f}"
    if cell.low is not None and cell.high is not None:
        text += f" [{100 * cell.low:.2f}, {100 * cell.high:.2f}]"
    if cell.spread is not None:
        text += f" ± {100 * cell.spread:.2f} ({len(cell.seeds)} seeds)"
    if not _common_denominator(table, column):
        text += f" {_denominator(cell)}"
    return text


def _method(row: Row) -> str:
    return f"{row.method} ({row.note})" if row.note else row.method


def _filled(table: Table) -> Iterator[tuple[tuple[Row, Column], Cell]]:
    for row in table.rows:
        for column in table.columns:
            if (row, column) in table.cells:
                yield (row, column), table.cells[row, column]


def _facts(table: Table, row: Row, column: Column) -> dict[str, object] | None:
    cell = table.cells.get((row, column))
    return None if cell is None else asdict(cell)
