"""Cells compared with those of their row's reference, and tables' answers as numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medbench.errors import UserError
from medbench.items import Items, is_mean, places, read_items
from medbench.paired import Images, compare, holm
from medbench.tables.model import Column, Contrast, Place, Row, Table
from medbench.tables.subset import members

if TYPE_CHECKING:
    from medbench.store import RunRecord

# Their scores judge questions, so that a gap is so many questions.
_JUDGING = ("closed", "choice", "recall")
_RESAMPLES, _RESAMPLES_A_COMPARISON = 10_000, 400


def answers_of(table: Table) -> dict[Path, Items]:
    """Return the answers of a table's runs as numbers, by folder.

    Raises:
        UserError: a line of a run is broken.
    """
    return {
        run.folder: read_items(run.folder, restricted=run.restricted) for run in table.each_run()
    }


def contrasts(table: Table, answers: Mapping[Path, Items]) -> dict[Place, Contrast]:
    """Compare each cell with that of its row's reference, over the same questions.

    p values are corrected for the number of comparisons in the table. A metric whose score is no
    mean over samples is not compared.

    Args:
        table: with references; answers: of its runs.

    Raises:
        UserError: the samples of two runs are not the same.
    """
    compared = [
        (column, row, reference)
        for column in table.columns
        for row, reference in table.references.items()
        if (row, column) in table.runs and (reference, column) in table.runs
    ]
    # So many that Holm's correction cannot lift the smallest p there is above 0.005.
    resamples = max(_RESAMPLES, _RESAMPLES_A_COMPARISON * len(compared))
    shared = {column: _Column(column, table.runs, answers, resamples) for column, _, _ in compared}
    found: dict[Place, Contrast] = {}
    for column, row, reference in compared:
        contrast = shared[column].contrast(row, reference)
        if contrast is not None:
            found[row, column] = contrast
    tested = [place for place, one in found.items() if one.paired.p is not None]
    corrected = holm([found[place].paired.p or 0.0 for place in tested])
    for place, p in zip(tested, corrected, strict=True):
        found[place] = replace(found[place], p=p)
    return found


class _Column:
    """The comparisons of one column, which share the order of samples and the draws of images."""

    def __init__(
        self,
        column: Column,
        runs: Mapping[Place, Sequence[RunRecord]],
        answers: Mapping[Path, Items],
        resamples: int,
    ) -> None:
        self._column, self._resamples = column, resamples
        self._runs = {row: same for (row, one), same in runs.items() if one == column}
        self._answers = answers
        self._images: dict[bytes, Images] = {}
        self._samples, self._kept = self._order()

    def contrast(self, row: Row, reference: Row) -> Contrast | None:
        """Return the comparison of two rows; None where the score is no mean."""
        second, first = self._values(row), self._values(reference)
        if first is None or second is None:
            return None
        both = self._kept & ~np.isnan(first).any(axis=0) & ~np.isnan(second).any(axis=0)
        if not both.any():
            return None
        paired = compare(first[:, both], second[:, both], self._images_of(both))
        judged = self._column.metric.partition("/")[0] in _JUDGING
        return Contrast(reference, paired, None, paired.gap * paired.n if judged else None)

    def _order(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the samples in one order, and which of them the column is about."""
        first = next(iter(self._runs.values()))[0]
        samples = self._answers[first.folder].samples
        if not self._column.where:
            return samples, np.ones(len(samples), dtype=bool)
        return samples, np.isin(samples, members(first, self._column.where))

    def _values(self, row: Row) -> np.ndarray | None:
        """Return the values [seeds, samples] of a row's runs."""
        values: list[np.ndarray] = []
        for run in self._runs[row]:
            items = self._answers[run.folder]
            scores = items.scores[self._column.metric]
            if not is_mean(scores[~np.isnan(scores)], run.scores[self._column.metric]["value"]):
                return None
            values.append(scores[self._places(run, items)])
        return np.stack(values)

    def _places(self, run: RunRecord, items: Items) -> np.ndarray:
        if np.array_equal(items.samples, self._samples):
            return np.arange(len(self._samples))
        if not np.array_equal(np.sort(items.samples), np.sort(self._samples)):
            raise UserError(
                f"the runs of {self._column.task} did not answer the same samples",
                f"{run.folder} has others than the rest.",
                "Move the runs that are not meant to another folder.",
            )
        return places(items.samples, self._samples)

    def _images_of(self, kept: np.ndarray) -> Images:
        # Nearly always the same samples: the draws of images are made once.
        name = kept.tobytes()
        if name not in self._images:
            first = next(iter(self._runs.values()))[0]
            groups = self._answers[first.folder].groups[kept].tolist()
            self._images[name] = Images(groups, resamples=self._resamples)
        return self._images[name]
