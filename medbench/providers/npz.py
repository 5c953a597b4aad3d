"""Weak labels from a file in the published layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from medbench import images
from medbench.errors import UserError
from medbench.provider import Region, Regions, Surroundings
from medbench.task import Sample


@dataclass(frozen=True)
class Npz(Regions):
    """Masks from an .npz as A3Tune published them: sample id -> k masks, best first.

    Masks cover the image squashed to a square; `medbench labels --npz FILE` writes such a file.

    Args:
        file: the .npz.
        must_match: whether a sample without an entry is an error, or has no region.
    """

    name = "npz"
    paper = "A3Tune, published training_segments.npz"
    unkeyed = ("file",)

    file: str = ""
    must_match: bool = True

    def files(self) -> Iterator[Path]:
        """Yield the file."""
        path = Path(self.file).expanduser()
        if not self.file or not path.is_file():
            raise UserError(
                f"no labels in '{self.file}'" if self.file else "npz needs a file",
                "",
                'Write "npz[file=PATH]".',
            )
        yield path

    def open(
        self, samples: Sequence[Sample], around: Surroundings
    ) -> Callable[[Sample], Sequence[Region]]:
        """Return what gives a sample's masks; all samples must have an entry if asked for."""
        from medbench.labels.published import PublishedLabels

        (path,) = self.files()
        labels = PublishedLabels(path)
        absent = [sample.id for sample in samples if sample not in labels]
        if absent and (self.must_match or len(absent) == len(samples)):
            raise UserError(
                f"{path} has no entry for {len(absent)} of {len(samples)} samples",
                f"Such as {', '.join(absent[:3])}.",
                "Take the file of this task and split, or npz[must_match=false,...].",
            )

        sizes: dict[str, tuple[int, int]] = {}

        def regions(sample: Sample) -> list[Region]:
            masks = labels.masks(sample) if sample in labels else ()
            if not len(masks):
                return []
            name = images.name(sample)
            if name not in sizes:
                image = images.opened(sample)
                sizes[name] = (image.height, image.width)
            return [Region(mask, None, sizes[name]) for mask in masks]

        return regions
