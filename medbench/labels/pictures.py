"""The pictures that samples are about: each once, under a name that is its content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from PIL.Image import Image

from medbench import images
from medbench.task import Sample


def key(image: Image) -> str:
    """Return a picture's key: its size, and the sha256 of its RGB bytes."""
    digest = hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()
    return f"{image.width}x{image.height}-{digest}"


def by_picture(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    """Return the samples of each picture, in order, by a name of the picture."""
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        found.setdefault(images.name(sample), []).append(sample)
    return found
