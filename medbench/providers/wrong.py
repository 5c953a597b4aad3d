"""A control: the right regions in wrong places."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medbench.provider import Region, Regions, Surroundings
from medbench.providers.roi import region
from medbench.task import Sample


@dataclass(frozen=True)
class Wrong(Regions):
    """The ground-truth regions moved away from where they are: does the place matter at all?

    Args:
        shift: how far, as a share of height and of width; what leaves the image comes in again
            on the other side.
    """

    name = "wrong"
    needs = ("roi",)

    shift: float = 0.375

    def open(
        self, samples: Sequence[Sample], around: Surroundings
    ) -> Callable[[Sample], Sequence[Region]]:
        """Return what gives a sample's moved region."""
        return lambda sample: [self._moved(one) for one in region(sample)]

    def _moved(self, one: Region) -> Region:
        by = tuple(int(length * self.shift) for length in one.mask.shape)
        return replace(one, mask=np.roll(one.mask, by, axis=(0, 1)))
