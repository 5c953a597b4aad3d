"""A region as the line around it, in the form of an SVG path."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

Point = tuple[int, int]


def outline(mask: np.ndarray) -> str:
    """Return the path around a region, in closed loops along the edges of pixels; "" for none.

    Args:
        mask: bool [height, width].
    """
    edges = _edges(mask)
    parts: list[str] = []
    while edges:
        parts.append(_written(_loop(edges)))
    return "".join(parts)


def shrunk(mask: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return a mask [height, width] of another one; a pixel is in if most of what it covers is.

    A region too small for that keeps all pixels that it touches, so that it does not vanish.
    """
    from PIL import Image

    if mask.shape == (height, width):
        return mask
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    share = np.asarray(image.resize((width, height), Image.Resampling.BOX))
    return share > 127 if (share > 127).any() else share > 0


def _edges(mask: np.ndarray) -> dict[Point, list[Point]]:
    """Return the edges between in and out: where one begins -> where it ends, inside to the right.

    Points are (x, y), corners of pixels.
    """
    padded = np.pad(np.asarray(mask, bool), 1)
    inside = padded[1:-1, 1:-1]
    sides = (
        (~padded[:-2, 1:-1], (0, 0), (1, 0)),  # above
        (~padded[1:-1, 2:], (1, 0), (1, 1)),  # right
        (~padded[2:, 1:-1], (1, 1), (0, 1)),  # below
        (~padded[1:-1, :-2], (0, 1), (0, 0)),  # left
    )
    edges: dict[Point, list[Point]] = defaultdict(list)
    for outside, begin, end in sides:
        for y, x in zip(*(axis.tolist() for axis in np.nonzero(inside & outside)), strict=True):
            edges[x + begin[0], y + begin[1]].append((x + end[0], y + end[1]))
    return dict(edges)


def _loop(edges: dict[Point, list[Point]]) -> list[Point]:
    """Take a closed loop out of the edges, and return its points."""
    first = next(iter(edges))
    loop = [first]
    at = first
    while len(loop) == 1 or at != first:
        ends = edges[at]
        before, at = at, ends.pop()
        if not ends:
            del edges[before]
        loop.append(at)
    return loop


def _written(loop: list[Point]) -> str:
    """Return a loop as a path with one step for each straight piece."""
    text = f"M{loop[0][0]} {loop[0][1]}"
    steps: list[tuple[str, int]] = []
    for (x, y), (right, below) in zip(loop, loop[1:], strict=False):
        way, length = ("v", below - y) if right == x else ("h", right - x)
        if steps and steps[-1][0] == way and steps[-1][1] * length > 0:
            length += steps.pop()[1]
        steps.append((way, length))
    return text + "".join(f"{way}{length}" for way, length in steps[:-1]) + "z"
