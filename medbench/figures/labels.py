"""Names beside points that do not overlap: each takes the best of a few places around its point."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from medbench.figures import style

# Places around a point, the usual one (above to the right) first, and how far away.
_DIRECTIONS = (35, 145, -35, -145, 90, -90, 0, 180, 60, 120, -60, -120)
_DISTANCES = (5.0, 9.0, 15.0, 22.0, 30.0, 40.0, 52.0)
# What a place costs beside its distance: for each unit of area, covering others or being outside.
_OVERLAP, _OUTSIDE = 3.0, 50.0
# A line leads to names that are further away than that share of their height.
_NEAR = 0.8
_LEADER = {"arrowstyle": "-", "linewidth": 0.4, "color": style.GREY, "shrinkA": 0, "shrinkB": 2}
# Half the side of a marker, in points.
_MARKER = 3


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


def write_names(
    ax: Any,
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    colours: Sequence[str],
) -> None:
    """Write names beside the points of finished axes, in the axes' data coordinates."""
    figure = ax.figure
    figure.draw_without_rendering()  # places the axes
    pixels = figure.dpi / 72
    at = [tuple(ax.transData.transform(point)) for point in points]
    boxes = [_measured(ax, name) for name in names]
    frame = ax.get_window_extent()
    side = _MARKER * pixels
    taken = [Box(x - side, y - side, x + side, y + side) for x, y in at]
    inside = Box(frame.x0 + 2, frame.y0 + 2, frame.x1, frame.y1)
    chosen = place(at, boxes, inside=inside, taken=taken)
    for point, (x, y), box, name, colour in zip(points, at, chosen, names, colours, strict=True):
        near = _distance(box, (x, y)) <= _NEAR * (box.top - box.bottom)
        written = ax.annotate(
            name,
            point,
            xytext=((box.left - x) / pixels, (box.bottom - y) / pixels),
            textcoords="offset points",
            fontsize=style.SMALL,
            color=colour,
            bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.3},
            arrowprops=None if near else {**_LEADER, "relpos": _nearest(box, x, y)},
            zorder=3,  # below the markers: a name's ground hides intervals, and no marker
        )
        written.set_in_layout(False)  # the axes stay where the names were measured


def _measured(ax: Any, name: str) -> tuple[float, float]:
    text = ax.text(0, 0, name, fontsize=style.SMALL)
    box = text.get_window_extent()
    text.remove()
    return box.width, box.height


def _nearest(box: Box, x: float, y: float) -> tuple[float, float]:
    """Return the point of a box that is nearest to another point, as shares of its sides."""
    across = (x - box.left) / (box.right - box.left)
    up = (y - box.bottom) / (box.top - box.bottom)
    return min(max(across, 0.0), 1.0), min(max(up, 0.0), 1.0)


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
            _OVERLAP * sum(box.overlap(other) for other in blocked)
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
