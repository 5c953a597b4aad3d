"""Finding a task's official files, with errors a user can act on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from medbench.errors import UserError
from medbench.task import Task


def find_file(task: Task, names: Sequence[str], folders: Sequence[str]) -> Path:
    """Return the first file called one of `names`, in the task's data folder or just below it.

    Args:
        task: its `data` is the folder; its name and source stand in the error.
        names: accepted file names, the official one first.
        folders: names of sub-folders to look into, two levels deep; case does not matter.

    Raises:
        UserError: no folder was given, it does not exist, or no such file is in it.
    """
    wanted = " or ".join(names)
    if not task.data:
        raise UserError(
            f"{task.name}: no data folder given",
            f"It needs the official files; looked for {wanted}.",
            f"Give their folder with data=DIR; they come from {task.source}.",
        )
    root = Path(task.data).expanduser()
    if not root.is_dir():
        raise UserError(
            f"{task.name}: {task.data} is not a folder",
            "It is a file." if root.exists() else "Nothing of that name exists.",
            f"Give the folder that holds {wanted}, or one above it.",
        )
    # The named folders come first: a folder of many data sets may have a test.json of its own.
    below = list(_below(root, {folder.lower() for folder in folders}))
    own = [root] if _is_one_of(root, folders) else []
    places = [*own, *below, *([] if own else [root])]
    for place in places:
        for name in names:
            if (place / name).is_file():
                return place / name
    raise UserError(
        f"{task.name}: {wanted} not found in {task.data}",
        f"Looked there and in its sub-folders {', '.join(folders)}.",
        f"Give the folder of the official files with data=DIR; they come from {task.source}.",
    )


def _below(root: Path, folders: set[str], levels: int = 2) -> Iterator[Path]:
    """Yield the sub-folders of those names (lower case), the nearest first."""
    try:
        inside = sorted(path for path in root.iterdir() if path.is_dir())
    except OSError:
        return
    named = [path for path in inside if path.name.lower() in folders]
    yield from named
    for path in named if levels > 1 else ():
        yield from _below(path, folders, levels - 1)


def _is_one_of(folder: Path, names: Sequence[str]) -> bool:
    return folder.resolve().name.lower() in {name.lower() for name in names}
