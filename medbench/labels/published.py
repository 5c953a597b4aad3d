"""The published layout of weak labels: an .npz with k masks of 256 x 256 for each sample."""

from __future__ import annotations

import weakref
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from medbench.atomic import write_atomically
from medbench.errors import UserError
from medbench.labels.segment import Masks
from medbench.provider import Region
from medbench.task import Sample

SIDE = 256


def name_in_file(sample: Sample) -> str:
    """Return what a sample is called in such a file: the data set's own id."""
    return str(sample.meta.get("native_id", sample.id))


def write(path: Path, labelled: Iterable[tuple[Sample, Sequence[Region]]]) -> int:
    """Write samples' regions, best first, squashed to squares; return how many samples that is."""
    arrays: dict[str, Masks] = {}
    for sample, regions in labelled:
        masks = [_square(one.mask) for one in regions]
        arrays[name_in_file(sample)] = np.array(masks, bool).reshape(-1, SIDE, SIDE)

    def save(target: Path) -> None:
        with target.open("wb") as file:  # given a path, numpy appends .npz to it
            np.savez_compressed(file, allow_pickle=False, **arrays)

    write_atomically(path, save)
    return len(arrays)


class PublishedLabels:
    """An open file of that layout; masks are read when they are asked for.

    Raises:
        UserError: it is no such file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            # Never unpickled: a file that needs that is refused below.
            self._file = np.load(path, allow_pickle=False)
            # Opened once: a file of twenty thousand entries takes long to find one in.
            weakref.finalize(self, self._file.close)
            self._names = set(self._file.files)
        except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as error:
            raise UserError(
                f"cannot read {path}",
                f"{type(error).__name__}: {error}".splitlines()[0],
                "Give an .npz file with one array of masks for each sample.",
            ) from error

    def __contains__(self, sample: Sample) -> bool:
        return name_in_file(sample) in self._names or sample.id in self._names

    def masks(self, sample: Sample) -> Masks:
        """Return a sample's masks, bool [k, h, w], best first; k may be 0.

        Raises:
            UserError: what the file holds for it are no masks.
        """
        name = name_in_file(sample)
        name = name if name in self._names else sample.id
        try:
            found = self._file[name]
            # An empty list was written as an array of no dimension to speak of.
            return found.astype(bool) if found.size else np.zeros((0, SIDE, SIDE), bool)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise UserError(
                f"cannot read the masks of sample {name} in {self._path}",
                f"{type(error).__name__}: {error}".splitlines()[0],
                "Write the file again, as boolean arrays [k, height, width].",
            ) from error


def _square(mask: np.ndarray) -> Masks:
    image = Image.fromarray(np.asarray(mask, bool).astype(np.uint8) * 255)
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.NEAREST)) > 127
