"""The runs that a check is about: found, matched with the baseline's cells, or refused."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medbench import plugins, spec, store
from medbench.cell import Request
from medbench.checking.baseline import Baseline, Entry
from medbench.checking.entry import PLUGINS, apart, entry_of, file_of, key_parts, name_of
from medbench.choose import find
from medbench.counting import counted
from medbench.errors import UserError
from medbench.items import Items
from medbench.run_index import find_runs
from medbench.store import RunRecord

_FINISHED = ("complete", "partial")


@dataclass(frozen=True)
class Found:
    """A finished run: what of it a baseline keeps, and its answers as numbers."""

    folder: Path
    entry: Entry
    items: Items


@dataclass(frozen=True)
class _Listed:
    """A run below the folder of runs, before its answers are read; name and key as in `Entry`."""

    record: RunRecord
    name: str
    key: Mapping[str, Any]

    @classmethod
    def of(cls, record: RunRecord) -> _Listed:
        shown = {"method": record.method, "task": record.task, "backbone": record.backbone}
        return cls(record, name_of(shown, record.identity), key_parts(record.identity, shown))


def named(names: Sequence[str], root: Path) -> Iterator[Found | UserError]:
    """Yield the runs that are named; one that cannot be read is told and keeps none from it.

    Args:
        names: run folders, folders that hold some, or keys of runs below `root`.
    """
    folders: dict[Path, None] = {}
    for name in names:
        folder = Path(name).expanduser()
        inside = sorted(path.parent for path in folder.rglob(store.RUN)) if folder.is_dir() else []
        for one in inside or [name]:
            try:
                folders |= dict.fromkeys(find([str(one)], root))
            except UserError as error:
                yield error
    for folder in folders:
        yield _read(store.read_record(folder))


def of_cells(baseline: Baseline, root: Path, against: Path) -> Iterator[Found | UserError]:
    """Yield the run of each of the baseline's cells, or why there is none.

    Where no run has the cell's key, it is one of the cell's name.
    """
    records = find_runs(root)
    listed = [_Listed.of(one) for one in records if one.state != "broken"]
    broken = len(records) - len(listed)
    for entry in baseline.entries.values():
        same = [one.record for one in listed if one.key == entry.key]
        unlike = [one for one in listed if one.name == entry.name and one.key != entry.key]
        run = _latest(same) or _latest([one.record for one in unlike])
        if run:
            yield _read(run)
        elif same:
            yield _not_ready(entry, same, root)
        elif unlike:
            latest = unlike[-1]
            yield _unlike_key(entry, latest.record.folder, latest.key, against, root)
        else:
            there = f"; {broken} there cannot be read, see: medbench list runs" if broken else ""
            yield UserError(
                f"{entry.name}: no run",
                f"None in {root} is of this cell{there}.",
                f"Make it: {_command(entry, root)}",
            )


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


def keeping(folder: Path, against: Path) -> str:
    """Return the command that takes a run into a baseline."""
    words = ["medbench", "check", plugins.shown(folder), "--against", str(against), "--update"]
    return shlex.join(words)


def _latest(runs: Sequence[RunRecord]) -> RunRecord | None:
    """Return the latest finished run that was made by the plugins as they are.

    One of an earlier source would pass whatever the source does by now.
    """
    ready = [one for one in runs if one.state in _FINISHED and not _changed_since(one.identity)]
    return max(ready, key=lambda one: store.read_run(one.folder).get("started", ""), default=None)


def _not_ready(entry: Entry, same: Sequence[RunRecord], root: Path) -> UserError:
    """Say why none of a cell's runs can be taken."""
    for one in same:
        if one.state not in _FINISHED:
            return UserError(
                f"{entry.name}: not finished",
                f"{one.done} of {one.total} samples are answered in {one.folder}.",
                f"Go on with it: {one.command}",
            )
    latest = same[-1]
    return UserError(
        f"{entry.name}: no run of the present source",
        f"{_changed_since(latest.identity)} has changed since {latest.folder} was made.",
        f"Make one: {_command(entry, root)}; or name that run to compare it all the same.",
    )


def _changed_since(identity: Mapping[str, Any]) -> str:
    """Return the file of a plugin that is no longer what a run was made by, or ""."""
    for part, kind in PLUGINS.items():
        made_by: Mapping[str, Any] = identity.get(part) or {}
        try:
            if made_by["source"] != plugins.source_hash(plugins.get(kind, made_by["name"])):
                return file_of(kind, made_by["name"])
        except (KeyError, UserError):  # another program's, or one that is gone
            continue
    return ""


def _read(record: RunRecord) -> Found | UserError:
    """Return a finished run, or why it cannot be compared."""
    folder = plugins.shown(record.folder)
    again = "Delete it and run it again."
    if record.state not in _FINISHED:
        try:
            store.read_run(record.folder)
        except UserError as error:  # knows what to do
            return error
        return UserError(f"{folder} is broken", f"{record.why}.", again)
    if record.missing_images:
        return UserError(
            f"{folder} is a part of a run",
            f"{counted(record.missing_images, 'sample')} lacked an image or an answer.",
            "Complete the data, and run it again.",
        )
    try:
        entry, items = entry_of(record.folder)
    except UserError as error:
        # Without its scores the run is one to go on with.
        do = f"Delete that line and {folder}/{store.SCORES}, then go on: {record.command}"
        return UserError(error.what, error.why, do)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        why = f"It lacks {error}." if isinstance(error, KeyError) else f"{error}."
        return UserError(f"{folder} is broken", why, again)
    if items.samples.size != record.total:
        return UserError(
            f"{folder} is broken",
            f"{store.SAMPLES} has {items.samples.size} of its {record.total} answers.",
            again,
        )
    if not entry.scores:
        do = f"medbench rescore {shlex.quote(folder)} --metric ..."
        return UserError(f"{folder} has no score", "There is nothing to compare.", do)
    return Found(record.folder, entry, items)


def _unlike_key(
    then: Entry, folder: Path, key: Mapping[str, Any], against: Path, root: Path
) -> UserError:
    return UserError(
        f"{then.name}: cannot be compared",
        f"From baseline to {plugins.shown(folder)}, {'; '.join(apart(then.key, key))}.",
        f"Go back to what was and run {_command(then, root)}; "
        f"or keep this run: {keeping(folder, against)}",
    )


def _command(entry: Entry, root: Path) -> str:
    """Return the command that makes a run of a cell; a folder of data is `DIR`."""
    key, shown = entry.key, entry.run
    if "imported" in key:
        words = ["import", "FILE", *(word for part in shown for word in (f"--{part}", shown[part]))]
        return shlex.join(["medbench", *words])
    backbone: Mapping[str, Any] = key.get("backbone", {})
    return Request(
        method=shown["method"],
        task=shown["task"],
        backbone=shown["backbone"],
        data="DIR" if _reads_files(shown["task"]) else "",
        seed=key["seed"],
        limit=key["limit"],
        batch_size=key.get("batch_size"),
        device=backbone.get("device", "auto"),
        dtype=backbone.get("dtype", "auto"),
        preset=key["preset"],
        out=root,
    ).command


def _reads_files(task: str) -> bool:
    try:
        # Tasks without files have examples in their source.
        return not plugins.get("task", spec.parse(task).name).attributes.get("examples")
    except UserError:
        return False
