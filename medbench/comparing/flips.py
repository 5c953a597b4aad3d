"""Where two sides differ, question by question: counts by what is known of them, and samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from medbench import store
from medbench.comparing.comparable import Answers
from medbench.items import hashed, places, told
from medbench.rows import Row

# By what of `meta` questions are counted, where a run has it.
_FIELDS = ("question_type", "content_type", "modality", "location")
_MOST_VALUES = 20
# Differences of means of a few zeros and ones: what is below this is zero and rounding.
_ZERO = 1e-9
_DIGITS = 9


@dataclass(frozen=True)
class Count:
    """How the questions with one value of a field were answered; means over pairs of runs.

    Attributes:
        value: of the field, "" where a question has none.
        n: questions; a_right, b_right: those that each side has right; lost: A right and B wrong;
            won: A wrong and B right.
    """

    value: str
    n: int
    a_right: float
    b_right: float
    lost: float
    won: float


@dataclass(frozen=True)
class Flipped:
    """A question that one side has right more often than the other.

    Attributes:
        place: line of the question in the `samples.jsonl` of A's first run.
        change: what it is for B.
        difference: B's mean over the pairs of runs minus A's.
        pairs: how many of them show the change; a_seed, b_seed: the first that does, whose answers
            `a` and `b` are.
        id, question, gold, a, b: None where they are withheld.
    """

    place: int
    change: Literal["lost", "won"]
    difference: float
    pairs: int
    a_seed: int
    b_seed: int
    id: str | None = None
    question: str | None = None
    gold: str | None = None
    a: str | None = None
    b: str | None = None


@dataclass(frozen=True)
class Flips:
    """Where two sides differ in a metric of right and wrong.

    Attributes:
        total: over all questions; by: field -> its values, the most frequent first.
        flipped: number of questions with a difference; samples: some of them, the most certain
            first.
    """

    metric: str
    total: Count
    by: Mapping[str, tuple[Count, ...]]
    flipped: int
    samples: tuple[Flipped, ...]


class FlipsFinder:
    """Finds flips between two sides; a run's texts are read when they are first needed.

    Args:
        first, second: in the same order of questions.
        withheld: leave out texts, ids and values of `meta`, as a restricted task needs it.

    Attributes:
        pairs: which runs of A and B stand beside each other, by their positions.
        paired_by: "seed"; or "all" where the seeds are not the same, so that every run counts as
            much as the others and won less lost is the gap.
    """

    def __init__(self, first: Answers, second: Answers, *, withheld: bool) -> None:
        self._first, self._second, self._withheld = first, second, withheld
        self._rows: dict[Path, dict[str, Row]] = {}
        ours, theirs = range(len(first.seeds)), range(len(second.seeds))
        same = first.seeds == second.seeds
        self.paired_by: Literal["seed", "all"] = "seed" if same else "all"
        self.pairs = [(a, b) for a in ours for b in theirs if a == b or not same]

    def find(self, metric: str, *, samples: int) -> Flips:
        """Return the flips in a metric whose values are 0 and 1.

        Args:
            samples: how many of the questions to return.
        """
        first = self._first.values(metric)[[a for a, _ in self.pairs]]
        second = self._second.values(metric)[[b for _, b in self.pairs]]
        asked = np.flatnonzero(~np.isnan(np.concatenate([first, second])).any(axis=0))
        first, second = first[:, asked], second[:, asked]
        # [4, questions], means over the pairs.
        found = (first, second, first > second, second > first)
        means = np.stack([each.mean(axis=0) for each in found])
        lines, rows = self._asked()
        differences = means[1] - means[0]
        flipped = np.flatnonzero(np.abs(differences) > _ZERO).tolist()
        # Sorting is stable: the run's order stays among those that are as certain.
        flipped.sort(key=lambda at: -round(abs(differences[at]), _DIGITS))
        return Flips(
            metric=metric,
            total=_count("", means),
            by={
                field: tuple(
                    _count(value, means[:, [one == value for one in values]])
                    for value, _ in Counter(sorted(values)).most_common()
                )
                for field, values in self._fields([rows[at] for at in asked]).items()
            },
            flipped=len(flipped),
            samples=tuple(
                self._flipped(lines[asked[at]], second[:, at] - first[:, at], rows[asked[at]])
                for at in flipped[:samples]
            ),
        )

    def _fields(self, rows: Sequence[Row]) -> dict[str, list[str]]:
        """Return the fields by which questions are counted -> their value for each."""
        fields: dict[str, list[str]] = {}
        for name in () if self._withheld else _FIELDS:
            values = [_written(row.get("meta", {}).get(name)) for row in rows]
            if 0 < len({*values} - {""}) <= _MOST_VALUES:
                fields[name] = values
        return {**fields, "kind": [row["kind"] for row in rows]}

    def _asked(self) -> tuple[list[int], list[Row]]:
        """Return the lines of the questions in A's first run, and its rows, as answers stand."""
        run = self._first.side.runs[0]
        rows = list(self._texts(self._first, 0).values())
        names = hashed(row["id"] for row in told(rows, restricted=run.restricted))
        where = places(names, self._first.samples).tolist()
        return [at + 1 for at in where], [rows[at] for at in where]

    def _flipped(self, line: int, changes: np.ndarray, row: Row) -> Flipped:
        """Return one question; `changes` are of the pairs."""
        difference = float(changes.mean())
        showing = [
            pair
            for pair, change in zip(self.pairs, changes, strict=True)
            if change * difference > 0
        ]
        a, b = showing[0]
        texts: dict[str, str] = {}
        if not self._withheld:
            texts = {
                "id": row["id"],
                "question": row.get("question", ""),
                "gold": row["gold"],
                "a": self._texts(self._first, a)[row["id"]]["output"],
                "b": self._texts(self._second, b)[row["id"]]["output"],
            }
        return Flipped(
            place=line,
            change="won" if difference > 0 else "lost",
            difference=round(difference, _DIGITS),
            pairs=len(showing),
            a_seed=self._first.seeds[a],
            b_seed=self._second.seeds[b],
            **texts,
        )

    def _texts(self, answers: Answers, run: int) -> dict[str, Row]:
        """Return a run's rows by their ids, in the run's order."""
        folder = answers.side.runs[run].folder
        if folder not in self._rows:
            self._rows[folder] = {row["id"]: row for row in store.read_rows(folder)}
        return self._rows[folder]


def _count(value: str, means: np.ndarray) -> Count:
    """Return the sums of means over pairs, [4, questions]."""
    a_right, b_right, lost, won = (round(float(total), _DIGITS) for total in means.sum(axis=1))
    return Count(value, means.shape[1], a_right, b_right, lost, won)


def _written(value: object) -> str:
    return "" if value is None else str(value).strip()
