"""Writing a baseline from runs: what is new, and what was other before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medbench import store
from medbench.baseline import TOLERANCE, Baseline, Entry, read, write
from medbench.baseline_entry import apart, causes
from medbench.check import Moved, Verdict, is_neutral
from medbench.check_runs import Found, match, named, no_score, of_cells
from medbench.errors import UserError


@dataclass(frozen=True)
class Update:
    """What an update of a baseline did.

    Attributes:
        baseline: its new content.
        added: cells that are new.
        moved: scores that were others, or were not there, or are there no more.
        unchanged: how many scores of these runs were there as they are.
        parts: cell -> what else of it changed, such as "batch_size: 16 -> 8" or
            "torch 2.8 -> 2.13".
        refused: what stands in the way; then nothing was written.
    """

    baseline: Baseline
    added: tuple[str, ...] = ()
    moved: tuple[Moved, ...] = ()
    unchanged: int = 0
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    refused: tuple[UserError, ...] = ()


def update(
    against: Path, names: Sequence[str], root: Path, *, tolerance: float | None = None
) -> Update:
    """Write a baseline from runs; cells of which there is none stay as they are.

    Args:
        against: file of the baseline; a new one needs names.
        names: as in `check`; none for all cells that the baseline has.
        root: folder of the runs.
        tolerance: to be kept from now on; None for the one that is there.

    Raises:
        UserError: the baseline cannot be read or written.
    """
    known = read(against) if against.exists() or not names else Baseline(TOLERANCE)
    refused: list[UserError] = []
    fresh: dict[str, Found] = {}
    for one in named(names, root) if names else of_cells(known, root, against, anew=True):
        if isinstance(one, UserError):
            refused.append(one)
            continue
        then = match(one.entry, known)
        name = then.name if then else one.entry.name
        if name in fresh:
            refused.append(_twice(name, fresh[name], one))
            continue
        refused += _unscored(one, known.entries.get(name))
        fresh[name] = one
    if refused:
        return Update(known, refused=tuple(refused))
    entries = dict(known.entries)
    for name, one in fresh.items():
        # A spec that means the same may be written otherwise; what is there stays.
        run = entries[name].run if name in entries else one.entry.run
        entries[name] = replace(one.entry, name=name, run=run)
    baseline = Baseline(known.tolerance if tolerance is None else tolerance, entries)
    write(against, baseline)
    moved: list[Moved] = []
    parts: dict[str, tuple[str, ...]] = {}
    unchanged = 0
    for name in sorted(fresh.keys() & known.entries.keys()):
        then, now = known.entries[name], fresh[name]
        told = [*apart(then.key, now.entry.key), *causes(then, now.entry)]
        if told:
            parts[name] = tuple(told)
        for metric in sorted(then.scores.keys() | now.entry.scores.keys()):
            one = _replaced(then, now, metric)
            moved += [one] if one else []
            unchanged += one is None
    added = tuple(sorted(fresh.keys() - known.entries.keys()))
    return Update(baseline, added, tuple(moved), unchanged, parts)


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


def _replaced(then: Entry, now: Found, metric: str) -> Moved | None:
    """Return how a score moves by an update; None if it does not."""
    old = then.scores.get(metric)
    new = now.entry.scores.get(metric)
    if old and new and (old.value, old.n) == (new.value, new.n):
        return None
    before, after = old.value if old else None, new.value if new else None
    verdict: Verdict = "higher" if (after or 0) > (before or 0) else "lower"
    if old is None or new is None or is_neutral(metric) or before == after:
        verdict = "other"
    return Moved(then.name, metric, now.key, before, after, verdict)
