"""One cell of a sweep, or a part of one, done wherever it is sent."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medbench import runner
from medbench.cell import Cell, Request, plan
from medbench.model.llava import Backbone
from medbench.read_splits import Splits
from medbench.reporting import Report
from medbench.shard import Shard
from medbench.sweeping.failure import Failure, attempted

Load = Callable[[Cell, Report], Backbone]


@dataclass(frozen=True)
class Outcome:
    """What came of a cell.

    Attributes:
        state: "done" (its run is complete), "part" (its part is, others are not), "failed".
        folder: of its run; None where it has none.
        seconds: that it took.
    """

    request: Request
    state: Literal["done", "part", "failed"]
    folder: Path | None = None
    seconds: float = 0.0
    failure: Failure | None = None


def attempt(
    request: Request,
    *,
    load: Load = runner.load,
    splits: Splits | None = None,
    shard: Shard | None = None,
    wait: float = 0.0,
    report: Report | None = None,
) -> Outcome:
    """Run a cell or a part of one; what goes wrong is told and not raised.

    Args:
        load, shard, wait, report: as `runner.execute` takes them.
        splits: as `cell.plan` takes them.
    """
    begin = time.perf_counter()
    run = attempted(
        lambda: runner.execute(
            plan(request, splits), load=load, shard=shard, wait=wait, report=report
        )
    )
    seconds = time.perf_counter() - begin
    if isinstance(run, Failure):
        return Outcome(request, "failed", seconds=seconds, failure=run)
    return Outcome(request, "done" if run.scores else "part", run.folder, seconds)


def train(request: Request) -> Failure | None:
    """Train a cell's adapter, unless it is there; return what went wrong."""
    failed = attempted(lambda: runner.prepare(plan(request)))
    return failed if isinstance(failed, Failure) else None
