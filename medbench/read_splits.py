"""A task's samples as runs take them: checked, in a fixed order, with what identifies them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medbench import provenance
from medbench.data.image_check import check_images
from medbench.data.passport import check_questions, passport_of
from medbench.data.pictures import with_images
from medbench.errors import UserError
from medbench.order import in_order
from medbench.restricted import read_split, withholding
from medbench.task import Sample, Task


@dataclass(frozen=True)
class Split:
    """A split as it was read.

    Attributes:
        samples: in the order of runs; missing: the ids without image.
        passport: counts and hashes; digest: of all that the samples are read from.
    """

    samples: tuple[Sample, ...]
    missing: tuple[str, ...]
    passport: Mapping[str, Any]
    digest: str


class Splits:
    """Reads splits, and keeps those of the latest task: cells that share a task share its reading.

    A split of many images takes seconds to read and check, and a sweep has hundreds of cells.
    """

    def __init__(self) -> None:
        self._task: Task | None = None
        self._kept: dict[tuple[str, bool], Split] = {}

    def read(self, task: Task, split: str, *, allow_missing: bool) -> Split:
        """Read a split.

        Args:
            allow_missing: leave out samples without an image.

        Raises:
            UserError: there are none, or two of one id, or an image is broken.
        """
        if task != self._task:
            self._task, self._kept = task, {}
        name = split, allow_missing
        if name not in self._kept:
            every = read_split(task, split)
            with withholding(task, every):
                self._kept[name] = _checked(task, split, every, allow_missing=allow_missing)
        return self._kept[name]


def _checked(task: Task, split: str, every: Sequence[Sample], *, allow_missing: bool) -> Split:
    found, missing = with_images(task, split, every, allow_missing=allow_missing)
    check_ids(task, split, found)
    if not missing:
        check_questions(task, split, found)
    check_images(found)
    samples = in_order(found)
    return Split(samples, tuple(missing), passport_of(found), provenance.hash_samples(samples))


def check_ids(task: Task, split: str, samples: Sequence[Sample]) -> None:
    """Make sure that there are samples, each with an id of its own.

    Raises:
        UserError: there are none, or two of one id.
    """
    if not samples:
        raise UserError(f"{task.name} has no {split} samples", "", "Check its data folder.")
    name, count = Counter(sample.id for sample in samples).most_common(1)[0]
    if count > 1:
        raise UserError(
            f"{task.name} has {count} {split} samples with the id '{name}'",
            "Answers are kept by id.",
            "Give every sample of the split an id of its own.",
        )
