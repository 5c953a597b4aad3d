"""Tables as data: CSV with one line a cell, and JSON; scores are fractions."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from medbench.tables.commands import made_by
from medbench.tables.model import Place, Row, Table
from medbench.tables.notes import caption, comparison

CSV_FIELDS = (
    "preset", "partial", "limit", "missing_images", "group", "label", "backbone", "method", "note",
    "task", "version", "edition", "identity", "metric", "where", "value", "low", "high", "n",
    "groups", "spread", "seeds", "keys", "unwell", "reference", "gap", "gap_low", "gap_high", "p",
    "questions", "smallest_gap", "published", "published_n", "seconds", "forwards", "peak_bytes",
)  # fmt: skip


def as_csv(tables: Sequence[Table]) -> str:
    """Return one line a cell; seeds and keys have blanks between them."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_FIELDS)
    for table in tables:
        for row, column in _filled(table):
            facts = _line(table, (row, column))
            writer.writerow([facts.get(name) for name in CSV_FIELDS])
    return out.getvalue()


def as_json(tables: Sequence[Table]) -> str:
    """Return the tables as JSON; a missing cell is null."""
    return json.dumps(
        [
            {
                "title": table.title,
                "preset": table.preset,
                "partial": table.partial,
                "caption": [*caption(table), *comparison(table), *table.notes],
                "commands": made_by(table.each_run()),
                "columns": [asdict(column) for column in table.columns],
                "rows": [
                    {**asdict(row), "cells": [_facts(table, (row, c)) for c in table.columns]}
                    for row in table.rows
                ],
            }
            for table in tables
        ],
        indent=1,
        ensure_ascii=False,
    )


def _filled(table: Table) -> Iterator[Place]:
    for row in table.rows:
        for column in table.columns:
            if (row, column) in table.cells or (row, column) in table.published:
                yield row, column


def _line(table: Table, place: Place) -> dict[str, Any]:
    row, column = place
    facts: dict[str, Any] = {"preset": table.preset, "partial": table.partial, **asdict(row)}
    facts |= asdict(column)
    facts["where"] = " ".join(f"{key}={'|'.join(values)}" for key, values in column.where)
    cell = table.cells.get(place)
    if cell is not None:
        facts |= asdict(cell) | {
            "seeds": " ".join(map(str, cell.seeds)),
            "keys": " ".join(cell.keys),
            "unwell": "; ".join(cell.unwell),
        }
    contrast = table.contrasts.get(place)
    if contrast is not None:
        paired = contrast.paired
        facts |= {
            "reference": _name(contrast.reference),
            "gap": paired.gap,
            "gap_low": paired.low,
            "gap_high": paired.high,
            "p": contrast.p,
            "questions": contrast.questions,
            "smallest_gap": paired.smallest,
        }
    published = table.published.get(place)
    if published is not None:
        facts |= {"published": published.value, "published_n": published.n}
    if place in table.costs:
        facts |= asdict(table.costs[place])
    return facts


def _facts(table: Table, place: Place) -> dict[str, Any] | None:
    cell = table.cells.get(place)
    if cell is None and place not in table.published:
        return None
    facts: dict[str, Any] = {} if cell is None else asdict(cell)
    contrast, published = table.contrasts.get(place), table.published.get(place)
    if contrast is not None:
        facts["contrast"] = {
            "reference": _name(contrast.reference),
            "p": contrast.p,
            "questions": contrast.questions,
            "smallest": contrast.paired.smallest,
            **{k: v for k, v in asdict(contrast.paired).items() if k != "p"},
            "p_uncorrected": contrast.paired.p,
        }
    if published is not None:
        facts["published"] = {**asdict(published), "inside": published.inside(cell)}
    if place in table.costs:
        facts["cost"] = asdict(table.costs[place])
    return facts


def _name(row: Row) -> str:
    return f"{row.group} / {row.label}" if row.group else row.method
