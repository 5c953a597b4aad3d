"""The runs that a check is about: found, matched with the baseline's cells, or refused."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medbench import plugins, spec, store
from medbench.baseline import Baseline, Entry
from medbench.baseline_entry import PLUGINS, apart, entry_of, file_of, key_parts, name_of
from medbench.cell import EXACT_BATCH, SAFE_BATCH, Request
from medbench.choose import find
from medbench.counting import counted
from medbench.errors import UserError
from medbench.items import Items
from medbench.store import RunRecord

_FINISHED = ("complete", "partial")
_DTYPES = {"cpu": "float32", "cuda": "bfloat16"}  # that "auto" stands for
# What needs no folder though it has such a parameter.
_IN_THE_BOX = ("phantom", "phantom_report")


@dataclass(frozen=True)
class Found:
    """A finished run: what of it a baseline keeps, and its answers as numbers."""

    folder: Path
    key: str
    entry: Entry
    items: Items


@dataclass(frozen=True)
class _Listed:
    """A run below the folder of runs, before its answers are read.

    Attributes:
        name, key: as a baseline would keep them.
        changed: file of a plugin that is no longer what the run was made by; "" for none.
    """

    record: RunRecord
    name: str
    key: Mapping[str, Any]
    changed: str


def named(names: Sequence[str], root: Path) -> Iterator[Found | UserError]:
    """Yield the runs that are named; one that cannot be read is told and keeps none from it."""
    folders: dict[Path, None] = {}
    for name in names:
        folder = Path(name).expanduser()
        inside: list[Path] = []
        if folder.is_dir() and not (folder / store.RUN).is_file():
            inside = sorted(path.parent for path in folder.rglob(store.RUN))
        for one in inside or [name]:
            try:
                folders |= dict.fromkeys(find([str(one)], root))
            except UserError as error:
                yield error
    for folder in folders:
        yield _read(folder, store.read_record(folder))


def of_cells(
    baseline: Baseline, root: Path, against: Path, *, anew: bool = False
) -> Iterator[Found | UserError]:
    """Yield the run of each of the baseline's cells, or why there is none.

    Args:
        anew: take a run of the cell's name even if it is another run than the baseline's.
    """
    records = store.find_runs(root)
    hashes: dict[tuple[plugins.Kind, str], str] = {}
    listed = [_listed(one, hashes) for one in records if one.state != "broken"]
    broken = len(records) - len(listed)
    for entry in baseline.entries.values():
        one = _run_of(entry, listed, against=against, root=root, anew=anew)
        if one is None:
            there = f"; {broken} there cannot be read, see: medbench list runs" if broken else ""
            one = UserError(
                f"{entry.name}: no run",
                f"None in {root} is of this cell{there}.",
                f"Make it: {command_of(entry, root)}",
            )
        yield one if isinstance(one, UserError) else _read(one.folder, one)


def match(entry: Entry, baseline: Baseline) -> Entry | None:
    """Return the baseline's cell of a run: the same key, or else the same name."""
    same = [one for one in baseline.entries.values() if one.key == entry.key]
    return same[0] if same else baseline.entries.get(entry.name)


def unlike(now: Found, baseline: Baseline, against: Path, root: Path) -> UserError:
    """Say why a run has nothing to be compared with."""
    entry = now.entry
    if entry.name in baseline.entries:
        then = baseline.entries[entry.name]
        return _unlike_key(then, now.folder, entry.key, against, root)
    near = min(baseline.entries.values(), key=lambda one: len(apart(one.key, entry.key)))
    first, *more = apart(near.key, entry.key)
    others = f" and {len(more)} more" if more else ""
    return UserError(
        f"{plugins.shown(now.folder)}: not in {against}",
        f"It is {entry.name}; nearest there is {near.name} ({first}{others}).",
        f"Add it: {keeping(now.folder, against)}",
    )


def no_score(now: Found, metric: str) -> UserError:
    """Say that a run lacks a score, and why."""
    content = store.read_scores(now.folder) or {}
    what, *_ = content.get("unscored", {}).get(metric, ("The run was not scored by it",))
    return UserError(
        f"{now.entry.name}: no score {metric}",
        f"{what}.",
        f"medbench rescore {shlex.quote(plugins.shown(now.folder))} --metric {shlex.quote(metric)}",
    )


def command_of(entry: Entry, root: Path) -> str:
    """Return the command that makes a run of a cell; folders of weights and data are `DIR`."""
    key, shown = entry.key, entry.run
    if "imported" in key:
        words = ["import", "FILE", *(w for p in shown for w in (f"--{p}", shown[p]))]
        return shlex.join(["medbench", *words])
    backbone: Mapping[str, Any] = key.get("backbone", {})
    device, dtype = backbone.get("device", "auto"), backbone.get("dtype", "auto")
    batch = key.get("batch_size")
    return Request(
        method=shown["method"],
        task=shown["task"],
        backbone=_with_weights(shown["backbone"]),
        data="DIR" if _needs_files(shown["task"]) else "",
        seed=key["seed"],
        limit=key["limit"],
        batch_size=None if batch == (EXACT_BATCH if dtype == "float32" else SAFE_BATCH) else batch,
        device=device,
        dtype="auto" if dtype == _DTYPES.get(device) else dtype,
        preset=key["preset"],
        out=root,
    ).command


def keeping(folder: Path, against: Path) -> str:
    """Return the command that takes a run into a baseline."""
    words = ["medbench", "check", plugins.shown(folder), "--against", str(against), "--update"]
    return shlex.join(words)


def _listed(record: RunRecord, hashes: dict[tuple[plugins.Kind, str], str]) -> _Listed:
    shown = {"method": record.method, "task": record.task, "backbone": record.backbone}
    return _Listed(
        record,
        name_of(shown, record.identity),
        key_parts(record.identity, shown),
        _changed_since(record.identity, hashes),
    )


def _run_of(
    entry: Entry, listed: Sequence[_Listed], *, against: Path, root: Path, anew: bool
) -> RunRecord | UserError | None:
    """Return a cell's latest run that was made by the plugins as they are, or why there is none.

    A run of an earlier source would pass whatever the source does by now.
    """
    same = [one for one in listed if one.key == entry.key]
    called = [one for one in listed if one.name == entry.name and one.key != entry.key]
    ready = _latest(same) or (_latest(called) if anew else None)
    if ready:
        return ready
    if other := _latest(called):
        key = next(one.key for one in called if one.record is other)
        return _unlike_key(entry, other.folder, key, against, root)
    unfinished = [one.record for one in same if one.record.state not in _FINISHED]
    if unfinished:
        record = unfinished[-1]
        return UserError(
            f"{entry.name}: not finished",
            f"{record.done} of {record.total} samples are answered in {record.folder}.",
            f"Go on with it: {store.read_run(record.folder).get('command', 'medbench run ...')}",
        )
    if same:
        one = same[-1]
        return UserError(
            f"{entry.name}: no run of the present source",
            f"{one.changed} has changed since {one.record.folder} was made.",
            f"Make one: {command_of(entry, root)}; or name that run to compare it all the same.",
        )
    if called:
        one = called[-1]
        return _unlike_key(entry, one.record.folder, one.key, against, root)
    return None


def _latest(runs: Sequence[_Listed]) -> RunRecord | None:
    """Return the latest finished run of the present source."""
    ready = [one.record for one in runs if one.record.state in _FINISHED and not one.changed]
    return max(ready, key=lambda one: store.read_run(one.folder).get("started", ""), default=None)


def _changed_since(identity: Mapping[str, Any], hashes: dict[tuple[plugins.Kind, str], str]) -> str:
    """Return the file of a plugin that is no longer what a run was made by, or ""."""
    for part, kind in PLUGINS.items():
        made_by: Mapping[str, Any] = identity.get(part) or {}
        if "source" not in made_by:
            continue
        name = kind, str(made_by["name"])
        if name not in hashes:
            try:
                hashes[name] = plugins.source_hash(plugins.get(*name))
            except UserError:  # it is gone
                hashes[name] = ""
        if hashes[name] not in ("", made_by["source"]):
            return file_of(*name)
    return ""


def _read(folder: Path, record: RunRecord) -> Found | UserError:
    """Return a finished run, or why it cannot be compared."""
    if record.state not in _FINISHED:
        return UserError(f"{folder} is broken", f"{record.why}.", "Delete it and run it again.")
    if record.missing_images:
        return UserError(
            f"{folder} is a part of a run",
            f"{counted(record.missing_images, 'sample')} lacked an image or an answer.",
            "Complete the data, and run it again.",
        )
    try:
        entry, items = entry_of(folder)
        if items.samples.size != record.total:
            raise UserError(
                f"{folder} is broken",
                f"{store.SAMPLES} has {items.samples.size} of its {record.total} answers.",
                "Delete it and run it again.",
            )
    except UserError as error:
        return error
    except (KeyError, TypeError) as error:
        return UserError(f"{folder} is broken", f"It lacks {error}.", "Delete it and run it again.")
    if not entry.scores:
        do = f"medbench rescore {shlex.quote(plugins.shown(folder))} --metric ..."
        return UserError(f"{folder} has no score", "There is nothing to compare.", do)
    return Found(folder, record.key, entry, items)


def _unlike_key(
    then: Entry, folder: Path, key: Mapping[str, Any], against: Path, root: Path
) -> UserError:
    return UserError(
        f"{then.name}: cannot be compared",
        f"From baseline to run, {'; '.join(apart(then.key, key))}.",
        f"Run {command_of(then, root)}; or keep this run: {keeping(folder, against)}",
    )


def _with_weights(backbone: str) -> str:
    one = spec.parse(backbone)
    try:
        weights = plugins.get("backbone", one.name).parameter("weights")
    except UserError:
        return backbone
    if weights is None or weights.default != "" or one.name in _IN_THE_BOX:
        return backbone
    return str(replace(one, values=(*one.values, ("weights", "DIR"))))


def _needs_files(task: str) -> bool:
    try:
        plugin = plugins.get("task", spec.parse(task).name)
    except UserError:
        return False
    return bool(plugin.attributes.get("passport")) and plugin.name not in _IN_THE_BOX
