"""An exported run's file as a run folder again: all of it is checked before anything is written.

run.json is written first and scores.json last. What a kill leaves has that run.json and no scores,
and the same import goes on with it.
"""

from __future__ import annotations

import json
import shutil
import zipfile
import zlib
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from medbench import store
from medbench.atomic import explaining_full_disks, write_atomically
from medbench.counting import counted
from medbench.errors import UserError
from medbench.run_folder import run_folder
from medbench.sharing.agreement import Agreement
from medbench.sharing.manifest import MANIFEST, MEMBERS, Manifest, Member, not_ours, read_manifest
from medbench.sharing.packed import contents

_AGAIN = "Ask for the file again, or export the run again."
_CHUNK = 2**20
# The manifest is read before it is known how long it is; so much of the others is held at once.
_LONGEST_MANIFEST, _LONGEST = 2**20, 2**26
# Others are not read in pieces.
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclass(frozen=True)
class Taken:
    """A run that was taken out of a file.

    Attributes:
        folder: its folder; run, scores: what its run.json and scores.json hold.
        known: whether it was there already.
    """

    folder: Path
    run: dict[str, Any]
    scores: dict[str, Any]
    known: bool


def is_packed(path: Path) -> bool:
    """Say whether a file is meant as a zip: by its name, or by how it begins."""
    if path.suffix.lower() == ".zip":
        return True
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PK\x03\x04"
    except OSError:
        return False


def import_run(path: Path, root: Path) -> Taken:
    """Make a run folder of a file that `medbench export` wrote.

    Args:
        path: of the file.
        root: folder of the runs.

    Raises:
        UserError: the file holds no run, or not the one that was exported; or the folder is there
            with another content.
    """
    with _opened(path) as file, _explaining(path):
        manifest = _manifest(file, path)
        for name, member in manifest.files.items():
            for _ in _chunks(file, name, member, path):
                pass
        agreement = Agreement(str(path), _AGAIN)
        run, scores = (
            agreement.parsed(b"".join(_chunks(file, name, manifest.files[name], path)), name)
            for name in (store.RUN, store.SCORES)
        )
        agreement.check_run(run)
        if run.get("withheld", False) is not manifest.withheld:
            raise _broken(path, f"{MANIFEST} and {store.RUN} differ in whether texts are withheld")
        agreement.check_rows(_rows(file, manifest, path), run, scores)
        folder = run_folder(root, **run["display"], key=run["key"])
        private = run["data"]["restricted"] and not manifest.withheld
        with (
            explaining_full_disks(folder),
            store.locked(folder, wait=False, what="run", private=private),
        ):
            if (folder / store.SCORES).exists():
                _check_same(folder, manifest, path)
                return Taken(folder, run, scores, known=True)
            _check_free(folder, manifest, path)
            for name in MEMBERS:
                _extract(file, name, manifest.files[name], path, folder / name)
    return Taken(folder, run, scores, known=False)


@contextmanager
def _opened(path: Path) -> Generator[zipfile.ZipFile]:
    try:
        file = zipfile.ZipFile(path)
    except OSError as error:
        what, why = f"cannot read {path}", f"{error.strerror or error}."
        raise UserError(what, why, "Check the path and its rights.") from error
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        why = "It was cut off or damaged on its way, or was never one."
        raise UserError(f"{path} is no zip file", why, _AGAIN) from error
    with file:
        yield file


@contextmanager
def _explaining(path: Path) -> Generator[None]:
    """Turn what reading a damaged zip raises into errors that name the file."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise _broken(path, f"{type(error).__name__}: {error}") from error


def _manifest(file: zipfile.ZipFile, path: Path) -> Manifest:
    """Read the manifest, and make sure that the file holds what it lists and nothing else.

    Raises:
        UserError: it does not.
    """
    entries = {entry.filename: entry for entry in file.infolist()}
    first = entries.get(MANIFEST)
    if first is None or first.file_size > _LONGEST_MANIFEST or not _readable(first):
        raise not_ours(str(path))
    with file.open(first) as stream:
        manifest = read_manifest(stream.read(_LONGEST_MANIFEST), str(path))
    for name, count in Counter(file.namelist()).items():
        _check_name(name, count, path)
    for name, member in manifest.files.items():
        if name not in entries:
            raise _broken(path, f"{name} is missing")
        if not _readable(entries[name]):
            raise _broken(path, f"{name} is packed in a way that medbench does not write")
        if entries[name].file_size != member.size:
            raise _broken(path, f"{name} has another size than {MANIFEST} says")
        if name != store.SAMPLES and member.size > _LONGEST:
            raise _broken(path, f"{name} would be {member.size} bytes long, which none is")
    return manifest


def _check_name(name: str, count: int, path: Path) -> None:
    if name not in (MANIFEST, *MEMBERS):
        out = name.startswith(("/", "\\")) or ".." in name or ":" in name
        more = ", which leads outside" if out else ", which is no part of a run"
        raise UserError(
            f"{path} is not safe to import",
            f"It holds {name!r}{more}.",
            "Nothing was written; take a file that 'medbench export' wrote, unchanged.",
        )
    if count > 1:
        raise _broken(path, f"{name} is in it {count} times")


def _readable(entry: zipfile.ZipInfo) -> bool:
    """Say whether an entry can be read in pieces: packed as we do it, and without a password."""
    return entry.compress_type in _PACKED and not entry.flag_bits & 1


def _chunks(file: zipfile.ZipFile, name: str, member: Member, path: Path) -> Iterator[bytes]:
    """Yield the content of a file, never more than its size, and at the end compare its hash.

    Raises:
        UserError: it is not what the manifest says.
    """
    digest, size = sha256(), 0
    with file.open(name) as stream:
        while size <= member.size and (chunk := stream.read(_CHUNK)):
            digest.update(chunk)
            size += len(chunk)
            yield chunk
    if (digest.hexdigest(), size) != (member.sha256, member.size):
        raise _broken(path, f"{name} has another content than {MANIFEST} says")


def _rows(file: zipfile.ZipFile, manifest: Manifest, path: Path) -> Iterator[Any]:
    """Yield the rows as they are parsed, one at a time."""
    chunks = _chunks(file, store.SAMPLES, manifest.files[store.SAMPLES], path)
    for number, line in enumerate(_lines(chunks, path), start=1):
        try:
            yield json.loads(line)
        except (ValueError, RecursionError) as error:
            why = f"line {number} of {store.SAMPLES} is no JSON ({type(error).__name__})"
            raise _broken(path, why) from error


def _lines(chunks: Iterator[bytes], path: Path) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
        if len(rest) > _LONGEST:
            raise _broken(path, f"a line of {store.SAMPLES} is longer than any that is written")
    if rest:
        raise _broken(path, f"the last line of {store.SAMPLES} is cut off")


def _check_same(folder: Path, manifest: Manifest, path: Path) -> None:
    """Make sure that a finished run is the one in the file, as it would be exported now.

    Raises:
        UserError: it is another one.
    """
    there = contents(folder, withheld=manifest.withheld)
    differing = [name for name in MEMBERS if Member.of(there[name]) != manifest.files[name]]
    if differing:
        raise UserError(
            f"{folder} holds this run with another content",
            f"Not the same: {', '.join(differing)}. It was run twice, or scored since.",
            f"Nothing was written; import {path.name} elsewhere, with --out DIR.",
        )


def _check_free(folder: Path, manifest: Manifest, path: Path) -> None:
    """Make sure that a folder is empty or what a killed import left, and that there is room.

    Raises:
        UserError: it is neither, or there is none.
    """
    answered = [*folder.glob("samples*.jsonl")]
    run = folder / store.RUN
    ours = run.exists() and Member.of(run.read_bytes()) == manifest.files[store.RUN]
    if not ours and (run.exists() or answered):
        raise UserError(
            f"{folder} holds an unfinished run of this key",
            f"{counted(len(store.read_rows(folder)), 'answer')} would be lost.",
            f"Go on with it, or move it away; or import {path.name} elsewhere, with --out DIR.",
        )
    size = sum(member.size for member in manifest.files.values())
    free = shutil.disk_usage(folder).free
    if size > free:
        raise UserError(
            f"no space left for {folder}",
            f"{path.name} holds {size} bytes, and {free} are free.",
            "Free some space and run the same command again.",
        )


def _extract(file: zipfile.ZipFile, name: str, member: Member, path: Path, target: Path) -> None:
    def write(part: Path) -> None:
        with part.open("wb") as written:
            for chunk in _chunks(file, name, member, path):
                written.write(chunk)

    write_atomically(target, write)


def _broken(path: Path, why: str) -> UserError:
    return UserError(f"{path} is not as it was exported", f"{why}.", _AGAIN)
