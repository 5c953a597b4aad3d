"""What of a sweep is there, what is left, and what cannot be run; nothing is loaded for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medbench import store
from medbench.cell import Cell, Request, plan
from medbench.read_splits import Splits
from medbench.sweeping.failure import Failure, attempted


@dataclass(frozen=True)
class Surveyed:
    """A cell before it is run.

    Attributes:
        state: "there" (complete), "left", or "failed", where `failure` says why it cannot be run.
        folder: of its run; answered: of so many samples.
        adapter: folder of the adapter to be trained first; None if there is none, or it is there.
    """

    request: Request
    state: Literal["there", "left", "failed"]
    folder: Path | None = None
    answered: int = 0
    samples: int = 0
    adapter: Path | None = None
    failure: Failure | None = None


def survey(
    requests: Sequence[Request], tell: Callable[[int], None] = lambda done: None
) -> list[Surveyed]:
    """Plan all cells of a sweep; one that cannot be planned does not keep others from it.

    Args:
        tell: called with the number of cells planned so far.
    """
    splits = Splits()
    found: list[Surveyed] = []
    for number, request in enumerate(requests, start=1):
        one = attempted(lambda request=request: _surveyed(plan(request, splits)))
        if isinstance(one, Failure):
            one = Surveyed(request, "failed", failure=one)
        found.append(one)
        tell(number)
    return found


def _surveyed(cell: Cell) -> Surveyed:
    store.check(cell.folder, cell.key)
    there = store.read_scores(cell.folder) is not None
    trains = cell.adapter is not None and not cell.adapter.ready
    return Surveyed(
        cell.request,
        "there" if there else "left",
        folder=cell.folder,
        answered=len(cell.samples) if there else len(store.read_rows(cell.folder)),
        samples=len(cell.samples),
        adapter=cell.adapter.folder if cell.adapter and trains else None,
    )
