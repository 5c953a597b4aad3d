"""Broken images, found before anything is computed with their neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from medbench.data.look import Picture, in_parallel
from medbench.data.pictures import FORMATS, open_image
from medbench.digests import found_good, remember_good, sha256_of
from medbench.errors import UserError
from medbench.task import Sample, StoredImage


def check_images(samples: Sequence[Sample]) -> None:
    """Open every picture of the samples and of their regions; once for each content, ever.

    The content is in the run's key: a picture mended later would make it another run. Of images
    within other files the stamp stands for the content; drawn images are left alone.

    Raises:
        UserError: a picture cannot be read; names the first and says how many more.
    """
    paths = {sample.image for sample in samples if isinstance(sample.image, Path)}
    paths |= {
        path for sample in samples for path in sample.roi_files if path.suffix.lower() in FORMATS
    }
    contents = sha256_of(sorted(paths))
    pictures: dict[str, tuple[Picture, str]] = {
        content: (path, "") for path, content in contents.items()
    }
    stored = _stored(samples)
    pictures |= {sample.stamp: (image, sample.name) for image, sample in stored if sample.stamp}
    known = found_good(pictures)
    fresh = {mark: picture for mark, picture in pictures.items() if mark not in known}
    unmarked = [(image, sample.name) for image, sample in stored if not sample.stamp]
    with closing(in_parallel(_opened, [*fresh.values(), *unmarked])) as opened:
        errors = list(opened)
    remember_good(mark for mark, error in zip(fresh, errors, strict=False) if error is None)
    broken = [error for error in errors if error is not None]
    if broken:
        first, others = broken[0], len(broken) - 1
        more = f" {others} more {'is' if others == 1 else 'are'} broken." if others else ""
        raise UserError(first.what, f"{first.why}{more}", first.do)


def _stored(samples: Sequence[Sample]) -> list[tuple[StoredImage, Sample]]:
    """Return the images within other files, each stamp once, with a sample that shows them."""
    found: list[tuple[StoredImage, Sample]] = []
    seen: set[str] = set()
    for sample in samples:
        image = sample.image
        # Files come first and stamps once: telling what has `content` is slow.
        if isinstance(image, Path) or sample.stamp in seen:
            continue
        if sample.stamp:
            seen.add(sample.stamp)
        if isinstance(image, StoredImage):
            found.append((image, sample))
    return found


def _opened(picture: tuple[Picture, str]) -> UserError | None:
    """Return why a picture cannot be opened; None if it can."""
    image, sample = picture
    try:
        open_image(image)
    except UserError as error:
        return error
    # What reading an image out of an archive or a table may raise.
    except (OSError, ValueError, SyntaxError, EOFError, LookupError) as error:
        return UserError(
            f"cannot read the image of sample {sample}",
            f"{type(error).__name__}: {str(error).partition(chr(10))[0]}.",
            "Mend the data and run the same command again.",
        )
    return None
