"""A sweep's file: which methods, tasks, backbones and seeds, and with what options.

    methods = ["greedy", "vcd[alpha=0.5|1.0]", "lora+vcd"]
    tasks = ["slake", "vqa_rad"]
    backbones = ["llava-med-1.5"]
    seeds = "0-4"
    data = "DIR"

What differs between parts of a sweep stands in `[[grid]]` tables; the keys above them hold for all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any

from medbench import spec
from medbench.cell import Request
from medbench.errors import UserError
from medbench.grid import seeds_in
from medbench.toml_file import TomlFile

_AXES = ("methods", "tasks", "backbones", "seeds")
_RAY = {"cpus": 1.0, "gpus": 1.0}


@dataclass(frozen=True)
class Sweep:
    """What a file asks for.

    Attributes:
        requests: one a cell, sorted so that those that share a backbone follow each other, and
            within it those that share a task.
        cpus, gpus: that one of them takes of a cluster; GPUs only where the cluster has some.
    """

    requests: tuple[Request, ...]
    cpus: float
    gpus: float


def read(path: Path, out: Path) -> Sweep:
    """Read a sweep's file.

    Args:
        out: where run folders go.

    Raises:
        UserError: it is no such file, a name is unknown, or a value makes no sense.
    """
    file = TomlFile(path, "A sweep")
    options = _options()
    shared = {key: value for key, value in file.content.items() if key not in ("grid", "ray")}
    file.check("a sweep", file.content, (*_AXES, *options, "grid", "ray"))
    grids = file.tables("grid", file.content) or [{}]
    for grid in grids:
        file.check("a grid", grid, (*_AXES, *options))
    requests = [one for grid in grids for one in _requests(file, {**shared, **grid}, out)]
    needs = _resources(file)
    return Sweep(_together(requests), needs["cpus"], needs["gpus"])


def _options() -> dict[str, type]:
    """Return the options of a run that a file may set, and of what type each is."""
    axes = ("method", "task", "backbone", "seed", "out")
    return {
        one.name: int if one.default is None else type(one.default)
        for one in fields(Request)
        if one.name not in axes
    }


def _requests(file: TomlFile, grid: Mapping[str, Any], out: Path) -> list[Request]:
    for axis in ("methods", "tasks", "backbones"):
        if not grid.get(axis):
            raise file.error(f"a grid lacks '{axis}'", f'Write {axis} = ["NAME", ...].')
    methods, tasks, backbones = (
        [one for text in file.texts(axis, grid, ()) for one in spec.parse_list(text)]
        for axis in ("methods", "tasks", "backbones")
    )
    for method in methods:
        file.check_chain(method)
    for task in tasks:
        file.check_spec("task", task)
    for backbone in backbones:
        file.check_spec("backbone", backbone)
    options = {key: grid[key] for key in _options() if key in grid}
    for key, value in options.items():
        if type(value) is not _options()[key]:
            raise file.error(f"{key} cannot be {value!r}", f"It is {_options()[key].__name__}.")
    return [
        Request(method=method, task=task, backbone=backbone, seed=seed, out=out, **options)
        for backbone, task, method, seed in product(backbones, tasks, methods, _seeds(file, grid))
    ]


def _seeds(file: TomlFile, grid: Mapping[str, Any]) -> list[int]:
    value = grid.get("seeds", "0")
    if isinstance(value, list):
        value = ",".join(map(str, value))
    try:
        return seeds_in(str(value))
    except UserError as error:
        raise file.error(error.what, 'Write seeds = "0-4", or [0, 1, 2].') from error


def _resources(file: TomlFile) -> dict[str, float]:
    asked = file.content.get("ray", {})
    if not isinstance(asked, dict):
        raise file.error("'ray' is no table", "Write [ray].")
    file.check("ray", asked, tuple(_RAY))
    for key, value in asked.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise file.error(f"{key} cannot be {value!r}", "It is a number, 0 or more.")
    return {**_RAY, **{key: float(value) for key, value in asked.items()}}


def _together(requests: list[Request]) -> tuple[Request, ...]:
    """Return each request once, next to those of the same backbone and task."""
    backbones = {one.backbone: place for place, one in reversed(list(enumerate(requests)))}
    tasks = {one.task: place for place, one in reversed(list(enumerate(requests)))}
    return tuple(
        sorted(dict.fromkeys(requests), key=lambda one: (backbones[one.backbone], tasks[one.task]))
    )
