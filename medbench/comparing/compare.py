"""Two sides of runs compared on the same questions: gaps, what chance makes of them, and flips.

A side is one run, or several that differ by their seeds only (`medbench.choose`). A question's
value is its mean over a side's seeds.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from medbench import paired
from medbench.choose import Side
from medbench.comparing.comparable import (
    Answers,
    check_runs,
    check_samples,
    check_settings,
    choose_metrics,
    differing,
    is_pooled,
)
from medbench.comparing.flips import Flips, FlipsFinder
from medbench.direction import better
from medbench.paired import Images, Paired
from medbench.restricted import check_texts

# Whose flips are shown; where none of them is compared, the first metric of right and wrong.
HEADLINE = ("closed/strict", "recall/strict", "choice/strict")
# Gaps are ratios of small integers; digits beyond are those of their sums.
_DIGITS = 9


@dataclass(frozen=True)
class SideFacts:
    """What a side is made of; `seeds`, `keys` and `folders` are of its runs, in one order."""

    name: str
    backbone: str
    seeds: tuple[int, ...]
    keys: tuple[str, ...]
    folders: tuple[str, ...]


@dataclass(frozen=True)
class SeedGap:
    """The gap between a run of A and one of B."""

    a_seed: int
    b_seed: int
    gap: float


@dataclass(frozen=True)
class Tested:
    """What can be said of a gap beyond its size; fractions.

    Attributes:
        name, low, high, p, smallest: `test` and others of `medbench.paired.Paired`.
        holm: p corrected for the number of metrics tested; None for one.
        independent: p of McNemar's exact test with questions taken as independent; None unless
            each side is one run and all values are 0 or 1.
        smallest_questions: `smallest` as a number of questions, where all values are 0 or 1.
    """

    name: Literal["mcnemar", "bootstrap"]
    low: float | None
    high: float | None
    p: float | None
    holm: float | None
    independent: float | None
    smallest: float | None
    smallest_questions: float | None


@dataclass(frozen=True)
class Compared:
    """One metric of both sides; fractions.

    Attributes:
        a, b: means over the seeds; a_spread, b_spread: standard deviations between them, None for
            one seed.
        gap: B minus A; questions: the same as a number of questions, where all values are 0 or 1.
        n, groups: questions and images.
        seeds: the gap seed by seed; empty if each side is one run.
        same_sign: how many of these have the gap's sign; None if there are none, or no gap.
        test: None if the score is no mean over questions.
        note: what a reader must know of the numbers.
    """

    metric: str
    a: float
    b: float
    a_spread: float | None
    b_spread: float | None
    gap: float
    questions: float | None
    n: int
    groups: int
    seeds: tuple[SeedGap, ...]
    same_sign: int | None
    test: Tested | None
    note: str


@dataclass(frozen=True)
class Comparison:
    """Two sides compared.

    Attributes:
        limit: of both, if they are over the first samples only.
        samples, images: that both sides answered.
        edition, about: which copy of the data, if not the official one, and what to know of it.
        withheld: whether texts, ids and values of `meta` are left out.
        differs: what differs beside the methods -> A's and B's.
        left_out: metric -> why it is not compared.
        pairs: number of pairs of runs that flips are means over; paired_by: "seed", or "all" if
            every run of A stands beside every run of B.
    """

    task: str
    preset: str
    partial: bool
    limit: int | None
    samples: int
    images: int
    edition: str
    about: str
    withheld: bool
    a: SideFacts
    b: SideFacts
    differs: Mapping[str, tuple[str, str]]
    left_out: Mapping[str, str]
    metrics: tuple[Compared, ...]
    pairs: int
    paired_by: Literal["seed", "all"]
    flips: tuple[Flips, ...]


def compare(
    a: Side,
    b: Side,
    *,
    metrics: Sequence[str] = (),
    samples: int = 10,
    show_restricted: bool = False,
) -> Comparison:
    """Compare two sides on the questions that both were asked.

    Args:
        a, b: sides; gaps are B's values minus A's.
        metrics: full names, or what stands before the `/`; none for all that both have.
        samples: how many flipped questions are kept, for each metric whose flips are shown.
        show_restricted: keep a restricted task's texts, ids and values of `meta`.

    Raises:
        UserError: they may not be compared, have no such metric in common, or have no texts to
            show.
    """
    for run in (*a.runs, *b.runs) if show_restricted else ():
        check_texts(run.folder, withheld=run.withheld, what="--show-restricted")
    check_runs(a, b)
    check_settings(a, b)
    first, second = Answers.of("A", a), Answers.of("B", b)
    check_samples(first, second)
    second = second.in_order_of(first)
    names, left_out = choose_metrics(first, second, metrics)
    compared = _with_holm(_compare_all(first, second, names))
    restricted = any(run.restricted for run in (*a.runs, *b.runs))
    withheld = restricted and not show_restricted
    finder = FlipsFinder(first, second, withheld=withheld)
    flips = tuple(finder.find(name, samples=samples) for name in _with_flips(compared))
    run = a.runs[0]
    return Comparison(
        task=run.task,
        preset=run.preset,
        partial=run.state == "partial",
        limit=run.limit,
        samples=first.samples.size,
        images=np.unique(first.groups).size,
        edition=run.edition,
        about=run.note,
        withheld=withheld,
        a=_facts(a),
        b=_facts(b),
        differs=differing(a, b, names),
        left_out=left_out,
        metrics=tuple(compared),
        pairs=len(finder.pairs),
        paired_by=finder.paired_by,
        flips=flips,
    )


def _facts(side: Side) -> SideFacts:
    return SideFacts(
        name=side.name,
        backbone=side.runs[0].backbone,
        seeds=tuple(run.seed for run in side.runs),
        keys=tuple(run.key for run in side.runs),
        folders=tuple(str(run.folder) for run in side.runs),
    )


def _compare_all(first: Answers, second: Answers, names: Sequence[str]) -> list[Compared]:
    images: dict[bytes, Images] = {}  # metrics of the same questions share their draws
    return [_compare(first, second, name, images) for name in names]


def _compare(first: Answers, second: Answers, name: str, images: dict[bytes, Images]) -> Compared:
    mine, others = first.values(name), second.values(name)
    apply = ~np.isnan(np.concatenate([mine, others]))
    shared = apply.all(axis=0)
    groups = first.groups[shared]
    mine, others = mine[:, shared], others[:, shared]
    questions, test, note = None, None, ""
    if is_pooled(first, name) or is_pooled(second, name):
        of_runs = first.scores(name), second.scores(name)
        gap = statistics.fmean(of_runs[1]) - statistics.fmean(of_runs[0])
        note = "is no mean over questions, so there is no test"
    else:
        of_runs = mine.mean(axis=1).tolist(), others.mean(axis=1).tolist()
        over = images.setdefault(shared.tobytes(), Images(groups.tolist()))
        found = paired.compare(mine, others, over)
        gap, test = found.gap, _tested(found, mine, others)
        if found.test == "mcnemar":
            questions = round(gap * found.n, _DIGITS)
        if (apply != shared).any():
            asked = [_counts(side) for side in (apply[: len(mine)], apply[len(mine) :])]
            note = (
                f"is over the {groups.size} questions with a value in all runs; "
                f"A has one for {asked[0]}, B for {asked[1]}"
            )
    seeds = _by_seed(first.seeds, second.seeds, *of_runs)
    return Compared(
        metric=name,
        a=statistics.fmean(of_runs[0]),
        b=statistics.fmean(of_runs[1]),
        a_spread=statistics.stdev(of_runs[0]) if len(of_runs[0]) > 1 else None,
        b_spread=statistics.stdev(of_runs[1]) if len(of_runs[1]) > 1 else None,
        gap=gap,
        questions=questions,
        n=groups.size,
        groups=np.unique(groups).size,
        seeds=seeds,
        same_sign=sum(one.gap * gap > 0 for one in seeds) if seeds and gap else None,
        test=test,
        note=note,
    )


def _tested(found: Paired, mine: np.ndarray, others: np.ndarray) -> Tested:
    judged, smallest = found.test == "mcnemar", found.smallest
    independent = None
    if judged and len(mine) == len(others) == 1:
        # With every question an image of its own, the test is the classical one.
        independent = paired.flip_signs(np.rint(others[0] - mine[0]).astype(np.int64))
    return Tested(
        name=found.test,
        low=found.low,
        high=found.high,
        p=found.p,
        holm=None,
        independent=independent,
        smallest=smallest,
        smallest_questions=smallest * found.n if judged and smallest is not None else None,
    )


def _with_holm(compared: Sequence[Compared]) -> list[Compared]:
    """Return metrics with corrected p values, if several have one."""
    known = {one.metric: one.test.p for one in compared if one.test and one.test.p is not None}
    if len(known) < 2:
        return list(compared)
    corrected = dict(zip(known, paired.holm(list(known.values())), strict=True))
    return [
        replace(one, test=replace(one.test, holm=corrected.get(one.metric))) if one.test else one
        for one in compared
    ]


def _counts(apply: np.ndarray) -> str:
    """Return how many questions have a value in the runs [runs, questions], in short."""
    numbers = sorted({int(number) for number in apply.sum(axis=1)})
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def _by_seed(
    mine: Sequence[int], others: Sequence[int], scores: Sequence[float], rivals: Sequence[float]
) -> tuple[SeedGap, ...]:
    """Return the gaps between runs of one seed, or between one run and each of the others."""
    if len(mine) == len(others) == 1:
        return ()
    single = 1 in (len(mine), len(others))
    return tuple(
        SeedGap(one, other, round(rival - score, _DIGITS))
        for one, score in zip(mine, scores, strict=True)
        for other, rival in zip(others, rivals, strict=True)
        if single or one == other
    )


def _with_flips(compared: Sequence[Compared]) -> list[str]:
    """Return the metrics whose flips are shown."""
    judged = [
        one.metric
        for one in compared
        # In others a 1 is not what is right.
        if one.questions is not None and better(one.metric) == "higher"
    ]
    return [name for name in judged if name in HEADLINE] or judged[:1]
