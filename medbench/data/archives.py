"""Unpacking the archives that data sets come in: each where it lies, and never outside.

A file gets its name only when it is whole, so that the same command goes on where one was killed;
what is there already is never written over. Links become copies of the files they point to.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from medbench.atomic import explaining_full_disks
from medbench.data.archive_members import SUFFIXES, Member, explaining, members, unsafe
from medbench.errors import UserError

_COPY_BYTES = 2**20


def archives_in(folder: Path) -> list[Path]:
    """Return the archives that lie in a folder, by name; none if it is no folder."""
    if not folder.is_dir():
        return []
    found = (path for path in folder.iterdir() if path.name.lower().endswith(SUFFIXES))
    return sorted(path for path in found if path.is_file() and not path.name.startswith("."))


def find_archives(place: Path) -> list[Path]:
    """Return the file at `place`, or the archives in the folder there and one level below.

    Raises:
        UserError: nothing is there, or no archive.
    """
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise UserError(
            f"nothing is at {place}", "", "Give an archive, or the folder that archives lie in."
        )
    below = sorted(path for path in place.iterdir() if path.is_dir())
    found = [path for folder in (place, *below) for path in archives_in(folder)]
    if not found:
        raise UserError(
            f"no archives in {place}",
            f"Looked there and one level below for {', '.join(SUFFIXES)}.",
            "Give an archive, or the folder that archives lie in.",
        )
    return found


@dataclass(frozen=True)
class Unpacked:
    """What became of an archive's files.

    Attributes:
        archive: the archive.
        written: files unpacked now; there: files that were there with the right size.
        differing: what stood in the way, of another size or no file at all; left as it was.
    """

    archive: Path
    written: int
    there: int
    differing: tuple[Path, ...]


def _silent(done: int, total: int) -> None:
    pass


def unpack(archive: Path, progress: Callable[[int, int], None] = _silent) -> Unpacked:
    """Unpack a zip or tar archive into the folder it lies in.

    Args:
        archive: the file; progress: called with bytes done, and all of them.

    Raises:
        UserError: it is broken, locked with a password or no archive; something in it leads out
            of the folder; a file cannot be written; or another process unpacks it.
    """
    folder = archive.parent.resolve()
    work = _Unpacking(archive, folder)
    with explaining_full_disks(folder), explaining(archive), _alone(archive):
        with closing(members(archive, folder)) as found:
            for member in found:
                progress(member.done, member.total)
                work.take(member)
        work.copy_links()
    return Unpacked(archive, work.written, work.there, tuple(sorted(work.differing)))


class _Unpacking:
    """The state of one archive's unpacking."""

    def __init__(self, archive: Path, folder: Path) -> None:
        self._archive = archive
        self._folder = folder
        self.written = 0
        self.there = 0
        self.differing: set[Path] = set()
        self._made: set[Path] = set()
        self._links: list[tuple[Path, Path]] = []

    def take(self, member: Member) -> None:
        """Write a file or make a folder; links wait, since what they point to may come later."""
        path = self._place(member.name)
        if member.link:
            self._links.append((path, self._place(member.link)))
        elif member.is_folder:
            self._make(path)
        elif self._make(path.parent):
            self._write(path, member.size, member.open)

    def copy_links(self) -> None:
        """Write a copy for each link.

        Raises:
            UserError: links point to no file.
        """
        left = self._links
        # A link may point to a link: each round settles the ones whose file is there by now.
        while ready := [pair for pair in left if pair[1].is_file()]:
            for path, target in ready:
                if self._make(path.parent):
                    size = target.stat().st_size
                    self._write(path, size, lambda target=target: target.open("rb"))
            left = [pair for pair in left if pair not in ready]
        if left:
            first = left[0][0].relative_to(self._folder)
            raise UserError(
                f"{self._archive} has links to files that are not in it",
                f"{len(left)} in all; the first is {first}.",
                "All else is unpacked; take the archive from the official source.",
            )

    def _place(self, name: str) -> Path:
        """Return where a member goes.

        Raises:
            UserError: outside of the archive's folder.
        """
        # Some programs write the separator of Windows.
        parts = name.replace("\\", "/").split("/")
        path = self._folder.joinpath(*(part for part in parts if part not in ("", ".")))
        leads_out = parts[0] == "" or ".." in parts or re.match("[A-Za-z]:", name)
        # A link that was in the folder before may lead out as well.
        home = path == self._folder or path.parent.resolve().is_relative_to(self._folder)
        if leads_out or not home:
            raise unsafe(self._archive, f"It holds {name!r}, which leads out of {self._folder}.")
        return path

    def _make(self, folder: Path) -> bool:
        """Make a folder; return False where a file stands in the way."""
        if folder not in self._made:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError):
                self.differing.add(folder)
                return False
            self._made.add(folder)
        return True

    def _write(self, path: Path, size: int, content: Callable[[], IO[bytes]]) -> None:
        if path.is_file() and path.stat().st_size == size:
            self.there += 1
        elif path.exists():
            self.differing.add(path)
        else:
            with content() as source:
                _write_whole(path, source, size)
            self.written += 1


def _write_whole(path: Path, source: IO[bytes], size: int) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as target:
            shutil.copyfileobj(source, target, _COPY_BYTES)
        if part.stat().st_size != size:
            raise EOFError(f"{path.name} is shorter than the archive says")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _alone(archive: Path) -> Generator[None]:
    """Keep another process from unpacking the same archive at the same time."""
    from filelock import FileLock, Timeout

    lock = FileLock(archive.with_name(f".{archive.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(
            f"another process is unpacking {archive}",
            f"It holds {lock.lock_file}.",
            "Wait for it to end, or stop it.",
        ) from error
    try:
        yield
    finally:
        with suppress(OSError):  # Windows keeps open files
            Path(lock.lock_file).unlink()
        lock.release()
