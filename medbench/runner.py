"""The straight line of a run: load -> tune -> decode -> score, one folder in the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from medbench import provenance, store
from medbench.adapting import adapted, help_train
from medbench.answering import Batch, answer, batches, left
from medbench.atomic import explaining_full_disks
from medbench.cell import Cell, Request, plan
from medbench.model.llava import Backbone
from medbench.needs import check_depth
from medbench.processes import Team, team
from medbench.reporting import Report
from medbench.restricted import withholding
from medbench.rows import Row
from medbench.shard import Shard
from medbench.task_scores import finish

# For so many seconds a part waits for others that begin, and for those that look whether it ended.
_MOMENT, _GLANCE = 20.0, 3.0


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: its folder.
        scores: the content of scores.json; empty in a process that only helped to train
            (`medbench.processes`), and where other parts of the run have samples left.
    """

    folder: Path
    scores: dict[str, Any]

    @property
    def samples(self) -> list[Row]:
        """The answered samples with their scores."""
        return store.read_rows(self.folder)


def run(method: str, task: str, *, report: Report | None = None, **options: Any) -> Run:
    """Run a method on a task with a backbone, or continue where it stopped.

    Args:
        method: a spec or chain, e.g. "lora+vcd[alpha=0.5]".
        task: a spec, e.g. "slake[closed_rule=dataset]".
        report: where to tell how far it is.
        options: backbone=, data=, seed=, limit=, batch_size=, device=, dtype=, preset=,
            allow_missing_images=, record_steps=, out= (see `medbench.cell.Request`).

    Raises:
        UserError: anything asked for that cannot work.
    """
    if "out" in options:
        options["out"] = Path(options["out"]).expanduser()
    return execute(plan(Request(method=method, task=task, **options)), report=report)


def load(cell: Cell, report: Report) -> Backbone:
    """Load a cell's backbone."""
    report.stage("load", cell.display["backbone"])
    return cell.checkpoint.load(device=torch.device(cell.device), dtype=getattr(torch, cell.dtype))


def execute(
    cell: Cell,
    *,
    load: Callable[[Cell, Report], Backbone] = load,
    shard: Shard | None = None,
    wait: bool | float = False,
    report: Report | None = None,
) -> Run:
    """Run a planned cell; what its folder already holds is not done again.

    Of several processes started together, all help to train and the leading one does the rest.

    Args:
        load: gives the cell's backbone; called only if there is something to do.
        shard: answer only this part of the samples, beside other processes that answer others;
            where with it all are answered, the run is scored.
        wait: for another process that writes the same: for so many seconds, or not at all.

    Raises:
        UserError: another process is at it, the folder is broken or newer, or data cannot be read.
    """
    with withholding(cell.task, cell.every):
        return _execute(cell, load, shard, wait, report or Report())


def prepare(
    cell: Cell,
    *,
    load: Callable[[Cell, Report], Backbone] = load,
    report: Report | None = None,
) -> None:
    """Train a cell's adapter if it has one that is not there; answer nothing.

    Raises:
        UserError: it cannot be trained.
    """
    if cell.adapter is None or cell.adapter.ready:
        return
    report = report or Report()
    with (
        withholding(cell.task, cell.every),
        explaining_full_disks(cell.adapter.folder),
        adapted(cell, load(cell, report), report, Team(), lambda _: None),
    ):
        pass


@dataclass(frozen=True)
class _Job:
    """A cell at work.

    Attributes:
        load, wait, report: as `execute` takes them.
        together: the processes that train with this one; tell: tells them whether to.
    """

    cell: Cell
    load: Callable[[Cell, Report], Backbone]
    wait: bool | float
    report: Report
    together: Team
    tell: Callable[[bool], None]


def _execute(
    cell: Cell,
    load: Callable[[Cell, Report], Backbone],
    shard: Shard | None,
    wait: bool | float,
    report: Report,
) -> Run:
    trains = cell.adapter is not None and not cell.adapter.given
    together = team(cell.device)
    if not together.leads:
        if trains:
            help_train(cell, load, together)
        return Run(cell.folder, {})
    # Locks are the leading process's alone: the others wait for its word, not for its locks.
    with (
        (together if trains else Team()).telling() as tell,
        explaining_full_disks(cell.folder),
    ):
        store.check(cell.folder, cell.key)
        job = _Job(cell, load, wait, report, together, tell)
        return _whole(job) if shard is None else _part(job, shard)


def _whole(job: _Job) -> Run:
    """Answer all samples and score them."""
    cell = job.cell
    with _held(cell, job.wait), store.parts_locked(cell.folder):
        scores = store.read_scores(cell.folder)
        if scores is None:
            _work(job, batches(cell), begin=nullcontext)
            scores = _score(cell, job.report)
        return Run(cell.folder, scores)


def _part(job: _Job, shard: Shard) -> Run:
    """Answer a part of the samples; score all if that makes them complete."""
    cell, wait = job.cell, job.wait or _MOMENT
    every = batches(cell)
    if store.read_scores(cell.folder) is None:
        with _held(cell, job.wait or _GLANCE, shard.name):
            _work(job, shard.share(every), shard.name, begin=lambda: _held(cell, wait))
    # Whoever is last to let go of its part finds no other held.
    try:
        with _held(cell, wait), store.parts_locked(cell.folder):
            scores = store.read_scores(cell.folder)
            if scores is None and not left(cell, every):
                scores = _score(cell, job.report)
            return Run(cell.folder, scores or {})
    except store.HeldError:
        return Run(cell.folder, {})


def _work(
    job: _Job,
    given: Sequence[Batch],
    part: str = "",
    *,
    begin: Callable[[], AbstractContextManager[None]],
) -> None:
    """Answer what some batches have left; load nothing where that is nothing.

    Args:
        begin: holds the run while run.json is written.
    """
    cell = job.cell
    store.repair(cell.folder, part)
    if not left(cell, given):
        return
    backbone = job.load(cell, job.report)
    for method in filter(None, (cell.tuner, cell.decoder)):
        check_depth(method, backbone.depth)  # where no file said it before
    record = describe(cell)
    with begin():
        store.begin(cell.folder, record)
    with adapted(cell, backbone, job.report, job.together, job.tell) as ready:
        answer(cell, ready, given, part, job.report)


def _held(cell: Cell, wait: bool | float, part: str = "") -> AbstractContextManager[None]:
    what = f"run's part {part}" if part else "run"
    private = cell.task.restricted
    return store.locked(cell.folder, wait=wait, what=what, private=private, part=part)


def describe(cell: Cell) -> dict[str, Any]:
    """Return what run.json says about a cell."""
    return {
        "key": cell.key,
        "identity": cell.identity,
        "display": cell.display,
        "samples": len(cell.samples),
        "partial": cell.partial,
        "missing_images": len(cell.missing),
        "samples_with_region": sum(sample.roi is not None for sample in cell.samples),
        "data": provenance.describe_data(cell.task, cell.passport),
        "adapter": cell.adapter.key if cell.adapter else None,
        "metrics": list(cell.task.metrics),
        "device": cell.device,
        "command": cell.request.command,
        "versions": provenance.versions(),
        "hardware": provenance.hardware(cell.device),
        "git": provenance.git_state(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _score(cell: Cell, report: Report) -> dict[str, Any]:
    store.begin(cell.folder, describe(cell))  # scores may be of other versions than answers
    done = {row["id"]: row for row in store.read_rows(cell.folder)}
    return finish(
        cell.folder,
        [done[sample.id] for sample in cell.samples],
        cell.task,
        cell.every,
        metrics=cell.metrics,
        unavailable=cell.unavailable,
        device=cell.device,
        report=report,
    )
