"""Tables as texts: what stands in each cell, the same in every format that is read by people."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

from medbench.tables.model import Cell, Column, Cost, Place, Rank, Row, Table
from medbench.tables.notes import SIGNIFICANT, caption, comparison, label

MISSING = "–"
Part = Literal["scores", "contrasts", "cost"]


@dataclass(frozen=True)
class Text:
    """What stands in a cell, and whether it is the best or second of its column."""

    text: str
    rank: Rank = ""


@dataclass(frozen=True)
class Line:
    """A line of a sheet; lines of one group follow each other."""

    group: str
    label: str
    texts: tuple[Text, ...]


@dataclass(frozen=True)
class Sheet:
    """A table of texts.

    Attributes:
        title: "" for none.
        heads: of each column, from the top; all of one length.
        lines: its body.
        notes: lines below it.
        partial: whether its runs left samples out, which must not be overlooked.
    """

    title: str
    heads: tuple[tuple[str, ...], ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]
    partial: bool = False

    @property
    def heading(self) -> str:
        """What stands above it, "" for nothing."""
        return ". ".join(filter(None, ("Partial runs" if self.partial else "", self.title)))

    def legend(self, best: str, second: str) -> list[str]:
        """Return what marks the best and the second of a column, if any are marked.

        Args:
            best, second: how the format marks them.
        """
        ranks = {text.rank for line in self.lines for text in line.texts}
        told = f"{best}: best of a backbone{f', {second}: second' if 'second' in ranks else ''}."
        return [told] if "best" in ranks else []

    def spans(self) -> list[list[tuple[str, int]]]:
        """Return the lines of heads: names, and over how many columns each stands.

        Equal ones beside each other are one, below one head and above others. Empty lines are left
        out.
        """
        depth = max((len(head) for head in self.heads), default=0)
        levels = [at for at in range(depth) if any(head[at] for head in self.heads)]
        found: list[list[tuple[str, int]]] = []
        for level in levels:
            if level == levels[-1]:
                found.append([(head[level], 1) for head in self.heads])
                continue
            same = groupby(self.heads, key=lambda head: head[: level + 1])
            found.append([(above[level], len(list(heads))) for above, heads in same])
        return found


def sheets(table: Table) -> list[Sheet]:
    """Return a table's scores, and where they were asked for its comparisons and its costs."""
    found = [_scores(table)]
    if table.contrasts:
        found.append(_contrasts(table))
    if table.costs:
        found.append(_costs(table))
    # What made the runs is told once, at the end.
    found[-1] = replace(found[-1], notes=(*found[-1].notes, *table.notes))
    return found


def _scores(table: Table) -> Sheet:
    parts: list[tuple[str, Callable[[Row, Column], Text]]] = [
        ("ours", functools.partial(_score, table))
    ]
    if table.published:
        parts.append(("paper", functools.partial(_paper, table)))
    notes = caption(table)
    if table.contrasts:
        notes.append("↑ ↓: above or below its reference by more than chance; see below.")
    if table.published:
        sources = dict.fromkeys(one.source for one in table.published.values())
        notes.append(
            f"paper: {'; '.join(sources)}; in, out: whether it lies in our interval of one run."
        )
    return _sheet(table, table.title, parts, tuple(notes), partial=table.partial)


def _contrasts(table: Table) -> Sheet:
    references = dict.fromkeys(one.reference for one in table.contrasts.values())
    parts = [("", functools.partial(_gap, table))]
    kept = {row for row, _ in table.contrasts}
    rows = tuple(row for row in table.rows if row in kept)
    smaller = replace(table, rows=rows)
    several = len(references) > 1
    title = "Against the reference" if several else f"Against {label(next(iter(references)))}"
    told = _against(table) if several else None
    return _sheet(smaller, title, parts, tuple(comparison(table)), told=told)


def _against(table: Table) -> Callable[[Row], str]:
    def told(row: Row) -> str:
        reference = table.references[row]
        above = f"{reference.group} / " if reference.group != row.group else ""
        return f"{label(row)} − {above}{label(reference)}"

    return told


def _costs(table: Table) -> Sheet:
    """Return what answering cost: one column a task, since a run answers for all its metrics."""
    smaller = replace(table, columns=tuple(dict.fromkeys(map(_of_task, table.columns))))
    by_task: dict[Place, Cost] = {}
    for (row, column), one in table.costs.items():
        by_task.setdefault((row, _of_task(column)), one)

    def cost(row: Row, column: Column) -> Text:
        found = by_task.get((row, column))
        if found is None:
            return Text(MISSING)
        parts = (
            "–" if found.seconds is None else f"{found.seconds:.3f} s",
            "–" if found.forwards is None else f"{found.forwards:.2f}",
            "–" if found.peak_bytes is None else f"{found.peak_bytes / 2**20:.0f} MiB",
        )
        return Text(" / ".join(parts))

    note = (
        "Seconds a question; tokens that went through the language model for each new token, a "
        "prompt as one; the most memory held."
    )
    return _sheet(smaller, "Cost", [("", cost)], (note,), with_n=False)


def _of_task(column: Column) -> Column:
    return replace(column, metric="", heads=(column.task,), where=())


def _sheet(
    table: Table,
    title: str,
    parts: Sequence[tuple[str, Callable[[Row, Column], Text]]],
    notes: tuple[str, ...],
    *,
    partial: bool = False,
    told: Callable[[Row], str] | None = None,
    with_n: bool = True,
) -> Sheet:
    """Lay a table out, each of its columns once for each part."""
    heads = [
        (*head, name) if len(parts) > 1 else head
        for head in _heads(table, with_n=with_n)
        for name, _ in parts
    ]
    body = [
        [write(row, column) for column in table.columns for _, write in parts] for row in table.rows
    ]
    names = [(row.group or row.backbone, (told or label)(row)) for row in table.rows]
    if table.across == "methods":
        return _turned(title, names, heads, body, notes, partial=partial)
    lines = tuple(
        Line(group, name, tuple(texts)) for (group, name), texts in zip(names, body, strict=True)
    )
    return Sheet(title, tuple(heads), lines, notes, partial)


def _turned(
    title: str,
    names: Sequence[tuple[str, str]],
    heads: Sequence[tuple[str, ...]],
    body: Sequence[Sequence[Text]],
    notes: tuple[str, ...],
    *,
    partial: bool,
) -> Sheet:
    lines = tuple(
        Line(head[0], " ".join(filter(None, head[1:])), tuple(texts[at] for texts in body))
        for at, head in enumerate(heads)
    )
    return Sheet(title, tuple(names), lines, notes, partial)


def _heads(table: Table, *, with_n: bool) -> list[tuple[str, ...]]:
    """Return each column's heads and denominator; no two columns have the same."""
    found: list[tuple[str, ...]] = []
    for column in table.columns:
        heads = list(column.heads or (column.task, column.metric))
        if column.edition:
            heads[0] += f" ({column.edition})"
        if column.version > 1:
            heads[0] += f" v{column.version}"
        if _has_twin(table, column):
            heads[0] += f" #{column.identity}"
        if column.limit is not None:
            heads[0] += f", first {column.limit}"
        if column.missing_images:
            heads[0] += f", {column.missing_images} left out"
        if with_n:
            known = table.denominators.get(column)
            heads.append(_denominator(*known) if known else "")
        found.append(tuple(heads))
    depth = max((len(heads) for heads in found), default=0)
    return [(*heads[:-1], *[""] * (depth - len(heads)), heads[-1]) for heads in found]


def _has_twin(table: Table, column: Column) -> bool:
    """Say whether another task of the same spec and version has other samples or parameters."""
    return any(
        (other.task, other.version) == (column.task, column.version)
        and other.identity != column.identity
        for other in table.columns
        if column.identity and other.identity
    )


def _denominator(questions: int, images: int) -> str:
    return f"{questions} q / {images} img"


def _score(table: Table, row: Row, column: Column) -> Text:
    cell = table.cells.get((row, column))
    if cell is None:
        return Text(MISSING)
    text = table.written(cell.value)
    if cell.low is not None and cell.high is not None:
        text += f" [{table.written(cell.low)}, {table.written(cell.high)}]"
    if cell.spread is not None:
        text += f" ± {table.written(cell.spread)} ({len(cell.seeds)} seeds)"
    if column not in table.denominators:
        text += f" {_denominator(cell.n, cell.groups)}"
    return Text(text + _marks(table, (row, column), cell), table.ranks.get((row, column), ""))


def _marks(table: Table, place: Place, cell: Cell) -> str:
    contrast = table.contrasts.get(place)
    mark = ""
    if contrast is not None and contrast.p is not None and contrast.p <= SIGNIFICANT:
        mark = "↑" if contrast.paired.gap > 0 else "↓"
    return f" {mark}{'†' if cell.unwell else ''}".rstrip()


def _paper(table: Table, row: Row, column: Column) -> Text:
    found = table.published.get((row, column))
    if found is None:
        return Text(MISSING)
    mark = {None: "", True: " in", False: " out"}[found.inside(table.cells.get((row, column)))]
    return Text(found.text + mark, table.published_ranks.get((row, column), ""))


def _gap(table: Table, row: Row, column: Column) -> Text:
    contrast = table.contrasts.get((row, column))
    if contrast is None:
        return Text(MISSING)
    paired = contrast.paired
    text = _signed(table, paired.gap)
    if paired.low is not None and paired.high is not None:
        text += f" [{_signed(table, paired.low)}, {_signed(table, paired.high)}]"
    if contrast.questions is not None:
        text += f" {_questions(contrast.questions)} of {paired.n}"
    if contrast.p is not None:
        text += f" p {_probability(contrast.p)}"
    return Text(text)


def _questions(number: float) -> str:
    """Return a gap in questions: whole where it is, since recall and means over seeds are not."""
    whole = abs(number - round(number)) < 1e-6
    text = f"{abs(number):.0f}" if whole else f"{abs(number):.1f}"
    return f"{_sign(number if float(text) else 0.0)}{text}"


def _probability(p: float) -> str:
    return "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0") if p < 1 else "1"


def _signed(table: Table, fraction: float) -> str:
    text = table.written(abs(fraction))
    return f"{_sign(fraction if float(text) else 0.0)}{text}"


def _sign(number: float) -> str:
    return "" if number == 0 else "+" if number > 0 else "−"
