"""A part of a run's samples: `--shard 2/8` is the second of eight."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from medbench.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """One of several parts of a run, each answered by a process that knows nothing of the others.

    Attributes:
        number: which part, from 1; of: how many parts there are.
    """

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @property
    def name(self) -> str:
        """What stands in the names of its files."""
        return f"{self.number}of{self.of}"

    def share(self, batches: Sequence[T]) -> list[T]:
        """Return the shard's part of a run's batches.

        Whole batches are dealt in turn: their order is by a hash of the sample ids, so every
        process deals alike, and a batch is the same as in a run that is not cut, which keeps
        answers equal also where arithmetic depends on the batch.
        """
        return list(batches[self.number - 1 :: self.of])


def parse(text: str) -> Shard:
    """Read a shard such as "2/8".

    Raises:
        UserError: the text is not of that form.
    """
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UserError(
            f"cannot read the shard '{text}'",
            "It is no part of a whole.",
            "Write 2/8 for the second of eight.",
        )
    return Shard(int(found[1]), int(found[2]))


def parts(count: int) -> list[Shard]:
    """Return all parts of a run that is cut into so many."""
    return [Shard(number, count) for number in range(1, count + 1)]
