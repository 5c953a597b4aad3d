"""Official files on disk: finding, reading and checking them, with errors a user can act on."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from medbench.errors import UserError
from medbench.task import Sample, Task

if TYPE_CHECKING:
    from PIL.Image import Image


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


def read_json(path: Path) -> Any:
    """Read a JSON file in UTF-8.

    Raises:
        UserError: the file cannot be read, is empty, is something else, or is cut off.
    """
    again = "Download it again from the official source."
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read {path}", f"{error.strerror or error}.", "Check the path and its rights."
        ) from error
    if not data.strip():
        raise UserError(f"{path} is empty", "It has no content at all.", again)
    if data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        why = "It is a web page (or XML): the download most likely answered with a login page."
        raise UserError(f"{path} is not JSON", why, again)
    if data.startswith(b"version https://git-lfs"):
        why = "It is a git-lfs pointer; the content itself was not fetched."
        raise UserError(f"{path} is not JSON", why, "Run 'git lfs pull' where it came from.")
    try:
        # utf-8-sig reads plain UTF-8 as well, and some editors add the mark.
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        why = f"Byte {error.start} is not UTF-8."
        raise UserError(f"{path} cannot be decoded", why, again) from error
    except json.JSONDecodeError as error:
        why = f"{error.msg} at character {error.pos} of {len(error.doc)}: cut off or edited."
        raise UserError(f"{path} is damaged JSON", why, again) from error


def read_records(path: Path, keys: Iterable[str]) -> list[dict[str, Any]]:
    """Read a JSON list of objects that all have `keys`.

    Raises:
        UserError: it is not readable JSON, not such a list, or a record lacks a key.
    """
    content = read_json(path)
    if not isinstance(content, list) or not content:
        raise _other_data(path, "it is not a list of questions")
    records = cast("list[Any]", content)
    for number, record in enumerate(records, 1):
        if not isinstance(record, dict):
            raise _other_data(path, f"entry {number} is not an object")
        missing = [key for key in keys if key not in record]
        if missing:
            raise _other_data(path, f"entry {number} has no '{missing[0]}'")
    return records


def check_passport(
    task: Task, split: str, ids: Sequence[str], *, rows: int | None = None, gaps: Sequence[str] = ()
) -> None:
    """Compare the ids read with the task's passport.

    Args:
        ids: in the file's order.
        rows: number expected where the passport has no entry for this reading of the files.
        gaps: ids that the official file has and this one lacks, where the task can tell.

    Raises:
        UserError: an id comes twice, or number or hash of the ids differ; names the difference.
    """
    expected = {"rows": rows} if rows is not None else task.passport.get(split, {})
    wanted = expected.get("rows", len(ids))
    again = f"Download the official files again ({task.source}); copies that circulate differ."
    found = f"{task.name}: {len(ids)} of {wanted} {split} questions found"
    twice = [id for id, count in Counter(ids).items() if count > 1]
    if twice:
        why = f"{_counted(len(twice), 'id comes', 'ids come')} more than once, first: {twice[0]}."
        raise UserError(found, why, again)
    if len(ids) != wanted:
        difference = abs(wanted - len(ids))
        if len(ids) > wanted:
            why = f"{_counted(difference, 'id', 'ids')} too many."
        else:
            first = f", first: {gaps[0]}" if gaps else ""
            why = f"{_counted(difference, 'id', 'ids')} missing{first}."
        raise UserError(found, why, again)
    if "ids" in expected and expected["ids"] != hash_ids(ids):
        why = "The number is right, but some ids are others or stand in another order."
        raise UserError(f"{task.name}: the {split} questions are not the official ones", why, again)


def hash_ids(ids: Iterable[str]) -> str:
    """Return the sha256 of ids, one a line, as passports hold it."""
    return hashlib.sha256("\n".join(ids).encode("utf-8")).hexdigest()


def with_images(
    task: Task, split: str, samples: Iterable[Sample], *, allow_missing: bool
) -> tuple[list[Sample], list[str]]:
    """Return the samples whose image is there, and the ids of those left out.

    Raises:
        UserError: images are missing and that is not allowed, or none is there at all.
    """
    every = list(samples)
    # Each file is looked for once, however many questions are about it.
    paths = {sample.image for sample in every if isinstance(sample.image, Path)}
    lost = {path for path in paths if not path.is_file()}
    missing = [sample for sample in every if sample.image in lost]
    if missing and not (allow_missing and len(missing) < len(every)):
        image = cast("Path", missing[0].image)
        raise UserError(
            f"{task.name}: {len(missing)} of {len(every)} {split} samples lack their image",
            f"The first should be at {image}.{_archive_beside(image)}",
            "Complete the images, or leave those samples out with --allow-missing-images."
            if len(missing) < len(every)
            else "Complete the images; without any there is nothing to run.",
        )
    found = [sample for sample in every if sample.image not in lost]
    return found, [one.id for one in missing]


def open_image(image: Path | Callable[[], Image]) -> Image:
    """Open a sample's image as RGB, whatever its storage (CMYK, palette, grey, 16 bit).

    Raises:
        UserError: the file is not an image, or is damaged; names the file.
    """
    from PIL import Image as pillow

    if not isinstance(image, Path):
        return image().convert("RGB")
    try:
        with pillow.open(image) as opened:
            return _eight_bit(opened).convert("RGB")
    # Pillow's decoders raise all of these on broken files.
    except (OSError, ValueError, SyntaxError, EOFError, pillow.DecompressionBombError) as error:
        raise UserError(
            f"cannot read the image {image}",
            f"{type(error).__name__}: the file is cut off, damaged, or not an image."
            if image.exists()
            else "The file is not there.",
            "Download it again, or unpack the archive again.",
        ) from error


def _eight_bit(image: Image) -> Image:
    """Bring 16 and 32 bit grey to 8 bit over its own range; Pillow's own way clips it."""
    if not image.mode.startswith(("I", "F")):
        return image
    low, high = cast("tuple[float, float]", image.getextrema())
    scale = 255.0 / (high - low) if high > low else 0.0
    return image.convert("F").point(lambda value: (value - low) * scale).convert("L")


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


def _archive_beside(image: Path) -> str:
    """Say so if the archive that the image comes in lies unopened beside or above it."""
    for folder in list(image.parents)[:4]:
        packed = next(folder.glob("*.zip"), None) if folder.is_dir() else None
        if packed is not None:
            return f" {packed.name} is there; unpack it where it lies."
    return ""


def _other_data(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} is not the official file",
        f"{why[0].upper()}{why[1:]}.",
        "Other data sets and conversions use the same file names; download the official one.",
    )


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
