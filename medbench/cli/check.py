"""`medbench check`: runs against the numbers that were agreed on, for CI."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medbench.cli.options import runs_folder
from medbench.counting import counted
from medbench.errors import UserError

if TYPE_CHECKING:
    from medbench.checking.check import Check, Moved
    from medbench.checking.update import Update

_NONE = "–"
_VERDICTS = {
    "worse": "worse",
    "lower": "lower, within the tolerance",
    "better": "better",
    "higher": "higher, within the tolerance",
    "neither": "told only: neither is better",
}


@click.command()
@click.argument("runs", nargs=-1)
@click.option(
    "--against",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("results/baseline.json"),
    show_default=True,
    help="The baseline.",
)
@runs_folder("Where runs are, for keys, and for cells without a RUN.")
@click.option("--update", is_flag=True, help="Write the baseline from the runs.")
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1, max_open=True),
    help="With --update: how far a score may fall, as a fraction. [as it is; 0.005 in a new file]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def check(
    runs: tuple[str, ...],
    against: Path,
    out: Path,
    update: bool,
    tolerance: float | None,
    as_json: bool,
) -> int:
    """Compare RUNS with a baseline: is any score worse?

    A run is named by its folder, by a folder that holds some, or by its key; without RUNS every
    cell of the baseline is looked for.
    Exit code 0: nothing is worse. 1: a score fell by more than the tolerance, or significantly.
    2: nothing is known to be worse, but something could not be compared.

    \b
    medbench check results/runs/phantom --against results/baseline.json --update
    medbench check --against results/baseline.json
    """
    if tolerance is not None and not update:
        raise UserError(
            "--tolerance goes with --update",
            f"A check takes the tolerance that stands in {against}, so that all agree on it.",
            f"Set it: medbench check --against {against} --update --tolerance {tolerance:g}",
        )
    from medbench.checking import check as checks
    from medbench.checking import update as updates

    file = against.expanduser()
    if update:
        done = updates.update(file, runs, out, tolerance=tolerance)
        lines = _update_lines(done, against)
    else:
        done = checks.check(file, runs, out)
        lines = _check_lines(done, against)
    if as_json:
        click.echo(_as_json(done))
        return done.code
    for error in done.refused:
        what, *more = error.lines()
        click.echo("\n  ".join([what, *more]), err=True)
    for line in lines:
        click.echo(line)
    return done.code


def _check_lines(found: Check, against: Path) -> Iterator[str]:
    for run in found.runs:
        if run.moved:
            yield run.cell
            yield f"  {run.folder}: {', '.join(run.causes) or 'same plugins and versions'}"
            yield from _aligned(
                [*_values(one.metric, one.before, one.now), _remark(one, found.tolerance)]
                for one in run.moved
            )
    unchanged = sum(run.unchanged for run in found.runs)
    unkept = sum(run.unkept for run in found.runs)
    yield (
        ", ".join(
            [
                f"{counted(len(found.runs), 'run')} against {against}: "
                f"{counted(found.count('worse'), 'score')} worse",
                f"{found.count('better')} better",
                f"{found.count('lower', 'higher', 'neither')} moved",
                f"{unchanged} unchanged",
                *([f"{unkept} not in it (--update adds them)"] if unkept else []),
                *([f"{len(found.refused)} not compared"] if found.refused else []),
            ]
        )
        + f"; tolerance {_points(found.tolerance)}"
    )
    if told := [str(run.folder) for run in found.runs if run.count("worse", "better")]:
        words = ["medbench", "check", *told, "--against", str(against), "--update"]
        yield f"If that was meant, keep it: {shlex.join(words)}"


def _update_lines(done: Update, against: Path) -> Iterator[str]:
    if done.refused:
        yield f"{against} is as it was"
        return
    for one in done.changes:
        if one.new:
            yield f"new: {one.cell}, {counted(one.scores, 'score')}"
        elif one.replaced or one.parts:
            yield one.cell
            yield f"  {one.folder}: {', '.join(one.parts) or 'same plugins and versions'}"
            yield from _aligned(_values(*vars(each).values()) for each in one.replaced)
    new = sum(one.new for one in done.changes)
    replaced = sum(len(one.replaced) for one in done.changes)
    yield (
        f"{against}: {counted(done.cells, 'cell')}, {new} new; "
        f"{counted(replaced, 'score')} replaced; tolerance {_points(done.tolerance)}"
    )


def _values(metric: str, before: float | None, now: float | None) -> list[str]:
    """Return a metric, both values, and the change, in percent and points."""
    change = 0.0 if before is None or now is None else now - before
    digits = 2 if abs(change) >= 5e-5 or not change else 4  # enough to see that it moved
    percents = [_NONE if one is None else f"{100 * one:.{digits}f}" for one in (before, now)]
    told = _NONE if None in (before, now) else f"{100 * change:+.{digits}f}"
    return [metric, f"{percents[0]:>6} -> {percents[1]:>6}", told]


def _remark(one: Moved, tolerance: float) -> str:
    """Return the verdict on a score, and what it comes from."""
    parts: list[str] = []
    if one.verdict in ("worse", "better") and abs(one.rise) > tolerance:
        parts.append("beyond the tolerance")
    if one.lost or one.gained:
        parts.append(f"-{one.lost} +{one.gained} answers")
    if one.p is not None and one.p < 1:
        parts.append(f"p = {one.p:.2g}")
    said = _VERDICTS[one.verdict]
    return f"{said}: {', '.join(parts)}" if parts else said


def _aligned(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = [part.ljust(width) for part, width in zip(row, widths, strict=True)]
        yield f"  {'  '.join(cells)}".rstrip()


def _points(fraction: float) -> str:
    return f"{100 * fraction:g} points"


def _as_json(done: Check | Update) -> str:
    content: dict[str, Any] = {**vars(done), "exit_code": done.code}
    content["refused"] = [error.lines() for error in done.refused]
    return json.dumps(content, default=_plain, sort_keys=True)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else asdict(value)
