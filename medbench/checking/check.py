"""Checking runs against a baseline: what is worse, what is better, what cannot be compared.

Nothing is printed here. A score is worse if it fell by more than the tolerance, or if its answers,
right or wrong each, are significantly worse: by McNemar's exact test over images, corrected by
Holm's rule for all the tests of the check.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np

from medbench.checking.baseline import DIGITS, Entry, read
from medbench.checking.entry import causes
from medbench.checking.runs import Found, keeping, match, named, no_score, of_cells, unlike
from medbench.direction import better
from medbench.errors import UserError
from medbench.items import Items
from medbench.paired import LEVEL, Images, flip_signs, holm

Verdict = Literal["worse", "lower", "better", "higher", "neither"]

# Scores are printed in hundredths of a point; attention maps differ by less between processors.
_UNCHANGED = 5e-5


@dataclass(frozen=True)
class Moved:
    """A score that is not the baseline's.

    Attributes:
        before, now: fractions.
        verdict: "worse" and "better" are beyond the tolerance or significant, "lower" and "higher"
            not; "neither" is a score that is no better for being high.
        lost, gained: answers that were right and are wrong, and the other way; None where the
            metric does not say right or wrong.
        p: of the paired test, corrected for the number of tests; None where there is none.
    """

    metric: str
    before: float
    now: float
    verdict: Verdict
    lost: int | None
    gained: int | None
    p: float | None

    @property
    def rise(self) -> float:
        """Now less before."""
        return round(self.now - self.before, DIGITS)


@dataclass(frozen=True)
class Compared:
    """A run beside its cell of the baseline.

    Attributes:
        cell: its name; folder: of the run.
        causes: what is recorded and differs: sources of plugins, versions of packages.
        moved: scores that are not the baseline's; unchanged: how many are.
        unkept: how many scores the baseline does not have.
    """

    cell: str
    folder: Path
    causes: tuple[str, ...]
    moved: tuple[Moved, ...]
    unchanged: int
    unkept: int

    def count(self, *verdicts: Verdict) -> int:
        """Return how many scores have one of these verdicts."""
        return sum(one.verdict in verdicts for one in self.moved)


@dataclass(frozen=True)
class Check:
    """What came out of a check.

    Attributes:
        tolerance: of the baseline, as a fraction.
        runs: those that were compared.
        refused: what cannot be compared, and why.
    """

    tolerance: float
    runs: tuple[Compared, ...]
    refused: tuple[UserError, ...]

    def count(self, *verdicts: Verdict) -> int:
        """Return how many scores of all runs have one of these verdicts."""
        return sum(run.count(*verdicts) for run in self.runs)

    @property
    def code(self) -> int:
        """The exit code: 1 if something is known to be worse, else 2 if anything is refused."""
        if self.count("worse"):
            return 1
        return 2 if self.refused else 0


@dataclass(frozen=True)
class _Pair:
    """One metric of one cell, then and now; as in `Moved`, but p is of this test alone."""

    metric: str
    before: float
    now: float
    lost: int | None = None
    gained: int | None = None
    p: float | None = None


def check(against: Path, names: Sequence[str], root: Path) -> Check:
    """Compare runs with a baseline.

    Args:
        against: file of the baseline.
        names: as `medbench.checking.runs.named` takes them; none for all cells of the baseline,
            each looked for below `root`.
        root: folder of the runs.

    Raises:
        UserError: the baseline cannot be read, or holds nothing.
    """
    baseline = read(against)
    if not baseline.entries:
        raise UserError(
            f"{against} holds no cells",
            "There is nothing to compare with.",
            f"Add some: medbench check RUN --against {against} --update",
        )
    refused: list[UserError] = []
    together: list[tuple[Entry, Found, list[_Pair]]] = []
    for one in named(names, root) if names else of_cells(baseline, root, against):
        if isinstance(one, UserError):
            refused.append(one)
            continue
        then = match(one.entry, baseline)
        if then is None or then.key != one.entry.key:
            refused.append(unlike(one, baseline, against, root))
            continue
        found = list(_pairs(then, one, against))
        refused += [each for each in found if isinstance(each, UserError)]
        together.append((then, one, [each for each in found if isinstance(each, _Pair)]))
    corrected = iter(_corrected([pair.p for *_, pairs in together for pair in pairs]))
    runs: list[Compared] = []
    for then, now, pairs in together:
        judged = [_judged(pair, next(corrected), baseline.tolerance) for pair in pairs]
        moved = tuple(one for one in judged if one is not None)
        runs.append(
            Compared(
                cell=then.name,
                folder=now.folder,
                causes=tuple(causes(then, now.entry)),
                moved=moved,
                unchanged=len(judged) - len(moved),
                unkept=len(now.entry.scores.keys() - then.scores.keys()),
            )
        )
    return Check(baseline.tolerance, tuple(runs), tuple(refused))


def _pairs(then: Entry, now: Found, against: Path) -> Iterator[_Pair | UserError]:
    """Yield each score of a cell, then and now, or why they cannot be compared."""
    for metric, before in then.scores.items():
        score = now.entry.scores.get(metric)
        if score is None:
            yield no_score(now, metric)
            continue
        mine, theirs = then.answers.get(metric), now.entry.answers.get(metric)
        if score.n != before.n or (mine and theirs and mine.of != theirs.of):
            counts = f"{before.n} -> {score.n}" if score.n != before.n else f"other {score.n}"
            yield UserError(
                f"{then.name}: {metric} is over other answers",
                f"Its rule applies to {counts} of them.",
                f"If that was meant: {keeping(now.folder, against)}",
            )
            continue
        if mine is None or theirs is None:
            yield _Pair(metric, before.value, score.value)
            continue
        flips = theirs.unpacked(score.n) - mine.unpacked(score.n)
        p = None if better(metric) == "neither" else _p(flips, now.items, metric)
        lost, gained = int((flips < 0).sum()), int((flips > 0).sum())
        yield _Pair(metric, before.value, score.value, lost, gained, p)


def _p(flips: np.ndarray, items: Items, metric: str) -> float | None:
    """Return p of McNemar's exact test over images; None with fewer than two of them."""
    groups = cast("list[int]", items.groups[~np.isnan(items.scores[metric])].tolist())
    if len(set(groups)) < 2:
        return None
    return flip_signs(np.rint(Images(groups).sums(flips)).astype(np.int64))


def _corrected(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p values corrected for all tests of the check; those of no test stay None."""
    tested = [p for p in p_values if p is not None]
    # The rule raises p values only, so where all are 1 nobody need wait for its import.
    corrected = iter(holm(tested) if any(p < 1 for p in tested) else tested)
    return [None if p is None else next(corrected) for p in p_values]


def _judged(pair: _Pair, p: float | None, tolerance: float) -> Moved | None:
    """Return how a score moved; None if it did not."""
    rise = round(pair.now - pair.before, DIGITS)
    told = abs(rise) > tolerance or (p is not None and p <= LEVEL)
    if not told and abs(rise) < _UNCHANGED:
        return None
    verdict: Verdict
    direction = better(pair.metric)
    if direction == "neither":
        verdict = "neither"
    elif told:
        verdict = "better" if (rise > 0) == (direction == "higher") else "worse"
    else:
        verdict = "higher" if rise > 0 else "lower"
    return Moved(pair.metric, pair.before, pair.now, verdict, pair.lost, pair.gained, p)
