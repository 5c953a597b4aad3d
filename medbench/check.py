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

from medbench.baseline import DIGITS, Entry, read
from medbench.baseline_entry import causes
from medbench.check_runs import Found, keeping, match, named, no_score, of_cells, unlike
from medbench.errors import UserError
from medbench.items import Items
from medbench.paired import LEVEL, Images, flip_signs, holm
from medbench.spec import normalise

Verdict = Literal["worse", "lower", "better", "higher", "other"]

# What is no better for being high, nor worse for being low.
_NEITHER = ("yes_rate",)
# Scores are printed in hundredths of a point; attention maps differ by less between processors.
_UNCHANGED = 5e-5


@dataclass(frozen=True)
class Moved:
    """A score that is not the baseline's.

    Attributes:
        cell, metric: whose.
        key: of the run.
        before, now: fractions; None where there was none, or is none.
        verdict: "worse" and "better" are beyond the tolerance or significant, "lower" and "higher"
            neither; "other" is a score that is no better for being high.
        lost, gained: answers that were right and are wrong, and the other way; None where the
            metric does not say right or wrong.
        p: of the paired test, corrected for their number; None where there is none.
        causes: what is recorded and differs: sources of plugins, versions of packages.
    """

    cell: str
    metric: str
    key: str
    before: float | None
    now: float | None
    verdict: Verdict
    lost: int | None = None
    gained: int | None = None
    p: float | None = None
    causes: tuple[str, ...] = ()

    @property
    def change(self) -> float:
        """Now less before, 0 where one of them is none."""
        if self.before is None or self.now is None:
            return 0.0
        return round(self.now - self.before, DIGITS)


@dataclass(frozen=True)
class Check:
    """What came out of a check.

    Attributes:
        tolerance: of the baseline, as a fraction.
        runs: name of the cell and folder of each run compared.
        moved: scores that are not the baseline's, in its order.
        unchanged: how many scores are.
        unkept: how many scores of these runs the baseline does not have.
        refused: what cannot be compared, and why.
    """

    tolerance: float
    runs: tuple[tuple[str, Path], ...]
    moved: tuple[Moved, ...]
    unchanged: int
    unkept: int
    refused: tuple[UserError, ...]

    @property
    def code(self) -> int:
        """The exit code: 1 if something is known to be worse, else 2 if anything is refused."""
        if any(one.verdict == "worse" for one in self.moved):
            return 1
        return 2 if self.refused else 0


@dataclass(frozen=True)
class _Pair:
    """One metric of one cell, then and now; `p` of the test alone, None where there is none."""

    then: Entry
    now: Found
    metric: str
    lost: int | None
    gained: int | None
    p: float | None


def check(against: Path, names: Sequence[str], root: Path) -> Check:
    """Compare runs with a baseline.

    Args:
        against: file of the baseline.
        names: folders or keys of runs, as `medbench.choose.find` takes them; none for all cells of
            the baseline, each looked for below `root`.
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
    together: list[tuple[Entry, Found]] = []
    for one in named(names, root) if names else of_cells(baseline, root, against):
        if isinstance(one, UserError):
            refused.append(one)
            continue
        then = match(one.entry, baseline)
        if then is None or then.key != one.entry.key:
            refused.append(unlike(one, baseline, against, root))
            continue
        together.append((then, one))
    pairs: list[_Pair] = []
    for then, now in together:
        for found in _pairs(then, now, against):
            if isinstance(found, UserError):
                refused.append(found)
            else:
                pairs.append(found)
    corrected = _corrected([one.p for one in pairs])
    judged = [_judged(*two, baseline.tolerance) for two in zip(pairs, corrected, strict=True)]
    moved = tuple(one for one in judged if one is not None)
    return Check(
        tolerance=baseline.tolerance,
        runs=tuple((then.name, now.folder) for then, now in together),
        moved=moved,
        unchanged=len(judged) - len(moved),
        unkept=sum(len(now.entry.scores.keys() - then.scores.keys()) for then, now in together),
        refused=tuple(refused),
    )


def _pairs(then: Entry, now: Found, against: Path) -> Iterator[_Pair | UserError]:
    """Yield each score of a cell, then and now."""
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
            yield _Pair(then, now, metric, None, None, None)
            continue
        flips = theirs.unpacked(score.n) - mine.unpacked(score.n)
        p = None if is_neutral(metric) else _p(flips, now.items, metric)
        lost, gained = int((flips < 0).sum()), int((flips > 0).sum())
        yield _Pair(then, now, metric, lost, gained, p)


def _p(flips: np.ndarray, items: Items, metric: str) -> float | None:
    """Return p of McNemar's exact test over images; None with fewer than two of them."""
    groups = cast("list[int]", items.groups[~np.isnan(items.scores[metric])].tolist())
    if len(set(groups)) < 2:
        return None
    if not flips.any():
        return 1.0
    return flip_signs(np.rint(Images(groups).sums(flips)).astype(np.int64))


def _corrected(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p values corrected for all tests of the check; those of no test stay None."""
    tested = [p for p in p_values if p is not None]
    # The rule raises p values only, so where all are 1 nobody need wait for its import.
    corrected = iter(holm(tested) if any(p < 1 for p in tested) else tested)
    return [None if p is None else next(corrected) for p in p_values]


def _judged(pair: _Pair, p: float | None, tolerance: float) -> Moved | None:
    """Return how a score moved; None if it did not."""
    before, now = pair.then.scores[pair.metric].value, pair.now.entry.scores[pair.metric].value
    rise = round(now - before, DIGITS)
    told = abs(rise) > tolerance or (p is not None and p <= LEVEL and rise != 0)
    if not told and abs(rise) < _UNCHANGED:
        return None
    verdict: Verdict = "better" if told else "higher"
    if rise < 0:
        verdict = "worse" if told else "lower"
    if is_neutral(pair.metric):
        verdict = "other"
    return Moved(
        pair.then.name,
        pair.metric,
        pair.now.key,
        before,
        now,
        verdict,
        lost=pair.lost,
        gained=pair.gained,
        p=p,
        causes=tuple(causes(pair.then, pair.now.entry, pair.metric)),
    )


def is_neutral(metric: str) -> bool:
    """Say whether a metric's score is neither better nor worse for being higher."""
    return normalise(metric).partition("[")[0] in _NEITHER
