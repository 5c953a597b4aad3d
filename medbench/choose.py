"""Which runs are meant: by folder, by key, or by the method that made them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medbench import canonical, plugins, spec, store
from medbench.counting import counted
from medbench.differences import differences
from medbench.errors import UserError
from medbench.run_index import find_runs
from medbench.store import RunRecord

_FINISHED = ("complete", "partial")


@dataclass(frozen=True)
class Side:
    """Runs that differ in nothing but the seed.

    Attributes:
        name: what to call them.
        runs: sorted by seed, one a seed.
    """

    name: str
    runs: tuple[RunRecord, ...]


def find(names: Sequence[str], root: Path) -> list[Path]:
    """Return the run folders that are meant, in the order given.

    Args:
        names: run folders, folders that hold some, or keys of runs below `root`.
        root: folder of the runs.

    Raises:
        UserError: a name is none of these, or a run has answers left to give.
    """
    found = [folder for name in names for folder in _meant(name, root)]
    for folder in found:
        if store.read_scores(folder) is None:
            raise _unfinished(folder)
    return list(dict.fromkeys(found))


def side(word: str, root: Path, records: Iterable[RunRecord] | None = None) -> Side:
    """Return the runs that a word names, which differ by their seeds only.

    Args:
        word: a run's folder, a folder that holds some, a key, or a method or chain.
        root: folder of the runs, for keys and methods.
        records: where a method is looked for; all runs below `root` by default.

    Raises:
        UserError: there are no such runs, none is finished, or they are not of one kind.
    """
    folder = Path(word).expanduser()
    if (folder / store.RUN).is_file() or folder.is_dir():
        named = [store.read_record(path) for path in find([word], root)]
    else:
        every = list(find_runs(root) if records is None else records)
        named = _of_method(word, every) or [one for one in every if one.key.startswith(word)]
        named = named or _broken(word, root, every)
    finished = [one for one in named if one.state in _FINISHED]
    if not finished:
        store.read_run(named[0].folder)  # says what is broken, if something is
        raise _unfinished(named[0].folder)
    return Side(_name(word, finished), _one_kind(word, finished))


def sides(
    words: Sequence[str], root: Path, *, task: str = "", backbone: str = "", preset: str = ""
) -> list[Side]:
    """Return the runs that each word names.

    Args:
        words: as for `side`.
        root: folder of the runs, for keys and methods.
        task, backbone, preset: narrow which methods are meant; "" for any.

    Raises:
        UserError: a word names no runs, none that is finished, or runs of several kinds.
    """
    records: list[RunRecord] = []
    if not all(Path(word).expanduser().is_dir() for word in words):
        every = find_runs(root)
        records = _narrowed(every, task=task, backbone=backbone, preset=preset)
        # Who writes a key has said which run is meant.
        known = {one.folder for one in records}
        keys = tuple(words)
        records += [one for one in every if one.key.startswith(keys) and one.folder not in known]
    return [side(word, root, records) for word in words]


def _narrowed(
    records: Sequence[RunRecord], *, task: str, backbone: str, preset: str
) -> list[RunRecord]:
    """Return the runs of a task, a backbone and a preset.

    Raises:
        UserError: there are runs, but none of these.
    """
    options: tuple[tuple[str, str, Callable[[str], str]], ...] = (
        ("task", task, canonical.task),
        ("backbone", backbone, canonical.backbone),
        ("preset", preset, spec.normalise),
    )
    kept = [one for one in records if one.state != "broken"]
    for name, asked, written_out in options:
        if not asked or not kept:
            continue
        wanted = written_out(asked)
        found = [one for one in kept if written_out(getattr(one, name)) == wanted]
        if not found:
            there = sorted({str(getattr(one, name)) for one in kept})
            raise UserError(
                f"no runs of {name} '{asked}'",
                plugins.close(asked, there) or f"None of {counted(len(kept), 'run')} is.",
                f"There are runs of: {', '.join(there)}.",
            )
        kept = found
    return kept


def _of_method(word: str, records: Sequence[RunRecord]) -> list[RunRecord]:
    try:
        return [
            one
            for one in records
            if one.method
            and canonical.method(one.method, one.task) == canonical.method(word, one.task)
        ]
    except UserError:  # no spec: a key, or a path that is not there
        return []


def _broken(word: str, root: Path, records: Sequence[RunRecord]) -> list[RunRecord]:
    """Return the runs of a key that are not among the records, since they cannot be read."""
    folders = _folders(word, root)
    if not folders:
        close = plugins.close(word, {one.method for one in records if one.method})
        raise UserError(
            f"no run at '{word}'",
            close or f"It is no folder of runs, no key, and no method that has runs in {root}.",
            "See: medbench list runs",
        )
    return [store.read_record(path) for path in folders]


def _name(word: str, runs: Sequence[RunRecord]) -> str:
    methods = {one.method for one in runs}
    return methods.pop() if len(methods) == 1 else word


def _one_kind(word: str, runs: Sequence[RunRecord]) -> tuple[RunRecord, ...]:
    """Return runs sorted by seed.

    Raises:
        UserError: they differ in more than the seed, or two have the same seed.
    """
    facts = differences([one.identity for one in runs])
    if facts:
        shown = "; ".join(
            f"{path}: {' or '.join(dict.fromkeys(values))}" for path, values in facts.items()
        )
        raise UserError(
            f"'{word}' names runs of several kinds",
            f"They differ in {shown}.",
            "Narrow them by --task, --backbone or --preset, or name folders.",
        )
    seeds: dict[int, list[RunRecord]] = defaultdict(list)
    for one in runs:
        seeds[one.seed].append(one)
    double = next((same for same in seeds.values() if len(same) > 1), None)
    if double:
        raise UserError(
            f"'{word}' names two runs of seed {double[0].seed}",
            f"They are {double[0].folder} and {double[1].folder}.",
            "Name the folder that is meant.",
        )
    return tuple(sorted(runs, key=lambda one: one.seed))


def _unfinished(folder: Path) -> UserError:
    return UserError(
        f"{folder} is not finished",
        "Some of its samples have no answer, and its score would be of the others.",
        f"Go on with it: {store.read_run(folder).get('command', 'medbench run ...')}",
    )


def _meant(name: str, root: Path) -> list[Path]:
    found = _folders(name, root)
    if not found:
        raise UserError(
            f"no run at '{name}'",
            f"It is no run's folder, holds none, and is no key of a run in {root}.",
            "See: medbench list runs",
        )
    return found


def _folders(name: str, root: Path) -> list[Path]:
    """Return the run folders that a path or the beginning of a key names; there may be none."""
    folder = Path(name).expanduser()
    if (folder / store.RUN).is_file():
        return [folder]
    below = sorted(path.parent for path in folder.rglob(store.RUN)) if folder.is_dir() else []
    if below:
        return below
    found = sorted(path.parent for path in root.glob(f"*/*/*/{name}*/{store.RUN}"))
    if len(found) > 1:
        raise UserError(
            f"'{name}' may be any of {len(found)} runs",
            f"Among them {found[0]} and {found[1]}.",
            "Write more of the key, or name the folder.",
        )
    return found
