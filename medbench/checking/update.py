"""Writing a baseline from runs: what is new, and what was other before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medbench import store
from medbench.checking.baseline import Baseline, Entry, read, write
from medbench.checking.entry import apart, causes
from medbench.checking.runs import Found, match, named, no_score, of_cells
from medbench.errors import UserError


@dataclass(frozen=True)
class Replaced:
    """A score that was another; fractions, None where there was or is none."""

    metric: str
    before: float | None
    now: float | None


@dataclass(frozen=True)
class Change:
    """What an update does to a cell.

    Attributes:
        cell: its name; folder: of the run that was taken.
        scores: how many it has now.
        new: whether it was not there; then nothing else is told.
        replaced: scores that were others, or were not there, or are there no more.
        parts: what else is other, such as "batch_size: 16 -> 8" or "torch 2.8 -> 2.13".
    """

    cell: str
    folder: Path
    scores: int
    new: bool = False
    replaced: tuple[Replaced, ...] = ()
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Update:
    """What came out of an update.

    Attributes:
        tolerance: that stands in the file; cells: how many do.
        changes: one for each run.
        refused: what stands in the way; then nothing was written.
    """

    tolerance: float
    cells: int
    changes: tuple[Change, ...]
    refused: tuple[UserError, ...]

    @property
    def code(self) -> int:
        """The exit code: 2 if nothing was written."""
        return 2 if self.refused else 0


def update(
    against: Path, names: Sequence[str], root: Path, *, tolerance: float | None = None
) -> Update:
    """Write a baseline from runs; where they are named, the other cells stay as they are.

    Args:
        against: file of the baseline; a new one needs names.
        names: as in `medbench.checking.check.check`; none for all cells that the baseline has.
        root: folder of the runs.
        tolerance: to be kept from now on; None for the one that is there.

    Raises:
        UserError: the baseline cannot be read or written.
    """
    known = read(against) if against.exists() or not names else Baseline()
    refused: list[UserError] = []
    fresh: dict[str, Found] = {}
    for one in named(names, root) if names else of_cells(known, root, against):
        if isinstance(one, UserError):
            refused.append(one)
            continue
        then = match(one.entry, known)
        name = then.name if then else one.entry.name
        if name in fresh:
            refused.append(_twice(name, fresh[name], one))
            continue
        fresh[name] = one
        refused += _unscored(one, then)
    if refused:
        return Update(known.tolerance, len(known.entries), (), tuple(refused))
    entries = dict(known.entries)
    for name, one in fresh.items():
        # A spec that means the same may be written otherwise; what is there stays.
        run = entries[name].run if name in entries else one.entry.run
        entries[name] = replace(one.entry, name=name, run=run)
    baseline = Baseline(known.tolerance if tolerance is None else tolerance, entries)
    write(against, baseline)
    changes = (_change(name, known.entries.get(name), fresh[name]) for name in sorted(fresh))
    return Update(baseline.tolerance, len(entries), tuple(changes), ())


def _twice(name: str, one: Found, other: Found) -> UserError:
    parts = apart(one.entry.key, other.entry.key) or ["nothing that a baseline compares"]
    return UserError(
        f"{name}: two runs",
        f"{one.folder} and {other.folder} differ in {'; '.join(parts)}.",
        "Name the one to keep; runs on other devices or in other batches want files of their own.",
    )


def _unscored(now: Found, then: Entry | None) -> Iterator[UserError]:
    """Yield the scores that would be lost for what a machine lacks."""
    content = store.read_scores(now.folder) or {}
    for metric in content.get("unscored", {}):
        if then is not None and metric in then.scores:
            yield no_score(now, metric)


def _change(name: str, then: Entry | None, now: Found) -> Change:
    """Return what an update does to a cell."""
    scores = now.entry.scores
    if then is None:
        return Change(name, now.folder, len(scores), new=True)
    before = {metric: (one.value, one.n) for metric, one in then.scores.items()}
    after = {metric: (one.value, one.n) for metric, one in scores.items()}
    nothing = None, 0
    return Change(
        name,
        now.folder,
        len(scores),
        replaced=tuple(
            Replaced(metric, before.get(metric, nothing)[0], after.get(metric, nothing)[0])
            for metric in sorted(before.keys() | after.keys())
            if before.get(metric) != after.get(metric)
        ),
        parts=(*apart(then.key, now.entry.key), *causes(then, now.entry)),
    )
