"""The order in which runs take samples, and whose image a sample gets in place of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from medbench.errors import UserError
from medbench.task import Sample


def in_order(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """Return samples in the fixed order of runs: by a hash of their ids.

    The first N in this order are a fair draw, and stay the same draw when N grows.
    """
    return tuple(sorted(samples, key=lambda sample: _place("order", sample.id)))


def partners(samples: Sequence[Sample], seed: int) -> dict[str, Sample]:
    """Return for each sample another one with another image, drawn by the seed.

    Raises:
        UserError: all samples share one image.
    """
    ring = sorted(samples, key=lambda sample: _place(f"partner {seed}", sample.id))
    found: dict[str, Sample] = {}
    for place, sample in enumerate(ring):
        after = (ring[(place + step) % len(ring)] for step in range(1, len(ring)))
        partner = next((other for other in after if other.group != sample.group), None)
        if partner is None:
            raise UserError(
                "no other image to take",
                "All samples of the split share one image.",
                "Take a method that keeps the images.",
            )
        found[sample.id] = partner
    return found


def _place(purpose: str, name: str) -> bytes:
    return hashlib.sha256(f"{purpose}\n{name}".encode()).digest()
