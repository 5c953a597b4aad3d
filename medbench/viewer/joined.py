"""The answers of runs, sample by sample."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medbench.metrics.counts import health
from medbench.rows import Row
from medbench.verdict import RULES, Verdict, verdict
from medbench.viewer.chosen import Chosen

# The page knows verdicts and troubles by their places here.
VERDICTS: tuple[Verdict, ...] = ("wrong", "partly right", "right", "not judged")
TROUBLES = ("empty", "cut", "neither", "both")
INSIDE = "attention/in_roi"
# More values than these are no choice but a name.
_MOST_VALUES = 20
_DIGITS = 6


@dataclass(frozen=True)
class Joined:
    """One sample, and what each run answered; None where it has no answer."""

    id: str
    answers: tuple[Row | None, ...]

    @property
    def any(self) -> Row:
        """An answer that tells what was asked, which is the same in all."""
        return next(row for row in self.answers if row is not None)


def join(chosen: Sequence[Chosen]) -> list[Joined]:
    """Return all samples that some run answered, in the runs' order."""
    names = dict.fromkeys(name for one in chosen for name in one.rows)
    return [Joined(name, tuple(one.rows.get(name) for one in chosen)) for name in names]


def fields(samples: Sequence[Joined]) -> dict[str, list[str]]:
    """Return the fields of `meta` with few values -> the value of each sample, "" for none."""
    metas = [sample.any.get("meta", {}) for sample in samples]
    found: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for meta in metas for name in meta):
        given = [meta.get(name) for meta in metas]
        if all(value is None or isinstance(value, str | int | float) for value in given):
            values = ["" if value is None else str(value).strip() for value in given]
            if 1 < len(set(values)) <= _MOST_VALUES:
                found[name] = values
    return found


def yardsticks(samples: Sequence[Joined]) -> dict[str, str]:
    """Return by which metric the answers to each kind of question are ordered.

    It is the strict rule; for a kind that has none, as reports, the first metric with a value.
    """
    found: dict[str, str] = {}
    for sample in samples:
        kind = sample.any["kind"]
        if kind in RULES:
            found[kind] = RULES[kind]
        for row in sample.answers if kind not in found else ():
            scores = row.get("scores", {}) if row is not None else {}
            name = next((name for name, value in scores.items() if value is not None), None)
            if name is not None:
                found.setdefault(kind, name)
    return found


def column(rows: Sequence[Row | None], by: Mapping[str, str], *, withheld: bool) -> dict[str, Any]:
    """Return what the list shows of a run's answers, a value a sample.

    Args:
        rows: answers, None for none.
        by: kind of question -> metric.
        withheld: leave out what they say.

    Returns:
        "verdict" (places in VERDICTS), "score" by that metric, "inside" the region, "troubles" (a
        bit for each of TROUBLES), and unless withheld "output"; None where there is no answer.
    """
    said: dict[str, Any] = {
        "verdict": [None if row is None else VERDICTS.index(verdict(row)) for row in rows],
        "score": [None if row is None else _score(row, by.get(row["kind"], "")) for row in rows],
        "inside": [None if row is None else _score(row, INSIDE) for row in rows],
        "troubles": [None if row is None else _troubles(row) for row in rows],
    }
    if not withheld:
        said["output"] = [None if row is None else row["output"] for row in rows]
    return said


def number(value: float | None) -> float | None:
    """Return a number with as many digits as a page needs, None for what is none."""
    return None if value is None or not math.isfinite(value) else round(value, _DIGITS)


def written(meta: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what is known of a sample as texts."""
    return [(str(name), str(value)) for name, value in meta.items() if value not in (None, "")]


def _score(row: Row, metric: str) -> float | None:
    return number(row.get("scores", {}).get(metric))


def _troubles(row: Row) -> int:
    counts = health([row])
    return sum(bool(counts[name]) << place for place, name in enumerate(TROUBLES))
