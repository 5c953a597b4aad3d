"""`medbench sweep`: a whole grid of runs; what is there is not done again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medbench import processes
from medbench.cli.options import runs_folder
from medbench.cli.progress import reporting
from medbench.counting import counted
from medbench.errors import UserError
from medbench.shard import Shard, parts
from medbench.shard import parse as parse_shard

if TYPE_CHECKING:
    from medbench.cell import Request
    from medbench.sweeping.attempt import Outcome
    from medbench.sweeping.file import Sweep
    from medbench.sweeping.survey import Surveyed


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--shard", default="", help="Answer one part of every cell here: 2/8, second of 8.")
@click.option(
    "--executor",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="ray: on a cluster, a task a cell; needs medbench[ray].",
)
@click.option("--shards", type=int, default=1, help="With ray: cut each cell into so many tasks.")
@click.option("--plan", "plan_only", is_flag=True, help="Say what is there and what is left.")
@runs_folder("Where run folders go.")
def sweep(file: Path, shard: str, executor: str, shards: int, plan_only: bool, out: Path) -> int:
    """Run the methods x tasks x backbones x seeds of FILE that are not there yet.

    A cell that fails does not keep the others from running; what failed is listed in the end.

    \b
    medbench sweep grid.toml --plan
    medbench sweep grid.toml --shard 2/8       # beside seven others that know nothing of it
    medbench sweep grid.toml --executor ray    # on the cluster of $RAY_ADDRESS, or this machine
    """
    part = parse_shard(shard) if shard else None
    if shards < 1 or (shards > 1 and executor == "local") or (part and executor == "ray"):
        raise UserError(
            "--shard is for one of several commands, --shards for one command with ray",
            "",
            "Write --shard 2/8, or --executor ray --shards 8.",
        )
    from medbench.sweeping.file import read

    asked = read(file, out)
    if executor == "ray":
        surveyed, outcomes = _on_cluster(asked, shards)
    else:
        surveyed, outcomes = _here(asked, part)
    _tell_survey(surveyed, each=plan_only)
    failed = [(one.request, one.failure.lines) for one in surveyed if one.failure]
    done: Counter[str] = Counter()
    for outcome in [] if plan_only else outcomes:
        done[outcome.state] += 1
        _tell_outcome(outcome)
        if outcome.failure:
            failed.append((outcome.request, outcome.failure.lines))
    if not plan_only:
        _tell_end(done, failed)
    return 1 if failed else 0


def _here(asked: Sweep, shard: Shard | None) -> tuple[list[Surveyed], Iterator[Outcome]]:
    """Return what is there of a sweep, and what runs the rest in this process."""
    from medbench.sweeping.survey import survey

    with reporting() as report:
        report.stage("plan", "")
        count = len(asked.requests)
        surveyed = survey(asked.requests, lambda done: report.progress(done, count, ""))
    return surveyed, _run_here([one.request for one in surveyed if one.state == "left"], shard)


def _run_here(requests: Sequence[Request], shard: Shard | None) -> Iterator[Outcome]:
    from medbench.loading_once import LoadOnce
    from medbench.read_splits import Splits
    from medbench.sweeping.attempt import attempt

    load, splits = LoadOnce(), Splits()
    for number, request in enumerate(requests, start=1):
        _echo(f"[{number}/{len(requests)}] {_name(request)}")
        with reporting() as report:
            outcome = attempt(request, load=load, splits=splits, shard=shard, report=report)
        yield outcome


def _on_cluster(asked: Sweep, shards: int) -> tuple[list[Surveyed], Iterator[Outcome]]:
    """Return what is there of a sweep, and what runs the rest on a cluster."""
    from medbench.sweeping.cluster import connect, run_there, survey_there

    cluster = connect(asked.cpus, asked.gpus)
    surveyed = survey_there(cluster, asked.requests)
    left = [one for one in surveyed if one.state == "left"]

    def outcomes() -> Iterator[Outcome]:
        cut = parts(shards) if shards > 1 else []
        for number, outcome in enumerate(run_there(cluster, left, cut), start=1):
            _echo(f"[{number}/{len(left)}] {_name(outcome.request)}")
            yield outcome

    return surveyed, outcomes()


def _tell_survey(surveyed: Sequence[Surveyed], *, each: bool) -> None:
    """Print what is there and what is left; of each cell if asked for."""
    states = Counter(one.state for one in surveyed)
    words = {"there": "there", "left": "left", "failed": "that cannot run"}
    told = ", ".join(f"{states[state]} {word}" for state, word in words.items() if states[state])
    _echo(f"{counted(len(surveyed), 'cell')}: {told}")
    for one in surveyed:
        if one.failure:
            _echo(f"  {_name(one.request)}: cannot run")
            for line in one.failure.lines:
                _echo(f"    {line}")
        elif each:
            trains = ", adapter to train" if one.adapter else ""
            _echo(f"  {_name(one.request)}: {one.answered} of {one.samples} answered{trains}")
            _echo(f"    {one.folder}")


def _tell_outcome(outcome: Outcome) -> None:
    states = {"done": "done", "part": "this part is done, others are left", "failed": "failed"}
    where = f", {outcome.folder}" if outcome.folder else ""
    _echo(f"  {states[outcome.state]}, {outcome.seconds:.1f} s{where}")
    for line in outcome.failure.lines if outcome.failure else ():
        _echo(f"  {line}")


def _tell_end(done: Counter[str], failed: Sequence[tuple[Request, Sequence[str]]]) -> None:
    parts_only = f", {done['part']} of which others answer parts" if done["part"] else ""
    _echo(f"{done['done']} done{parts_only}, {len(failed)} failed")
    for request, lines in failed:
        _echo(f"failed: {_name(request)}")
        for line in lines:
            _echo(f"  {line}")
        _echo(f"  alone: {request.command}")


def _name(request: Request) -> str:
    return (
        f"{request.method} on {request.task} with {request.backbone}, "
        f"seed {request.seed}, {request.preset}"
    )


def _echo(line: str) -> None:
    # Of processes that train together, one speaks.
    if processes.leads():
        click.echo(line, err=True)
