"""The commands behind a table: those that made its runs, and those that would fill its gaps."""

from __future__ import annotations

import functools
import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from medbench import canonical, plugins, spec
from medbench.presets import PRESETS
from medbench.spec import Spec
from medbench.tables.model import Column, Table

if TYPE_CHECKING:
    from medbench.store import RunRecord

_FOLDER = "DIR"
_OUT = Path("results/runs")
# Its weights need no folder, since they ship.
_IN_THE_BOX = "phantom"
# What else makes a run another one, or puts it elsewhere: runs of a backbone should share it.
_SHARED = ("--batch-size", "--device", "--dtype", "--out")
# Finding a plugin takes milliseconds, and a table asks for hundreds.
_plugin = functools.cache(plugins.get)


def made_by(runs: Iterable[RunRecord]) -> list[str]:
    """Return the commands that made runs: those that differ by method and seed as one."""
    methods: dict[tuple[str, ...], dict[str, set[int]]] = defaultdict(dict)
    others: dict[str, None] = {}
    for run in runs:
        words = _words(run.command)
        if words[:2] != ["medbench", "run"] or len(words) % 2:
            others.setdefault(run.command)
            continue
        options = dict(zip(words[2::2], words[3::2], strict=True))
        method = options.pop("--method", run.method)
        options.pop("--seed", None)
        rest = tuple(word for pair in options.items() for word in pair)
        methods[rest].setdefault(method, set()).add(run.seed)
    found: list[str] = []
    for rest, seeds in methods.items():
        for same, names in _by_seeds(seeds).items():
            found.append(_run(names, rest, same))
    return found + list(filter(None, others))


def to_fill(table: Table, records: Sequence[RunRecord], *, out: Path | None = None) -> list[str]:
    """Return the commands that would fill a table's empty cells, and seeds that only some have.

    Args:
        table: of a layout.
        records: all runs there are, finished or not, which tell where data and weights are.
        out: folder that new runs go to; None for that of the backbone's other runs.
    """
    wanted: dict[str, set[int]] = defaultdict(set)
    for (row, _), same in table.runs.items():
        wanted[row.backbone] |= {run.seed for run in same}
    answered = _answered(table, records)
    shared = {row.backbone: _shared(table, row.backbone, out) for row in table.rows}
    # What other programs answered, no run of ours adds to.
    can_run = table.preset in ("", *PRESETS)
    names = dict.fromkeys(row.backbone for row in table.rows) if can_run else ()
    backbones = {name: _with_weights(name, records) for name in names}
    needed: dict[tuple[str, ...], dict[str, set[int]]] = defaultdict(dict)
    rescored: dict[str, dict[str, None]] = defaultdict(dict)
    for row in table.rows:
        for column in table.columns:
            have = answered[_place(row.backbone, column.task, row.method)]
            for run in have:
                if column.metric not in run.scores:
                    rescored[column.metric].setdefault(plugins.shown(run.folder))
            seeds = (wanted[row.backbone] or {0}) - {run.seed for run in have}
            if seeds and can_run and _can_run(row.method, column.task, row.backbone):
                rest = (
                    *("--task", column.task, "--backbone", backbones[row.backbone]),
                    *(*_data(column.task, records), *_preset(table)),
                    *(*_part(table, column), *shared[row.backbone]),
                )
                needed[rest].setdefault(row.method, set()).update(seeds)
    found = [
        _run(names, rest, seeds)
        for rest, methods in needed.items()
        for seeds, names in _by_seeds(methods).items()
    ]
    for metric, folders in rescored.items():
        found.append(shlex.join(["medbench", "rescore", *folders, "--metric", metric]))
    return found


def _answered(
    table: Table, records: Sequence[RunRecord]
) -> defaultdict[tuple[str, str, str], list[RunRecord]]:
    """Return the finished runs of a table's kind by place, with and without scores."""
    found: defaultdict[tuple[str, str, str], list[RunRecord]] = defaultdict(list)
    state, preset = "partial" if table.partial else "complete", table.preset or PRESETS[0]
    limits = {one.limit for one in table.columns if one.identity}
    for one in records:
        if (one.state, one.preset) == (state, preset) and (not limits or one.limit in limits):
            found[_place(one.backbone, one.task, one.method)].append(one)
    return found


def _place(backbone: str, task: str, method: str) -> tuple[str, str, str]:
    return canonical.backbone(backbone), canonical.task(task), canonical.method(method, task)


@functools.cache
def _can_run(method: str, task: str, backbone: str) -> bool:
    """Say whether a task and a backbone offer what a method needs, such as regions."""
    of_task = _plugin("task", spec.parse(task).name).attributes
    of_backbone = _plugin("backbone", spec.parse(backbone).name).attributes
    offers = [*of_task.get("offers", ()), *of_backbone.get("offers", ())]
    needs = [need for one in spec.parse_chain(method) for need in _needs(one)]
    return all(need in offers for need in needs)


def _needs(one: Spec) -> list[str]:
    """Return what a method needs, and what the providers need that it is given by name."""
    plugin = _plugin("method", one.name)
    providers = [
        _plugin("provider", spec.parse(text).name)
        for name, text in one.values
        if plugin.role == "tuner" and name in plugin.attributes.get("supervision", {})
    ]
    return [need for each in (plugin, *providers) for need in each.attributes.get("needs", ())]


def _with_weights(backbone: str, records: Sequence[RunRecord]) -> str:
    """Return a backbone with the folder of its weights, as a run with it had it."""
    wanted = canonical.backbone(backbone)
    for one in records:
        if one.command.startswith("medbench run ") and canonical.backbone(one.backbone) == wanted:
            given = _options(one.command, ["--backbone"])
            return given[1] if given else backbone
    named, plugin = spec.parse(backbone), _plugin("backbone", spec.parse(backbone).name)
    has_none = any((one.name, one.default) == ("weights", "") for one in plugin.parameters)
    if not has_none or named.name == _IN_THE_BOX or "weights" in dict(named.values):
        return backbone
    return str(replace(named, values=(*named.values, ("weights", _FOLDER))))


def _data(task: str, records: Sequence[RunRecord]) -> list[str]:
    """Return the data option, as a run of the same data set had it."""
    name = task.partition("[")[0]
    for one in records:
        if one.task.partition("[")[0] == name and one.command:
            return _options(one.command, ["--data"])
    # Tasks without files have examples in their source.
    return [] if _plugin("task", name).attributes.get("examples") else ["--data", _FOLDER]


def _shared(table: Table, backbone: str, out: Path | None) -> list[str]:
    """Return the options that the runs of a backbone share with a new one."""
    commands = (
        run.command
        for (row, _), same in table.runs.items()
        for run in same
        if row.backbone == backbone and run.command.startswith("medbench run ")
    )
    command = next(commands, "")
    if out is None:
        return _options(command, _SHARED)
    options = _options(command, [name for name in _SHARED if name != "--out"])
    return options if out == _OUT else [*options, "--out", str(out)]


def _part(table: Table, column: Column) -> list[str]:
    """Return the options that leave out what a column's runs, or else all others, leave out."""
    like = [column] if column.identity else [one for one in table.columns if one.identity]
    limits = {one.limit for one in like}
    limit = limits.pop() if len(limits) == 1 else None
    words = [] if limit is None else ["--limit", str(limit)]
    return [*words, "--allow-missing-images"] if column.missing_images else words


def _options(command: str, names: Sequence[str]) -> list[str]:
    """Return those options of a command that it has, with their values."""
    words = _words(command)
    places = (words.index(name) for name in names if name in words)
    return [word for at in places for word in words[at : at + 2]]


def _preset(table: Table) -> tuple[str, ...]:
    return ("--preset", table.preset) if table.preset not in ("", "matched") else ()


def _words(command: str) -> list[str]:
    # shlex takes a third of a millisecond, which thousands of runs would wait for.
    return shlex.split(command) if any(sign in command for sign in "'\"\\") else command.split()


def _by_seeds(methods: Mapping[str, set[int]]) -> dict[tuple[int, ...], list[str]]:
    found: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for method, seeds in methods.items():
        found[tuple(sorted(seeds))].append(method)
    return found


def _run(methods: Sequence[str], rest: Sequence[str], seeds: Sequence[int]) -> str:
    words = ["medbench", "run", "--method", ",".join(methods), *rest]
    if tuple(seeds) not in ((), (0,)):
        words += ["--seeds", _ranges(seeds)]
    return shlex.join(words)


def _ranges(seeds: Sequence[int]) -> str:
    """Return sorted numbers as `0-4` or `0,2`."""
    first, last = seeds[0], seeds[-1]
    if len(seeds) > 1 and list(seeds) == list(range(first, last + 1)):
        return f"{first}-{last}"
    return ",".join(map(str, seeds))
