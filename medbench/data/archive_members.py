"""Reading zip and tar archives as one stream of members, with errors that say what is wrong."""

from __future__ import annotations

import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from medbench.atomic import is_full
from medbench.errors import UserError

# Tables that are gzipped (.csv.gz) are read as they are.
SUFFIXES = (".zip", ".tgz", ".tar.gz", ".tar")
_BLOCK_BYTES = 512
_GZIP = b"\x1f\x8b"
_AGAIN = "Download it again and run the same command; what is unpacked is kept."
_ELSEWHERE = "Unpack it where it lies with a tool that can."


@dataclass(frozen=True)
class Member:
    """A file, folder or link in an archive.

    Attributes:
        name: with / or \\ between its parts, as the archive has it.
        size: bytes of a file's content; open: returns the content.
        done: bytes of the archive that lie before it; total: all of them.
        link: what a link points to, as a name in the archive; "" for files and folders.
    """

    name: str
    size: int
    open: Callable[[], IO[bytes]]
    done: int
    total: int
    is_folder: bool = False
    link: str = ""


def members(archive: Path, folder: Path) -> Generator[Member]:
    """Yield the members of a zip or tar archive in its order.

    Args:
        folder: where it is to be unpacked.

    Raises:
        UserError: the file is no archive, or holds devices or links that lead out of `folder`.
    """
    # In this order: a tar may end in a zip, and would then pass for one.
    if _is_tar(archive):
        yield from _tar_members(archive, folder)
    elif zipfile.is_zipfile(archive):
        yield from _zip_members(archive)
    else:
        raise _no_archive(archive)


def _is_tar(archive: Path) -> bool:
    try:
        with _opened_tar(archive):
            return True
    except tarfile.ReadError:
        return False


@contextmanager
def _opened_tar(archive: Path) -> Generator[tuple[tarfile.TarFile, IO[bytes]]]:
    """Yield a tar, gzipped or not, and the file it is read from."""
    with archive.open("rb") as raw:
        mode = "r:gz" if raw.read(2) == _GZIP else "r:"
        raw.seek(0)
        with tarfile.open(fileobj=raw, mode=mode) as file:
            yield file, raw


def _zip_members(archive: Path) -> Generator[Member]:
    with zipfile.ZipFile(archive) as file:
        entries = file.infolist()
        done, total = 0, sum(entry.file_size for entry in entries)
        for entry in entries:
            link = ""
            if stat.S_ISLNK(entry.external_attr >> 16):
                link = _linked(entry.filename, file.read(entry).decode("utf-8"))
            yield Member(
                name=entry.filename,
                size=entry.file_size,
                open=lambda entry=entry: file.open(entry),
                done=done,
                total=total,
                is_folder=entry.is_dir(),
                link=link,
            )
            done += entry.file_size


def _tar_members(archive: Path, folder: Path) -> Generator[Member]:
    total = archive.stat().st_size
    with _opened_tar(archive) as (file, raw):
        for entry in file:
            tarfile.data_filter(entry, str(folder))
            link = entry.linkname if entry.islnk() else ""
            if entry.issym():
                link = _linked(entry.name, entry.linkname)
            yield Member(
                name=entry.name,
                size=entry.size,
                open=lambda entry=entry: _content(file, entry),
                done=raw.tell(),
                total=total,
                is_folder=entry.isdir(),
                link=link,
            )
        # A file that was cut off between two members is told only by the lack of an end.
        content = file.fileobj
        assert content is not None, "the file is open"
        content.seek(file.offset)
        if content.read(_BLOCK_BYTES) != bytes(_BLOCK_BYTES):
            raise EOFError("the end is missing")
        # At its end, gzip compares its sum over the content.
        while content.read(_BLOCK_BYTES):
            pass


def _content(file: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    content = file.extractfile(entry)
    assert content is not None, "folders and links are not opened, and devices are refused"
    return content


def _linked(name: str, target: str) -> str:
    """Return the name in the archive that a symbolic link points to; with .. if it leads out."""
    target = target.replace("\\", "/")
    if target.startswith("/") or re.match("[A-Za-z]:", target):
        return target
    parts = name.replace("\\", "/").split("/")[:-1]
    for part in target.split("/"):
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


@contextmanager
def explaining(archive: Path) -> Generator[None]:
    """Turn what reading an archive and writing its files raises into errors that name it."""
    try:
        yield
    except tarfile.FilterError as error:
        raise unsafe(archive, f"{error}.") from error
    except NotImplementedError as error:
        why = "Its files are packed in a way that Python cannot read."
        raise UserError(f"cannot unpack {archive}", why, _ELSEWHERE) from error
    except RuntimeError as error:
        why = "Its files are locked with a password."
        raise UserError(f"cannot unpack {archive}", why, _ELSEWHERE) from error
    except OSError as error:
        if is_full(error):
            raise
        if error.errno is None:
            raise _broken(archive, error) from error
        where = f" ({error.filename})" if error.filename else ""
        why = f"{error.strerror}{where}."
        raise UserError(f"cannot unpack {archive}", why, "Check the folder's rights.") from error
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, ValueError) as error:
        raise _broken(archive, error) from error


def unsafe(archive: Path, why: str) -> UserError:
    """Return the error for an archive that would write outside its folder."""
    return UserError(
        f"{archive} is not safe to unpack",
        why,
        "Nothing was written there; take the archive from the official source.",
    )


def _broken(archive: Path, error: Exception) -> UserError:
    what = f"{archive} is cut off or damaged"
    why = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}."
    with archive.open("rb") as file:
        is_gzip = file.read(len(_GZIP)) == _GZIP
    if is_gzip and not isinstance(error, EOFError):
        # Only the whole has a sum; before its end, wrong content may have passed.
        do = "Delete what was unpacked from it, download it again and unpack that."
        return UserError(what, why, do)
    return UserError(what, why, _AGAIN)


def _no_archive(archive: Path) -> UserError:
    with archive.open("rb") as file:
        start = file.read(_BLOCK_BYTES)
    what = f"{archive} is no archive that can be unpacked"
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        why = "It is a web page: the download most likely answered with a login page."
        return UserError(what, why, "Download it again from the official source.")
    if start.startswith(b"version https://git-lfs"):
        why = "It is a git-lfs pointer; the content itself was not fetched."
        return UserError(what, why, "Run 'git lfs pull' where it came from.")
    if start.startswith(b"PK") or archive.name.lower().endswith(SUFFIXES):
        return _broken(archive, EOFError("the end is missing"))
    why = f"Archives are {', '.join(SUFFIXES)}; tables (.csv.gz) are read as they are."
    return UserError(what, why, "Leave it as it is.")
