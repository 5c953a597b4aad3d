"""What a table is made of: rows, columns, cells, and what is told beside a cell."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from medbench.direction import better

if TYPE_CHECKING:
    from medbench.paired import Paired
    from medbench.store import RunRecord

Rank = Literal["", "best", "second"]
Where = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Column:
    """One metric of one task; runs over different samples are in different columns.

    Attributes:
        task: spec of the task.
        version: of the task; 0 where no run fills the column.
        identity: hash of the task's parameters and samples; "" where no run fills the column.
        limit: how many samples were asked for; None for all.
        missing_images: samples left out for want of an image.
        metric: full name.
        edition, about: which copy of the data, if not the official one, and what to know of it.
        heads: what a layout writes above it, from the top; empty for task and metric.
        where: which samples only, by fields of their `meta`; empty for all.
    """

    task: str
    version: int
    identity: str
    limit: int | None
    missing_images: int
    metric: str
    edition: str = ""
    about: str = ""
    heads: tuple[str, ...] = ()
    where: Where = ()


@dataclass(frozen=True)
class Row:
    """One method on one backbone.

    Attributes:
        backbone, method: specs.
        note: tells rows of the same specs apart.
        group, label: what a layout writes above and before it; empty for backbone and method.
    """

    backbone: str
    method: str
    note: str = ""
    group: str = ""
    label: str = ""


@dataclass(frozen=True)
class Cell:
    """A score as a fraction.

    Attributes:
        value: the mean over the seeds.
        low, high: 95 % interval over the images, of one run; averaged over the seeds.
        n: answers in the denominator; groups: images they are about.
        spread: standard deviation between the seeds; None for one seed.
        seeds: those that the value is the mean of; keys: of their runs.
        unwell: what more than 2 % of the answers suffer from, e.g. "3.4 % cut".
    """

    value: float
    low: float | None
    high: float | None
    n: int
    groups: int
    spread: float | None
    seeds: tuple[int, ...]
    keys: tuple[str, ...]
    unwell: tuple[str, ...] = ()


@dataclass(frozen=True)
class Contrast:
    """A cell against that of its row's reference, over the same questions.

    Attributes:
        reference: the row it is compared with.
        paired: gap, interval and test.
        p: corrected for the number of the table's comparisons (Holm); None where there is no test.
        questions: the gap in questions, None where the metric does not judge questions.
    """

    reference: Row
    paired: Paired
    p: float | None
    questions: float | None


@dataclass(frozen=True)
class Published:
    """What a paper says of a cell.

    Attributes:
        value: as a fraction; text: as printed.
        n: the paper's denominator, None where it is not known.
        source: paper and table.
        note: what to know of it; "" for nothing.
    """

    value: float
    text: str
    n: int | None
    source: str
    note: str = ""

    def inside(self, cell: Cell | None) -> bool | None:
        """Say whether it lies in a cell's interval; None where there is no interval."""
        if cell is None or cell.low is None or cell.high is None:
            return None
        return cell.low <= self.value <= cell.high


@dataclass(frozen=True)
class Cost:
    """What answering cost, as a run's rows tell; None where they do not.

    Attributes:
        seconds: a question, mean.
        forwards: tokens that went through the language model for each new token.
        peak_bytes: the most memory held.
    """

    seconds: float | None
    forwards: float | None
    peak_bytes: float | None


Place = tuple[Row, Column]


@dataclass(frozen=True)
class Table:
    """Cells that may be compared: one preset, and either whole runs or partial ones.

    Attributes:
        preset: of all its runs; "" where there are none.
        partial: whether the runs left samples out.
        runs: those in each cell, one a seed.
        title: "" without a layout.
        across: what stands in columns when it is printed.
        unit: "percent", or "fraction" with three decimals.
        references: row -> the row that it is compared with.
        contrasts, published, costs: what is told beside cells, as far as it was asked for.
        about: what a layout says of its rows and columns.
        notes: lines below it.
    """

    preset: str
    partial: bool
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    cells: Mapping[Place, Cell]
    runs: Mapping[Place, Sequence[RunRecord]] = field(default_factory=dict[Place, Any])
    title: str = ""
    across: Literal["metrics", "methods"] = "metrics"
    unit: Literal["percent", "fraction"] = "percent"
    references: Mapping[Row, Row] = field(default_factory=dict[Row, Row])
    contrasts: Mapping[Place, Contrast] = field(default_factory=dict[Place, Contrast])
    published: Mapping[Place, Published] = field(default_factory=dict[Place, Published])
    costs: Mapping[Place, Cost] = field(default_factory=dict[Place, Cost])
    about: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def each_run(self) -> list[RunRecord]:
        """Return the runs in its cells, each once."""
        every = (run for same in self.runs.values() for run in same)
        return list({run.folder: run for run in every}.values())

    @cached_property
    def ranks(self) -> Mapping[Place, Rank]:
        """The best cell of each backbone and column, and the next; others are not in it."""
        return self._ranks({place: cell.value for place, cell in self.cells.items()})

    @cached_property
    def published_ranks(self) -> Mapping[Place, Rank]:
        """The same of the published values."""
        return self._ranks({place: one.value for place, one in self.published.items()})

    def written(self, fraction: float) -> str:
        """Return a score as it is printed."""
        return f"{100 * fraction:.2f}" if self.unit == "percent" else f"{fraction:.3f}"

    @cached_property
    def denominators(self) -> Mapping[Column, tuple[int, int]]:
        """Questions and images of each column whose cells all have the same."""
        found: dict[Column, set[tuple[int, int]]] = defaultdict(set)
        for (_, column), cell in self.cells.items():
            found[column].add((cell.n, cell.groups))
        return {column: next(iter(sizes)) for column, sizes in found.items() if len(sizes) == 1}

    def _ranks(self, values: Mapping[Place, float]) -> dict[Place, Rank]:
        rivals: dict[tuple[str, Column], dict[Place, float]] = defaultdict(dict)
        for (row, column), value in values.items():
            if better(column.metric) != "neither":
                # As printed: what looks equal is equal.
                rivals[row.backbone, column][row, column] = float(self.written(value))
        found: dict[Place, Rank] = {}
        for (_, column), group in rivals.items():
            ordered = sorted(set(group.values()), reverse=better(column.metric) == "higher")
            if len(ordered) > 1:
                names: dict[float, Rank] = {ordered[0]: "best", ordered[1]: "second"}
                found |= {place: names[value] for place, value in group.items() if value in names}
        return found
