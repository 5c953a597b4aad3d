"""Looking at many pictures: which are there, which open, and what they are."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from medbench.data.pictures import as_rgb, open_image, reading
from medbench.digests import found_good, remember_good, sha256_of
from medbench.errors import UserError
from medbench.task import StoredImage

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

Picture = Path | StoredImage
Item = TypeVar("Item")
Result = TypeVar("Result")

_CHUNK = 16
_ORIENTATION = 0x0112  # EXIF's tag


@dataclass(frozen=True)
class Look:
    """What a picture turned out to be.

    Attributes:
        content: sha256 of its bytes; "" where they cannot be had.
        error: why it cannot be opened; "" where it can. missing: it is not there at all.
        format, mode: Pillow's names, e.g. "JPEG" and "CMYK"; "" where only the task can open it.
        width, height: in pixels.
        orientation: what EXIF data say and opening ignores; 1 is upright.
    """

    content: str = ""
    error: str = ""
    missing: bool = False
    format: str = ""
    mode: str = ""
    width: int = 0
    height: int = 0
    orientation: int = 1


def look_at(pictures: Sequence[Picture], progress: Callable[[int], object]) -> list[Look]:
    """Open each picture and say what it is, in order.

    Content that opened before, here or in a run, is not decoded again.

    Args:
        pictures: files, and images that lie within other files.
        progress: called with the number looked at so far.
    """
    chunks = [pictures[start : start + _CHUNK] for start in range(0, len(pictures), _CHUNK)]
    looks: list[Look] = []
    # Pillow warns of odd metadata and of many pixels; what matters of it is told otherwise.
    with warnings.catch_warnings(), closing(in_parallel(_look_at_some, chunks)) as parts:
        warnings.simplefilter("ignore")
        for part in parts:
            looks += part
            progress(len(looks))
    return looks


def in_parallel(do: Callable[[Item], Result], items: Sequence[Item]) -> Generator[Result]:
    """Yield what `do` returns for each item, in order; closing it drops what has not begun.

    Threads do, since Pillow decodes without holding the interpreter's lock.
    """
    with ThreadPoolExecutor() as pool:
        yield from pool.map(do, items)


def _look_at_some(pictures: Sequence[Picture]) -> list[Look]:
    contents = _contents([one for one in pictures if isinstance(one, Path)])
    known = found_good(contents.values())
    looks: list[Look] = []
    for picture in pictures:
        if not isinstance(picture, Path):
            looks.append(_look_at_stored(picture))
        elif picture in contents:
            content = contents[picture]
            looks.append(_look_at_file(picture, content, decode=content not in known))
        else:
            there = picture.exists()
            looks.append(Look(error="It cannot be read." if there else "", missing=not there))
    remember_good(look.content for look in looks if look.content and not look.error)
    return looks


def _contents(paths: Sequence[Path]) -> dict[Path, str]:
    """Return the sha256 of each file that can be read."""
    there = [path for path in paths if path.is_file()]
    try:
        return sha256_of(there)
    except UserError:
        if len(there) < 2:
            return {}
        # One of them; which, the others need not wait for.
        return {path: content for one in there for path, content in _contents([one]).items()}


def _look_at_file(path: Path, content: str, *, decode: bool) -> Look:
    try:
        with reading(path) as opened:
            return _described(opened, content, decode=decode)
    except UserError as error:
        return Look(content, error.why)


def _look_at_stored(image: StoredImage) -> Look:
    try:
        data = image.content()
    # Whatever reads the file around it may raise anything.
    except Exception as error:
        return Look(error=_said(error))
    content = hashlib.sha256(data).hexdigest()
    try:
        with reading(io.BytesIO(data)) as opened:
            return _described(opened, content, decode=not found_good([content]))
    except UserError as broken:
        # The task may know a format that Pillow does not.
        try:
            size = open_image(image).size
        except Exception:
            return Look(content, broken.why)
        return Look(content, width=size[0], height=size[1])


def _described(opened: ImageFile, content: str, *, decode: bool) -> Look:
    # Pillow turns a TIFF itself; and it decodes a PNG in search of EXIF data if none came before.
    looked_for = opened.format != "TIFF" and (opened.format != "PNG" or "exif" in opened.info)
    exif = opened.getexif() if looked_for else {}
    look = Look(
        content=content,
        format=opened.format or "",
        mode=opened.mode,
        width=opened.width,
        height=opened.height,
        orientation=exif.get(_ORIENTATION, 1),
    )
    if decode:
        as_rgb(opened)
    return look


def _said(error: Exception) -> str:
    if isinstance(error, UserError):
        return error.why or error.what
    return f"{type(error).__name__}: {error}".partition("\n")[0]
