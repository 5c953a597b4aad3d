"""The data set's own regions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from medbench.provider import Region, Regions, Surroundings
from medbench.task import Sample


@dataclass(frozen=True)
class Roi(Regions):
    """The ground-truth region of each question: what better labels than these could give."""

    name = "roi"
    paper = "A3Tune, Figure 4 (GT)"
    needs = ("roi",)

    def open(
        self, samples: Sequence[Sample], around: Surroundings
    ) -> Callable[[Sample], Sequence[Region]]:
        """Return what gives a sample's region, or nothing where it has none."""
        return region


def region(sample: Sample) -> list[Region]:
    """Return the ground-truth region of a sample in a list, empty where it has none."""
    if sample.roi is None:
        return []
    mask = sample.roi()
    return [Region(mask, None, (mask.shape[0], mask.shape[1]))]
