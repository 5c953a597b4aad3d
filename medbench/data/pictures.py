"""The images of samples: which are there, and how they are opened."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from medbench.data.archives import archives_in
from medbench.errors import UserError
from medbench.task import Sample, Task

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

# What Pillow calls a file by its suffix; a camera's JPEG with a preview in it is an MPO.
FORMATS = {
    ".png": ("PNG",), ".jpg": ("JPEG", "MPO"), ".jpeg": ("JPEG", "MPO"), ".bmp": ("BMP",),
    ".gif": ("GIF",), ".tif": ("TIFF",), ".tiff": ("TIFF",), ".webp": ("WEBP",),
}  # fmt: skip
# An error is a line, however many archives a folder holds.
_ARCHIVES_NAMED = 3


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
    missing = [one for one in every if isinstance(one.image, Path) and one.image in lost]
    if missing and not (allow_missing and len(missing) < len(every)):
        image = cast("Path", missing[0].image)
        raise UserError(
            f"{task.name}: {len(missing)} of {len(every)} {split} samples lack their image",
            f"The first should be at {image}. {archives_beside(image)}".rstrip(),
            "Complete the images, or leave those samples out with --allow-missing-images."
            if len(missing) < len(every)
            else "Complete the images; without any there is nothing to run.",
        )
    found = [one for one in every if not isinstance(one.image, Path) or one.image not in lost]
    return found, [one.id for one in missing]


def open_image(image: Path | Callable[[], Image]) -> Image:
    """Open a sample's image as RGB, whatever its storage (CMYK, palette, grey, 16 bit).

    The orientation that EXIF data may ask for is ignored, as in the published code (Pillow itself
    turns a TIFF). CMYK comes out in its right colours although Adobe's programs, whose marker such
    JPEGs bear, store it inverted. Transparency is dropped.

    Raises:
        UserError: the file is not an image, or is damaged; names the file.
    """
    if not isinstance(image, Path):
        return as_rgb(image())
    with reading(image) as opened:
        return as_rgb(opened)


@contextmanager
def reading(file: Path | IO[bytes], name: str = "") -> Generator[ImageFile]:
    """Yield an image file as Pillow opens it, not yet decoded.

    Args:
        file: its path, or its content; name: what an error calls it, by default the path.

    Raises:
        UserError: it is not an image, or decoding it in the block failed.
    """
    from PIL import Image as pillow

    try:
        with pillow.open(file) as opened:
            yield opened
    except pillow.DecompressionBombError as error:
        why = "It has more pixels than Pillow opens, as a damaged file may seem to have."
        raise _unreadable(name or file, why) from error
    # Pillow's decoders raise all of these on broken files.
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        why = f"The file is cut off, damaged, or not an image ({type(error).__name__})."
        if isinstance(file, Path) and not file.exists():
            why = "The file is not there."
        raise _unreadable(name or file, why) from error


def as_rgb(image: Image) -> Image:
    """Convert to RGB; 16 and 32 bit grey over its own range, which Pillow alone would clip."""
    if image.mode.startswith("I;16"):
        # Only whole integers of the machine's own byte order know their extremes.
        image = image.convert("I")
    if image.mode in ("I", "F"):
        low, high = cast("tuple[float, float]", image.getextrema())
        scale = 255.0 / (high - low) if high > low else 0.0
        image = image.convert("F").point(lambda value: (value - low) * scale).convert("L")
    return image.convert("RGB")


def archives_beside(image: Path) -> str:
    """Say how to unpack the archives that lie beside or above a missing image; "" for none."""
    for folder in list(image.parents)[:4]:
        packed = archives_in(folder)
        if packed:
            place = packed[0] if len(packed) == 1 else folder
            names = ", ".join(path.name for path in packed[:_ARCHIVES_NAMED])
            more = ", ..." if len(packed) > _ARCHIVES_NAMED else ""
            there = "is there; unpack it" if len(packed) == 1 else "are there; unpack them"
            return f"{names}{more} {there}: medbench data unpack {shlex.quote(str(place))}"
    return ""


def _unreadable(name: object, why: str) -> UserError:
    do = "Download it again, or unpack the archive again."
    return UserError(f"cannot read the image {name}", why, do)
