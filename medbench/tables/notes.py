"""What stands below a table: all that a reader must know to trust its numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import median
from typing import TYPE_CHECKING

from medbench import few_images
from medbench.differences import computed_by
from medbench.tables.cells import UNWELL
from medbench.tables.model import Column, Row, Table

if TYPE_CHECKING:
    from medbench.store import RunRecord

SIGNIFICANT = 0.05
_PRESETS = {
    "published": "each method picks tokens as its authors did",
    "matched": "all methods pick tokens by the same rule",
    "imported": "answers that other programs wrote, each picking tokens its own way",
}
_VERSIONS = ("medbench", "torch", "transformers", "peft")
_MOST_COMMANDS = 12


def caption(table: Table) -> list[str]:
    """Return how to read the numbers: preset, editions of data, intervals, seeds, health."""
    lines = [*_preset(table), *table.about]
    if not table.cells:
        return lines
    notes = {
        (f"{column.task} ({column.edition})" if column.edition else column.task, column.about)
        for column in table.columns
        if column.about
    }
    lines += [f"{data}: {about}" for data, about in sorted(notes)]
    cells = list(table.cells.values())
    line = f"{'Percent' if table.unit == 'percent' else 'Fractions'}; q: questions, img: images."
    if any(cell.low is not None for cell in cells):
        line += " [low, high]: 95 % interval over the images."
    lines.append(line)
    lines += few_images.warnings(cell.groups for cell in cells if cell.low is not None)
    if any(cell.spread is not None for cell in cells):
        lines.append(
            "± : standard deviation between seeds, of which the value is the mean; the interval "
            "is that of one run, averaged over the seeds."
        )
    return lines + _health(table)


def comparison(table: Table) -> list[str]:
    """Return how the comparisons with the references were made, and what they could show."""
    if not table.contrasts:
        return []
    tests = {one.paired.test for one in table.contrasts.values() if one.p is not None}
    words = {
        "mcnemar": "McNemar's exact test with whole images as units where answers are right or "
        "wrong",
        "bootstrap": "paired bootstrap over images elsewhere"
        if "mcnemar" in tests
        else "paired bootstrap over images",
    }
    count = sum(one.p is not None for one in table.contrasts.values())
    lines = [
        "Gap to the reference on the same questions, each question's mean over seeds; [low, high]: "
        "95 % interval over the images. p: "
        + ", ".join(words[test] for test in words if test in tests)
        + f", corrected by Holm for {count} {'comparison' if count == 1 else 'comparisons'}. "
        f"↑ ↓: p at most {SIGNIFICANT:g}."
    ]
    smallest = [text for column in table.columns if (text := _smallest(table, column))]
    if smallest:
        lines.append(
            "Smallest gap that about 3 of 4 such comparisons would find, before correction (median "
            f"over the rows): {'; '.join(smallest)}."
        )
    return lines


def provenance(runs: Iterable[RunRecord]) -> list[str]:
    """Return which versions and weights made the runs of a table."""
    records = list({run.folder: run for run in runs}.values())
    if not records:
        return []
    versions: dict[str, dict[str, None]] = defaultdict(dict)
    weights: dict[str, dict[str, None]] = defaultdict(dict)
    for run in records:
        for name in _VERSIONS:
            if name in run.versions:
                versions[name].setdefault(run.versions[name])
        backbone = run.identity.get("backbone")
        if isinstance(backbone, dict):
            facts = (str(backbone.get("weights", ""))[:8], backbone.get("dtype", ""))
            weights[run.backbone].setdefault(" ".join(filter(None, facts)))
    parts = [f"{name} {' and '.join(found)}" for name, found in versions.items()]
    parts += [f"{name} weights {' and '.join(found)}" for name, found in weights.items()]
    return [f"Made with {', '.join(parts)}."] if parts else []


def scorers(table: Table) -> list[str]:
    """Return which metrics were computed in several ways, by other versions or weights."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for (_, column), runs in table.runs.items():
        for run in runs:
            found[column.metric].setdefault(computed_by(run.scores[column.metric]))
    return [
        f"{metric} was computed in several ways, which alone may move it: {'; '.join(ways)}. "
        f"medbench rescore RUNS --metric {metric} makes them one."
        for metric, ways in found.items()
        if len(ways) > 1
    ]


def machines(runs: Iterable[RunRecord]) -> list[str]:
    """Return on what the runs were made, for a table that tells what they cost."""
    found: dict[str, None] = {}
    for run in runs:
        parts = [f"{name} {value}" for name, value in run.hardware.items() if value]
        found.setdefault(", ".join(parts))
    if len(found) > 1:
        return [
            f"Made on {len(found)} kinds of machine, so that times and memory do not compare: "
            + "; ".join(found)
            + "."
        ]
    return [f"Made on: {name}." for name in found if name]


def commands(made_by: Sequence[str]) -> list[str]:
    """Return the commands that made a table's runs, the first dozen of them."""
    shown = list(made_by[:_MOST_COMMANDS])
    if len(made_by) > len(shown):
        shown.append(f"... and {len(made_by) - len(shown)} more; --format json has all.")
    return [f"Made by: {shown[0]}", *(f"         {one}" for one in shown[1:])] if shown else []


def _preset(table: Table) -> list[str]:
    told = _PRESETS.get(table.preset)
    lines = [f"Preset {table.preset}{f': {told}' if told else ''}."] if table.preset else []
    if not table.cells:
        lines.append("No cell is filled; --missing prints the commands that would fill them.")
    if table.partial:
        lines.append(
            "Partial: these runs left samples out and are not to be compared with whole ones."
        )
    return lines


def _health(table: Table) -> list[str]:
    found: dict[tuple[str, str, str], dict[str, None]] = defaultdict(dict)
    for (row, column), cell in table.cells.items():
        for words in cell.unwell:
            found[row.label or row.method, column.task, words].setdefault(column.metric)
    if not found:
        return []
    told = "; ".join(f"{method} on {task}, {words}" for method, task, words in found)
    return [f"†: more than {100 * UNWELL:g} % of the answers are not sound: {told}."]


def _smallest(table: Table, column: Column) -> str:
    contrasts = [one for (_, at), one in table.contrasts.items() if at == column]
    gaps = [one.paired.smallest for one in contrasts if one.paired.smallest]
    if not gaps:
        return ""
    gap, n = median(gaps), contrasts[0].paired.n
    name = " ".join(column.heads) or f"{column.task} {column.metric}"
    points = f"{100 * gap:.1f} points" if table.unit == "percent" else f"{gap:.3f}"
    return f"{name} {points}" + (
        f" ({gap * n:.0f} of {n})" if contrasts[0].questions is not None else ""
    )


def label(row: Row) -> str:
    """Return what a row is called."""
    name = row.label or row.method
    return f"{name} ({row.note})" if row.note else name
