"""Names beside points that do not overlap: each takes the best of a few places around its point."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Places around a point, the usual one (above to the right) first, and how far away.
_DIRECTIONS = (35, 145, -35, -145, 90, -90, 0, 180, 60, 120, -60, -120)
_DISTANCES = (5.0, 9.0, 15.0, 22.0, 30.0, 40.0, 52.0)
# What a place costs: overlap by area, so that none is always better than some; then distance.
_OUTSIDE = 50.0


@dataclass(frozen=True)
class Box:
    """A rectangle; all lengths in one unit, upwards and to the right."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: Box) -> float:
        """Return the area that both cover."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.top, other.top) - max(self.bottom, other.bottom)
        return wide * high if wide > 0 and high > 0 else 0.0


def place(
    points: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    *,
    inside: Box,
    taken: Iterable[Box] = (),
) -> list[Box]:
    """Return where the names stand.

    Args:
        points: x and y of each; sizes: width and height of its name.
        inside: where names may stand.
        taken: what they should leave free.
    """
    blocked = list(taken)
    chosen: dict[int, Box] = {}
    # Crowded points choose first: the others have more places left.
    for at in sorted(range(len(points)), key=lambda at: (_room(points, at), at)):
        options = list(_around(points[at], sizes[at]))
        costs = [
            sum(box.overlap(other) for other in blocked)
            + _OUTSIDE * (box.overlap(box) - box.overlap(inside))
            + _distance(box, points[at])
            for box in options
        ]
        chosen[at] = options[costs.index(min(costs))]
        blocked.append(chosen[at])
    return [chosen[at] for at in range(len(points))]


def _room(points: Sequence[tuple[float, float]], at: int) -> float:
    others = (math.dist(points[at], one) for other, one in enumerate(points) if other != at)
    return min(others, default=0.0)


def _around(point: tuple[float, float], size: tuple[float, float]) -> Iterable[Box]:
    """Yield places whose nearest edge or corner is at one of the distances."""
    for distance in _DISTANCES:
        for degrees in _DIRECTIONS:
            across, up = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
            x, y = point[0] + distance * across, point[1] + distance * up
            left = x - size[0] * (0.5 - 0.5 * _side(across))
            bottom = y - size[1] * (0.5 - 0.5 * _side(up))
            yield Box(left, bottom, left + size[0], bottom + size[1])


def _side(share: float) -> float:
    """Return 1, 0 or -1: whether a name begins, is centred or ends beside its point."""
    return 0.0 if abs(share) < 0.2 else math.copysign(1.0, share)


def _distance(box: Box, point: tuple[float, float]) -> float:
    across = max(box.left - point[0], point[0] - box.right, 0.0)
    up = max(box.bottom - point[1], point[1] - box.top, 0.0)
    return math.hypot(across, up)
