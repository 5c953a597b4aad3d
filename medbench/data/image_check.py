"""Broken image files, found before anything is computed with their neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from medbench.data.pictures import open_image
from medbench.digests import found_good, remember_good, sha256_of
from medbench.errors import UserError
from medbench.task import Sample

_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")


def check_images(samples: Sequence[Sample]) -> None:
    """Open every picture of the samples and of their regions; once for each content, ever.

    The content is in the run's key: a picture mended later would make it another run.

    Raises:
        UserError: a file cannot be read; names the first and says how many more.
    """
    paths = {sample.image for sample in samples if isinstance(sample.image, Path)}
    paths |= {
        path for sample in samples for path in sample.roi_files if path.suffix.lower() in _PICTURES
    }
    contents = sha256_of(sorted(paths))
    known = found_good(contents.values())
    fresh = {content: path for path, content in contents.items() if content not in known}
    # Pillow decodes without holding the interpreter's lock.
    with ThreadPoolExecutor() as pool:
        errors = dict(zip(fresh, pool.map(_opened, fresh.values()), strict=True))
    remember_good(content for content, error in errors.items() if error is None)
    broken = [error for error in errors.values() if error is not None]
    if broken:
        first, others = broken[0], len(broken) - 1
        more = f" {others} more {'is' if others == 1 else 'are'} broken." if others else ""
        raise UserError(first.what, f"{first.why}{more}", first.do)


def _opened(path: Path) -> UserError | None:
    try:
        open_image(path)
    except UserError as error:
        return error
    return None
