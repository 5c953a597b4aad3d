"""The images of samples: which are there, and how they are opened."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, cast

from medbench.errors import UserError
from medbench.task import Sample, Task

if TYPE_CHECKING:
    from PIL.Image import Image


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


def _archive_beside(image: Path) -> str:
    """Say so if the archive that the image comes in lies unopened beside or above it."""
    for folder in list(image.parents)[:4]:
        packed = next(folder.glob("*.zip"), None) if folder.is_dir() else None
        if packed is not None:
            return f" {packed.name} is there; unpack it where it lies."
    return ""
