"""Metrics: functions from rows to a score, each with a full name and a written rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

from medbench.rows import Row

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Setting:
    """Where a metric that loads something computes, and whom it tells how far it is.

    Attributes:
        device: "cpu", "cuda" or "cuda:N", for metrics with a model of their own.
        python: the interpreter whose packages such a metric takes; "" for this one.
        progress: called with texts done, their number, and a short remark.
    """

    device: str = "cpu"
    python: str = ""
    progress: Callable[[int, int, str], None] = lambda done, total, remark: None


@dataclass(frozen=True)
class Pooled:
    """How a score follows from sums over items where it is not the mean of their values.

    Attributes:
        totals: float64 [items, k], what each item adds.
        value: sums over any items [..., k] -> their score [...].
    """

    totals: np.ndarray
    value: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Measured:
    """What a metric found.

    Attributes:
        items: one value a row.
        pooled: how the score follows from the items; None for their mean.
        notes: counts to print beside the score.
        made_with: versions and hashes of weights that the values depend on.
    """

    items: Sequence[float]
    pooled: Pooled | None = None
    notes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    made_with: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Metric:
    """Scores the rows of the kinds it applies to; the subclass's docstring is its rule.

    A metric is one frozen dataclass; as with methods, annotated attributes are parameters and the
    others are literals read from the source.

    Class attributes (read by `medbench list` and `show`):
        name: full name with its variant, such as "closed/paper".
        paper: where the rule comes from, and who used it.
        kinds: kinds of sample it applies to.
        needs: row fields it reads beyond the texts, e.g. ("attention", "roi").
        range: what values it can take.
        better: which of them: "higher", "lower" or "neither".
        extra: the extra of medbench that installs what it computes with; "" for none.
        downloads: what must be there beside the packages: (hub id or "nltk", files or data sets
            with blanks between them, size).
        golden: (output, gold, value) examples that must hold; tried before a model loads.
        golden_published: the same, of the published weights only.
        unkeyed: parameters that say where something lies, and not what it is.
    """

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    kinds: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[tuple[str, ...]] = ()
    range: ClassVar[str] = "0 to 1"
    better: ClassVar[str] = "higher"
    extra: ClassVar[str] = ""
    downloads: ClassVar[tuple[tuple[str, str, str], ...]] = ()
    golden: ClassVar[tuple[tuple[str, str, float], ...]] = ()
    golden_published: ClassVar[tuple[tuple[str, str, float], ...]] = ()
    unkeyed: ClassVar[tuple[str, ...]] = ()

    @property
    def full_name(self) -> str:
        """The name with those parameters that are not at their defaults, as a spec."""
        from medbench.spec import Spec

        changed = (
            (one.name, _written(getattr(self, one.name)))
            for one in fields(self)
            if getattr(self, one.name) != one.default and one.name not in self.unkeyed
        )
        return str(Spec(self.name, tuple(changed)))

    @property
    def external(self) -> bool:
        """Whether it computes with packages or weights beside medbench's own."""
        return bool(self.extra or self.downloads)

    @property
    def published(self) -> bool:
        """Whether it computes with the published weights, or with none."""
        return True

    def applies(self, row: Row) -> bool:
        """Say whether a row is in this metric's denominator."""
        return row["kind"] in self.kinds and all(field in row for field in self.needs)

    def measure(self, rows: Sequence[Row], setting: Setting) -> Measured:
        """Return the values of rows that apply, in order; at least one is given.

        An item is never dropped: a row that cannot be judged has a value by the written rule.

        Raises:
            UnavailableError: something that it computes with is not there.
            UserError: a row cannot be read.
        """
        return Measured(self.items(rows))

    def items(self, rows: Sequence[Row]) -> list[float]:
        """Return one value per row, in order; all that a metric of plain rules has to say."""
        raise NotImplementedError

    def notes(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Return counts worth printing beside the score, e.g. {"n_empty_region": 3}.

        Unlike the others this gets every row of the run, so that skipped ones can be counted.
        """
        return {}


def _written(value: object) -> str:
    """Write a parameter's value as a spec does."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else str(value)
