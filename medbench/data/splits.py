"""Splits of our own where authors published sizes but no ids, and lists that a user has.

Our rules go by image, so that no image is in both splits, and by nothing but sha256 and the names
in the files: they are the same on every machine, for ever, and need no seed.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from medbench.data.read import read_json
from medbench.digests import sha256_of
from medbench.errors import UserError
from medbench.task import Edition, Sample, Task

SPLITS = ("train", "test")
# What a passport calls both splits together, where only the size of the whole is known.
WHOLE = "train and test"
_HASH_LENGTH = 8


def draw(task: str, group: str) -> int:
    """Return the number that a rule goes by: sha256 of "medbench TASK GROUP"."""
    return int(hashlib.sha256(f"medbench {task} {group}".encode()).hexdigest(), 16)


def read_own_split(path: Path) -> dict[str, tuple[str, ...]]:
    """Read a split that comes with medbench: split -> names, in their order."""
    content = read_json(path)
    return {key: tuple(names) for key, names in content.items() if isinstance(names, list)}


def check_split(task: Task, split: str) -> None:
    """Make sure that a split is one of the two.

    Raises:
        UserError: it is not.
    """
    if split not in SPLITS:
        raise UserError(
            f"{task.name} has no split '{split}'",
            "Its questions are divided into train and test only.",
            "Ask for one of these; a validation split is up to you.",
        )


def split_edition(source: str, files: Sequence[Path], note: str, split_file: str) -> Edition:
    """Return the edition of questions that are divided by our rule or by a user's file.

    Args:
        source: where the questions come from, e.g. "cares".
        note: what a reader must know of our rule.
        split_file: the user's file, "" for none; its hash stands in the name.

    Raises:
        UserError: the user's file cannot be read.
    """
    if not split_file:
        return Edition(f"{source}-7-3", tuple(files), note)
    path = Path(split_file).expanduser()
    mark = sha256_of([path])[path][:_HASH_LENGTH]
    note = "The split is a list of the user's (split_file), which medbench cannot check."
    return Edition(f"{source}-split_file-{mark}", (*files, path), note)


def take_split(
    task: Task,
    split: str,
    samples: Sequence[Sample],
    rule: Callable[[Sample], str],
    split_file: str,
) -> list[Sample]:
    """Return the samples of a split, in the order given.

    Args:
        samples: those of both splits.
        rule: our own, sample -> split.
        split_file: the user's instead; "" for none.

    Raises:
        UserError: the user's file does not fit the samples.
    """
    if not split_file:
        return [sample for sample in samples if rule(sample) == split]
    listed = read_split_file(task, split_file, [sample.id for sample in samples])[split]
    return [sample for sample in samples if sample.id in listed]


def read_split_file(task: Task, path: str, ids: Sequence[str]) -> dict[str, frozenset[str]]:
    """Read a user's split: {"train": [...], "test": [...]}.

    Args:
        path: a JSON file; its lists hold row numbers from 0, or ids with or without the task's
            name before them.
        ids: of the samples of both splits, in the order of their rows.

    Raises:
        UserError: the file is of another form, or names a row that is not there or comes twice.
    """
    file = Path(path).expanduser()
    content = read_json(file)
    lists = [content.get(split) if isinstance(content, dict) else None for split in SPLITS]
    if not all(isinstance(one, list) and one for one in lists):
        raise UserError(
            f"{file} is no split",
            'It must hold {"train": [...], "test": [...]} with ids or row numbers.',
            "Write both lists, or leave split_file out.",
        )
    known = set(ids)
    found = [
        [_id(task, file, entry, ids, known) for entry in cast("list[Any]", one)] for one in lists
    ]
    name, count = Counter(name for one in found for name in one).most_common(1)[0]
    if count > 1:
        raise UserError(
            f"{file} names {name} {count} times",
            "A question belongs to one split, once.",
            "Correct the lists.",
        )
    return {split: frozenset(one) for split, one in zip(SPLITS, found, strict=True)}


def _id(task: Task, file: Path, entry: object, ids: Sequence[str], known: set[str]) -> str:
    """Return the id that an entry of a user's list means."""
    if isinstance(entry, int) and not isinstance(entry, bool) and 0 <= entry < len(ids):
        return ids[entry]
    if isinstance(entry, str):
        name = entry if entry in known else f"{task.name}-{entry}"
        if name in known:
            return name
    raise UserError(
        f"{file} names {entry!r}, which {task.name} does not have",
        f"It has {len(ids)} rows, numbered from 0; the first id is {ids[0]}.",
        "Correct the list, or the data folder.",
    )
