"""Arrays computed once and kept on disk by content: one sqlite file for each way to compute them.

Such a file can be copied to another machine or shipped with a package: its name holds a hash of
everything that decides what is in it, and its keys are hashes of what it was computed from. What is
made of a restricted task's images is kept in files of its own, in a folder `restricted`.
"""

from __future__ import annotations

import io
import json
import sqlite3
import zlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np

from medbench.digests import cache_folder
from medbench.errors import UserError
from medbench.provenance import digest
from medbench.restricted import make_private
from medbench.task import Task

_LENGTH = 16
_TABLES = """
CREATE TABLE IF NOT EXISTS about (text TEXT);
CREATE TABLE IF NOT EXISTS arrays (key TEXT PRIMARY KEY, value BLOB);
"""


class Memo:
    """Arrays by key, in a file whose name says how they were made.

    Args:
        kind: first part of the file's name.
        made_with: everything that decides the arrays; hashed into the name, and kept in the file.
        folder: where to look and to write; "" takes the user's cache.
        shipped: a folder that is only looked into, if it has the file.
    """

    def __init__(
        self,
        kind: str,
        made_with: Mapping[str, Any],
        *,
        folder: str = "",
        shipped: Path | None = None,
    ) -> None:
        name = f"{kind}-{digest(dict(made_with))[:_LENGTH]}.sqlite"
        root = Path(folder).expanduser() if folder else cache_folder() / "labels"
        self.path = root / name
        self._shipped = shipped / name if shipped else None
        self._about = json.dumps(dict(made_with), sort_keys=True)
        self._private = False

    def of(self, task: Task) -> Memo:
        """Return where arrays made of a task's images are kept; those of restricted ones apart."""
        if not task.restricted or self._private:
            return self
        apart = copy(self)
        apart.path = self.path.parent / "restricted" / self.path.name
        apart._private = True
        return apart

    def read(self, keys: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the arrays that are there, by key.

        Raises:
            UserError: a file is there and cannot be read.
        """
        found: dict[str, np.ndarray] = {}
        for path in (self._shipped, self.path):
            missing = [key for key in dict.fromkeys(keys) if key not in found]
            if path is not None and path.exists() and missing:
                found |= _read(path, missing)
        return found

    def has(self, keys: Sequence[str]) -> set[str]:
        """Return which of the keys have an array."""
        found: set[str] = set()
        for path in (self._shipped, self.path):
            if path is not None and path.exists():
                found |= _present(path, keys)
        return found

    def write(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep arrays; those that are there already stay as they are.

        Raises:
            UserError: the file cannot be written.
        """
        rows = [(key, _encode(value)) for key, value in arrays.items()]
        try:
            if self._private:
                make_private(self.path.parent)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Several processes may add to one file: sqlite lets one at a time.
            with closing(sqlite3.connect(self.path, timeout=60)) as file, file:
                file.executescript(_TABLES)
                if not file.execute("SELECT 1 FROM about").fetchone():
                    file.execute("INSERT INTO about VALUES (?)", (self._about,))
                file.executemany("INSERT OR IGNORE INTO arrays VALUES (?, ?)", rows)
        except (OSError, sqlite3.Error) as error:
            raise _broken(self.path, "write to", error) from error


def _read(path: Path, keys: Sequence[str]) -> dict[str, np.ndarray]:
    try:
        with closing(_opened(path)) as file:
            rows = _select(file, "key, value", keys)
        return {key: _decode(value) for key, value in rows}
    except (OSError, ValueError, EOFError, zlib.error, sqlite3.Error) as error:
        raise _broken(path, "read", error) from error


def _present(path: Path, keys: Sequence[str]) -> set[str]:
    try:
        with closing(_opened(path)) as file:
            return {row[0] for row in _select(file, "key", keys)}
    except (OSError, sqlite3.Error) as error:
        raise _broken(path, "read", error) from error


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=60)


def _select(file: sqlite3.Connection, what: str, keys: Sequence[str]) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for start in range(0, len(keys), 500):  # sqlite takes no more than 999 values at once
        part = list(keys[start : start + 500])
        marks = ",".join("?" * len(part))
        rows += file.execute(f"SELECT {what} FROM arrays WHERE key IN ({marks})", part).fetchall()
    return rows


def _encode(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return zlib.compress(buffer.getvalue(), 9)


def _decode(value: bytes) -> np.ndarray:
    return np.load(io.BytesIO(zlib.decompress(value)), allow_pickle=False)


def _broken(path: Path, doing: str, error: Exception) -> UserError:
    return UserError(
        f"cannot {doing} {path}",
        f"{type(error).__name__}: {error}".splitlines()[0],
        "It holds what can be computed again; delete it if it is broken.",
    )
