"""Which copy of a data set lies in the data folder: the official one before any mirror."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from medbench.data.find import find_file
from medbench.data.parquet import Table, find_table
from medbench.errors import UserError
from medbench.task import Edition, Task


def find_copy(
    task: Task,
    split: str,
    official: Sequence[str],
    folders: Sequence[str],
    *,
    conversions: Mapping[str, Sequence[str]] | None = None,
    notes: Mapping[str, str],
    look_alike: Callable[[UserError], UserError] = lambda missing: missing,
) -> tuple[Edition, Table | None]:
    """Return the edition in a task's data folder, and its table if it is one of tables.

    Args:
        task: its `data` is the folder.
        split: whose files are looked for.
        official: names of the official file.
        folders: names of sub-folders to look into, as `find_file` does.
        conversions: for other editions, in order, the names of their file.
        notes: what a reader of an edition's scores must know. Tables are "huggingface".
        look_alike: turns the error of a folder that holds none of them into one that says what it
            holds instead.

    Raises:
        UserError: the folder holds none of them, and the message asks for the official file; or
            a table's shards are missing or broken.
    """
    try:
        return Edition(files=(find_file(task, official, folders),)), None
    except UserError as error:
        missing = error
    for name, files in (conversions or {}).items():
        with suppress(UserError):
            return Edition(name, (find_file(task, files, folders),), notes[name]), None
    table = find_table(task, split, folders)
    if table is None:
        raise look_alike(missing) from missing
    return Edition("huggingface", table.files, notes["huggingface"]), table
