"""`medbench check`: runs against the numbers that were agreed on, for CI."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medbench.counting import counted
from medbench.errors import UserError

if TYPE_CHECKING:
    from medbench.baseline_update import Update
    from medbench.check import Check, Moved

_NONE = "–"
_VERDICTS = {
    "worse": "worse",
    "lower": "lower, within the tolerance",
    "better": "better by {change}; --update to keep it",
    "higher": "higher, within the tolerance",
    "other": "told only, as neither is better",
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
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("results/runs"),
    show_default=True,
    help="Where runs are, for keys, and for cells without a RUN.",
)
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
    from medbench import baseline_update
    from medbench import check as checks

    root = out.expanduser()
    if update:
        done = baseline_update.update(against.expanduser(), runs, root, tolerance=tolerance)
        if as_json:
            click.echo(json.dumps(_update_as_json(done, against), sort_keys=True))
        else:
            _tell_update(done, against)
        return 2 if done.refused else 0
    found = checks.check(against.expanduser(), runs, root)
    if as_json:
        click.echo(json.dumps(_as_json(found, against), sort_keys=True))
    else:
        _tell(found, against)
    return found.code


def _tell(found: Check, against: Path) -> None:
    causes = [", ".join(one.causes) or "same plugins and versions" for one in found.moved]
    _tell_moved(
        found.moved,
        [
            f"{_verdict(one, found.tolerance)} ({why})"
            for one, why in zip(found.moved, causes, strict=True)
        ],
    )
    _tell_refused(found.refused)
    number = dict.fromkeys(_VERDICTS, 0)
    for one in found.moved:
        number[one.verdict] += 1
    parts = [
        f"{counted(len(found.runs), 'run')} against {against}: "
        f"{counted(number['worse'], 'score')} worse",
        f"{number['better']} better",
        f"{number['lower'] + number['higher'] + number['other']} moved",
        f"{found.unchanged} unchanged",
    ]
    if found.unkept:
        parts.append(f"{found.unkept} not in it (--update adds them)")
    if found.refused:
        parts.append(f"{len(found.refused)} not compared")
    click.echo(f"{', '.join(parts)}; tolerance {_points(found.tolerance)}")


def _tell_update(done: Update, against: Path) -> None:
    if done.refused:
        _tell_refused(done.refused)
        click.echo(f"{against} is as it was", err=True)
        return
    for name in done.added:
        click.echo(f"new: {name}, {counted(len(done.baseline.entries[name].scores), 'score')}")
    _tell_moved(done.moved, [""] * len(done.moved))
    for name, parts in done.parts.items():
        click.echo(f"{name}: {'; '.join(parts)}")
    click.echo(
        f"{against}: {counted(len(done.baseline.entries), 'cell')}, {len(done.added)} new; "
        f"{counted(len(done.moved), 'score')} moved, {done.unchanged} unchanged; "
        f"tolerance {_points(done.baseline.tolerance)}"
    )


def _tell_moved(moved: Sequence[Moved], remarks: Sequence[str]) -> None:
    """Print an aligned line a score: cell, metric, both values, change, and a remark."""
    several = len({(one.cell, one.key) for one in moved}) > len({one.cell for one in moved})
    lines = [
        (
            f"{one.cell} [{one.key}]" if several else one.cell,
            one.metric,
            f"{_percent(one.before, one):>6} -> {_percent(one.now, one):>6}",
            _change(one),
            remark,
        )
        for one, remark in zip(moved, remarks, strict=True)
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)] if lines else []
    for line in lines:
        cells = [part.ljust(width) for part, width in zip(line, widths, strict=True)]
        click.echo("  ".join(cells).rstrip())


def _tell_refused(refused: Sequence[UserError]) -> None:
    for error in refused:
        what, *more = error.lines()
        click.echo("\n".join([what, *(f"  {line}" for line in more)]), err=True)


def _verdict(one: Moved, tolerance: float) -> str:
    said = _VERDICTS[one.verdict].format(change=_change(one).lstrip("+-"))
    parts: list[str] = []
    if one.verdict in ("worse", "better") and abs(one.change) > tolerance:
        parts.append("beyond the tolerance")
    if one.verdict == "other" and abs(one.change) > tolerance:
        said = "beyond the tolerance; told only, as neither is better"
    if one.lost is not None and (one.lost or one.gained):
        parts.append(f"-{one.lost} +{one.gained} answers")
    if one.p is not None and one.p < 1:
        parts.append(f"p = {one.p:.2g}")
    if not parts:
        return said
    return f"{said}: {', '.join(parts)}"


def _percent(value: float | None, one: Moved) -> str:
    return _NONE if value is None else f"{100 * value:.{_digits(one)}f}"


def _change(one: Moved) -> str:
    if one.before is None or one.now is None:
        return _NONE
    return f"{100 * one.change:+.{_digits(one)}f}"


def _digits(one: Moved) -> int:
    """Return how many digits of a percentage show that it moved."""
    return 2 if abs(one.change) >= 5e-5 or not one.change else 4


def _points(fraction: float) -> str:
    return f"{100 * fraction:g} points"


def _as_json(found: Check, against: Path) -> dict[str, Any]:
    return {
        "against": str(against),
        "exit_code": found.code,
        "tolerance": found.tolerance,
        "runs": [{"cell": cell, "folder": str(folder)} for cell, folder in found.runs],
        "moved": [_moved_as_json(one) for one in found.moved],
        "unchanged": found.unchanged,
        "unkept": found.unkept,
        "refused": [error.lines() for error in found.refused],
    }


def _update_as_json(done: Update, against: Path) -> dict[str, Any]:
    return {
        "against": str(against),
        "exit_code": 2 if done.refused else 0,
        "tolerance": done.baseline.tolerance,
        "cells": sorted(done.baseline.entries),
        "added": list(done.added),
        "moved": [_moved_as_json(one) for one in done.moved],
        "unchanged": done.unchanged,
        "parts": {name: list(parts) for name, parts in done.parts.items()},
        "refused": [error.lines() for error in done.refused],
    }


def _moved_as_json(one: Moved) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(one), "change": one.change}
