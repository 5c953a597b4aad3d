"""What was found out about files, remembered between processes: hashes, which images open, numbers.

So 14 GB of weights are hashed once. What is remembered is a convenience: a book that cannot be
read or written is done without.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from medbench.errors import UserError

# A file changed twice within the clock's grain looks unchanged; so young a file is not remembered.
SETTLED_SECONDS = 2.0
# Older SQLites take no more than 999 values in a query.
_AT_ONCE = 500
_TABLES = """
CREATE TABLE IF NOT EXISTS files
    (path_sha256 TEXT PRIMARY KEY, size INTEGER, modified INTEGER, inode INTEGER, sha256 TEXT);
CREATE TABLE IF NOT EXISTS good_images (sha256 TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS contents
    (path_sha256 TEXT PRIMARY KEY, size INTEGER, modified INTEGER, inode INTEGER,
    format TEXT, content BLOB);
"""


def sha256_of(paths: Iterable[Path]) -> dict[Path, str]:
    """Return the sha256 of each file's content, hexadecimal.

    A file whose size, time of change and inode are those of the last time is not read again.

    Raises:
        UserError: a file cannot be read.
    """
    found: dict[Path, str] = {}
    fresh: list[tuple[str | int, ...]] = []
    with _book() as book:
        for path in dict.fromkeys(paths):
            try:
                mark = _mark(path)
                known = _known(book, mark)
                found[path] = known or _hash(path)
                age = time.time() - path.stat().st_mtime
            except OSError as error:
                raise UserError(
                    f"cannot read {path}",
                    f"{error.strerror or error}.",
                    "Check the path and its rights.",
                ) from error
            if not known and age > SETTLED_SECONDS:
                fresh.append((*mark, found[path]))
        # Not before: who writes keeps others from writing, and hashing weights takes minutes.
        with suppress(sqlite3.Error):
            book.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", fresh)
    return found


def found_good(contents: Iterable[str]) -> set[str]:
    """Return those sha256 of image files that are known to open."""
    with _book() as book, suppress(sqlite3.Error):
        wanted = "SELECT sha256 FROM good_images WHERE sha256=?"
        return {one for one in contents if book.execute(wanted, (one,)).fetchone()}
    return set()


def remember_good(contents: Iterable[str]) -> None:
    """Remember that image files of these sha256 open."""
    with _book() as book, suppress(sqlite3.Error):
        book.executemany("INSERT OR IGNORE INTO good_images VALUES (?)", ((c,) for c in contents))


def recall(paths: Iterable[Path], form: str) -> dict[Path, bytes]:
    """Return what was remembered of those files that are as they were then.

    Args:
        paths: of files.
        form: in which it was remembered.
    """
    marks: dict[tuple[str | int, ...], Path] = {}
    for path in paths:
        with suppress(OSError):
            marks[_mark(path)] = path
    names = [mark[0] for mark in marks]
    found: dict[Path, bytes] = {}
    with _book() as book, suppress(sqlite3.Error):
        # Many at a time: tables ask for thousands.
        for start in range(0, len(names), _AT_ONCE):
            part = names[start : start + _AT_ONCE]
            wanted = (
                "SELECT path_sha256, size, modified, inode, content FROM contents "
                f"WHERE format=? AND path_sha256 IN ({', '.join('?' * len(part))})"
            )
            for *mark, content in book.execute(wanted, (form, *part)):
                path = marks.get(tuple(mark))
                if path is not None:
                    found[path] = content
    return found


def remember(contents: Mapping[Path, bytes], form: str) -> None:
    """Remember something of files as they are now, in place of what was remembered of them."""
    with _book() as book, suppress(sqlite3.Error):
        for path, content in contents.items():
            with suppress(OSError):
                mark = _mark(path)
                if time.time() - path.stat().st_mtime > SETTLED_SECONDS:
                    row = (*mark, form, content)
                    book.execute("INSERT OR REPLACE INTO contents VALUES (?, ?, ?, ?, ?, ?)", row)


def cache_folder() -> Path:
    """Return the user's folder for what can be computed again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "medbench"


@contextmanager
def _book() -> Generator[sqlite3.Connection]:
    with closing(_open()) as book:
        yield book
        with suppress(sqlite3.Error):
            book.commit()


def _open() -> sqlite3.Connection:
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        book = sqlite3.connect(folder / "digests.sqlite", timeout=10)
        try:
            book.executescript(_TABLES)
        except sqlite3.Error:
            book.close()
            raise
    except (OSError, RuntimeError, sqlite3.Error):  # RuntimeError: no home folder
        book = sqlite3.connect(":memory:")
        book.executescript(_TABLES)
    return book


def _known(book: sqlite3.Connection, mark: tuple[str | int, ...]) -> str | None:
    with suppress(sqlite3.Error):
        row = book.execute(
            "SELECT sha256 FROM files WHERE path_sha256=? AND size=? AND modified=? AND inode=?",
            mark,
        ).fetchone()
        return str(row[0]) if row else None
    return None


def _mark(path: Path) -> tuple[str | int, ...]:
    """Return what tells a file from what it was before, and from others."""
    state = path.stat()
    return (_hash_name(path), state.st_size, state.st_mtime_ns, state.st_ino)


def _hash_name(path: Path) -> str:
    """Return a path's sha256: names of image files may be ids of patients."""
    # Links are not followed, which takes longest; what is behind them is told by its inode.
    return hashlib.sha256(os.fsencode(os.path.abspath(path))).hexdigest()  # noqa: PTH100


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
