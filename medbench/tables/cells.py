"""Cells: the scores of runs that differ by their seeds only, as one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from medbench import plugins
from medbench.differences import computed_by
from medbench.errors import UserError
from medbench.tables.model import Cell

if TYPE_CHECKING:
    from medbench.store import RunRecord

# A share of answers above this is told beside the score.
UNWELL = 0.02


def pool(runs: Sequence[RunRecord], metric: str) -> Cell:
    """Return the cell of a metric over runs of several seeds, all of which have it.

    Raises:
        UserError: the scores were computed by other versions or weights.
    """
    by = {computed_by(run.scores[metric]): run for run in runs}
    if len(by) > 1:
        told = "; ".join(f"{way} in {plugins.shown(run.folder)}" for way, run in by.items())
        raise UserError(
            f"{metric} of {runs[0].method} on {runs[0].task} was computed in several ways",
            f"By {told}.",
            f"Score the runs alike: medbench rescore RUNS --metric {metric}",
        )
    return cell_of(runs, [run.scores[metric] for run in runs], metric)


def cell_of(runs: Sequence[RunRecord], scores: Sequence[dict[str, Any]], metric: str) -> Cell:
    """Return the cell of scores.

    Args:
        runs: one a seed.
        scores: theirs, each with value, low, high, n and groups as in scores.json.
        metric: full name.
    """
    pairs = sorted(zip(runs, scores, strict=True), key=lambda pair: pair[0].seed)
    values = [score["value"] for _, score in pairs]
    mean = math.fsum(values) / len(values)
    bounds: list[float | None] = []
    for end in ("low", "high"):
        given = [score[end] for _, score in pairs if score[end] is not None]
        bounds.append(math.fsum(given) / len(given) if len(given) == len(pairs) else None)
    squares = math.fsum((value - mean) ** 2 for value in values)
    return Cell(
        value=mean,
        low=bounds[0],
        high=bounds[1],
        n=pairs[0][1]["n"],
        groups=pairs[0][1]["groups"],
        spread=math.sqrt(squares / (len(values) - 1)) if len(values) > 1 else None,
        seeds=tuple(run.seed for run, _ in pairs),
        keys=tuple(run.key for run, _ in pairs),
        unwell=tuple(unwell([run.health for run, _ in pairs], metric)),
    )


def unwell(healths: Sequence[dict[str, Any]], metric: str) -> list[str]:
    """Return what more than 2 % of a metric's answers suffer from, over all seeds.

    Args:
        healths: of runs, as in scores.json.
    """
    counts = {"cut": ("cut", "rows"), "empty": ("empty", "rows")}
    if metric.partition("/")[0] == "closed":
        counts |= {
            "neither yes nor no": ("neither", "yes_no"),
            "both yes and no": ("both", "yes_no"),
        }
    told: list[str] = []
    for words, (part, whole) in counts.items():
        known = [one for one in healths if one.get(part) is not None and one.get(whole)]
        total = sum(one[whole] for one in known)
        share = sum(one[part] for one in known) / total if total else 0.0
        if share > UNWELL:
            told.append(f"{100 * share:.1f} % {words}")
    return told
