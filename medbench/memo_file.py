"""Content by key in a sqlite file that several processes may add to; every value is compressed."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from medbench.errors import UserError
from medbench.restricted import make_private

_TABLES = """
CREATE TABLE IF NOT EXISTS about (text TEXT);
CREATE TABLE IF NOT EXISTS arrays (key TEXT PRIMARY KEY, value BLOB);
"""


def read(path: Path, keys: Sequence[str]) -> dict[str, bytes]:
    """Return what a file holds of some keys.

    Raises:
        UserError: the file is there and cannot be read.
    """
    try:
        with closing(_opened(path)) as file:
            rows = _select(file, "key, value", keys)
        return {key: zlib.decompress(value) for key, value in rows}
    except (OSError, zlib.error, sqlite3.Error) as error:
        raise broken(path, "read", error) from error


def present(path: Path, keys: Sequence[str]) -> set[str]:
    """Return which of some keys a file holds.

    Raises:
        UserError: the file is there and cannot be read.
    """
    try:
        with closing(_opened(path)) as file:
            return {row[0] for row in _select(file, "key", keys)}
    except (OSError, sqlite3.Error) as error:
        raise broken(path, "read", error) from error


def write(path: Path, about: str, content: Mapping[str, bytes], *, private: bool) -> None:
    """Add to a file, or make it; what is there already stays as it is.

    Args:
        about: how its content is made; kept in the file.
        private: whether a new folder is for its owner alone.

    Raises:
        UserError: the file cannot be written.
    """
    rows = [(key, zlib.compress(value, 9)) for key, value in content.items()]
    try:
        if private:
            make_private(path.parent)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Several processes may add to one file: sqlite lets one at a time.
        with closing(sqlite3.connect(path, timeout=60)) as file, file:
            file.executescript(_TABLES)
            if not file.execute("SELECT 1 FROM about").fetchone():
                file.execute("INSERT INTO about VALUES (?)", (about,))
            file.executemany("INSERT OR IGNORE INTO arrays VALUES (?, ?)", rows)
    except (OSError, sqlite3.Error) as error:
        raise broken(path, "write to", error) from error


def broken(path: Path, doing: str, error: Exception) -> UserError:
    """Return the error of a file that cannot be used."""
    return UserError(
        f"cannot {doing} {path}",
        f"{type(error).__name__}: {error}".splitlines()[0],
        "It holds what can be computed again; delete it if it is broken.",
    )


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=60)


def _select(file: sqlite3.Connection, what: str, keys: Sequence[str]) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for start in range(0, len(keys), 500):  # sqlite takes no more than 999 values at once
        part = list(keys[start : start + 500])
        marks = ",".join("?" * len(part))
        rows += file.execute(f"SELECT {what} FROM arrays WHERE key IN ({marks})", part).fetchall()
    return rows
