"""Which runs stand side by side on the page, and whether they may."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from medbench import choose, store
from medbench.counting import counted
from medbench.errors import UserError
from medbench.rows import Row
from medbench.store import RunRecord
from medbench.verdict import RULES

# Columns beyond these could not be read side by side.
_MOST = 12
_TEXTS = ("kind", "question", "gold")


@dataclass(frozen=True)
class Chosen:
    """A run of the page.

    Attributes:
        name: what the page calls it.
        run, rows: its answers by sample, in its order.
        seeds: of the runs that were meant, of which this is the first.
    """

    name: str
    run: RunRecord
    rows: Mapping[str, Row]
    seeds: tuple[int, ...]


def find(
    words: Sequence[str], root: Path, *, task: str = "", backbone: str = "", preset: str = ""
) -> tuple[Chosen, ...]:
    """Return the runs that are meant, each once, with their answers.

    Args:
        words: run folders, finished or not; or what `medbench.choose.sides` takes, of which the
            first seed counts.
        root: folder of the runs, for keys and methods.
        task, backbone, preset: narrow which methods are meant; "" for any.

    Raises:
        UserError: there are no such runs, one is broken, or they are not of the same samples.
    """
    folders = [word for word in words if (Path(word).expanduser() / store.RUN).is_file()]
    others = [word for word in dict.fromkeys(words) if word not in folders]
    sides = choose.sides(others, root, task=task, backbone=backbone, preset=preset)
    meant = dict(zip(others, (side.runs for side in sides), strict=True))
    meant |= {word: (_of_folder(Path(word).expanduser()),) for word in folders}
    firsts = {meant[word][0].folder.resolve(): meant[word] for word in words}
    if len(firsts) > _MOST:
        raise UserError(
            f"{len(firsts)} runs are too many for one page",
            f"Up to {_MOST} stand side by side.",
            "Name fewer, or write several pages: --output FILE",
        )
    found = [_read(runs) for runs in firsts.values()]
    for other in found[1:]:
        _check(found[0], other)
    return _named(found)


def _of_folder(folder: Path) -> RunRecord:
    """Return the run of a folder, finished or not.

    Raises:
        UserError: it is broken.
    """
    record = store.read_record(folder)
    if record.state == "broken":
        store.read_run(folder)  # these say what is broken, if a file is
        store.read_scores(folder)
        raise UserError(f"cannot read {folder}", f"{record.why}.", "Run it again.")
    return record


def _read(runs: Sequence[RunRecord]) -> Chosen:
    """Return the first of some runs, with its answers.

    Raises:
        UserError: a line is broken.
    """
    one = runs[0]
    rows = store.read_rows(one.folder)
    if one.state == "unfinished":
        rows = _by_rules(one.folder, rows)
    seeds = tuple(run.seed for run in runs)
    return Chosen(one.method, one, {row["id"]: row for row in rows}, seeds)


def _by_rules(folder: Path, rows: Sequence[Row]) -> list[Row]:
    """Return answers that nobody scored yet, with the scores that say right or wrong."""
    from medbench.scoring import load_metric, measure, with_scores

    metrics = cast("list[str]", store.read_run(folder).get("metrics", []))
    wanted = [load_metric(name) for name in RULES.values() if name in metrics]
    return with_scores(rows, {metric.full_name: measure(metric, rows) for metric in wanted})


def _check(one: Chosen, other: Chosen) -> None:
    """Make sure that two runs answered samples of the same task and texts.

    Raises:
        UserError: they did not.
    """
    tasks = [run.identity["task"]["name"] for run in (one.run, other.run)]
    if tasks[0] != tasks[1]:
        raise UserError(
            "the runs are of different tasks",
            f"{one.run.folder} is of {tasks[0]}, {other.run.folder} of {tasks[1]}.",
            "Narrow them by --task, or name folders of one task.",
        )
    shared = one.rows.keys() & other.rows.keys()
    if one.rows and other.rows and not shared:
        raise UserError(
            "the runs share no samples",
            f"No id of {one.run.folder} is among those of {other.run.folder}.",
            "Name runs on the same data.",
        )
    unlike = sum(
        any(one.rows[name].get(text) != other.rows[name].get(text) for text in _TEXTS)
        for name in shared
    )
    if unlike:
        raise UserError(
            "the runs read different data",
            f"{unlike} of {counted(len(shared), 'sample')} of one id have other questions or golds "
            f"in {one.run.folder} than in {other.run.folder}.",
            "Name runs on the same data.",
        )


def _named(found: Sequence[Chosen]) -> tuple[Chosen, ...]:
    """Return runs called by their methods, and by more of what they are where that is not enough.

    Args:
        found: runs called by their methods.
    """
    names = [
        [one.name, f"seed {one.run.seed}"] if one.run.seed or len(one.seeds) > 1 else [one.name]
        for one in found
    ]
    for part in ("preset", "backbone", "key"):
        told = [str(getattr(one.run, part)) for one in found]
        differ: dict[str, set[str]] = defaultdict(set)
        for name, text in zip(names, told, strict=True):
            differ[str(name)].add(text)
        names = [
            [*name, text] if len(differ[str(name)]) > 1 else name
            for name, text in zip(names, told, strict=True)
        ]
    return tuple(
        replace(one, name=f"{method} ({', '.join(more)})" if more else method)
        for one, (method, *more) in zip(found, names, strict=True)
    )
