"""What is in an image: organs, lesions and artefacts, laid out without drawing a pixel.

A scene is a pure function of an integer seed and a style. `medbench.phantom.draw` turns it into
pixels and masks, `medbench.phantom.questions` asks about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from medbench.phantom.stream import Stream

VERSION = 1
SIZE = 64  # pixels, both ways

Size = Literal["small", "large"]

LESIONS = ("nodule", "cyst", "mass", "edema", "calcification", "hemorrhage")
RADIUS: dict[Size, tuple[float, float]] = {"small": (3.5, 4.1), "large": (6.7, 7.7)}

# Regions are drawn as a reader sees them: the patient's right is on the image's left.
# name: (centre x, centre y, radius x, radius y, brightness)
ORGANS: dict[str, dict[str, tuple[float, float, float, float, float]]] = {
    "chest": {
        "right lung": (15, 29, 10.5, 18, 0.16),
        "left lung": (49, 29, 10.5, 18, 0.16),
        "heart": (32, 44, 8.5, 9, 0.52),
    },
    "abdomen": {
        "liver": (19, 20, 12.5, 10.5, 0.48),
        "spleen": (47, 19, 9, 10, 0.42),
        "right kidney": (19, 46, 8.5, 10, 0.54),
        "left kidney": (46, 46, 8.5, 10, 0.54),
    },
    "brain": {
        "right hemisphere": (20, 25, 10.5, 16, 0.40),
        "left hemisphere": (44, 25, 10.5, 16, 0.40),
        "cerebellum": (32, 50, 13, 8, 0.50),
    },
}
# body outline: (centre x, centre y, radius x, radius y, brightness)
BODY: dict[str, tuple[float, float, float, float, float]] = {
    "chest": (32, 34, 30, 31, 0.34),
    "abdomen": (32, 33, 31, 28, 0.28),
    "brain": (32, 33, 26, 30, 0.26),
}
MODALITY = {"chest": "x-ray", "abdomen": "ct", "brain": "mri"}
ORGAN_NAMES = tuple(name for organs in ORGANS.values() for name in organs)


@dataclass(frozen=True)
class Style:
    """How a distribution of images looks.

    Attributes:
        name: goes into stamps.
        contrast: of lesions against their organ, in units of the brightness range.
        noise: standard deviation of the pixel noise.
        gain: range of the overall brightness factor.
        weights: how often each type of `LESIONS` occurs.
        decoys: probabilities of 0, 1, 2, ... lesion-like artefacts outside all organs.
        decoy_contrast: of those artefacts.
        lines: probabilities of 0, 1, 2, ... bright lines (tubes, wires).
    """

    name: str
    contrast: tuple[float, float]
    noise: float
    gain: tuple[float, float]
    weights: tuple[float, ...]
    decoys: tuple[float, ...]
    decoy_contrast: tuple[float, float]
    lines: tuple[float, ...]


REFERENCE = Style(
    name="reference",
    contrast=(0.35, 0.6),
    noise=0.03,
    gain=(0.9, 1.1),
    weights=(3, 3, 3, 3, 1, 1),
    decoys=(1.0,),
    decoy_contrast=(0.35, 0.6),
    lines=(0.7, 0.3),
)
SHIFTED = Style(
    name="shifted",
    contrast=(0.18, 0.34),
    noise=0.05,
    gain=(0.75, 1.1),
    weights=(1, 1, 1, 1, 2, 2),
    decoys=(0.2, 0.4, 0.4),
    decoy_contrast=(0.4, 0.65),
    lines=(0.3, 0.4, 0.3),
)
STYLES = {style.name: style for style in (REFERENCE, SHIFTED)}
_LESION_COUNTS = (0.15, 0.35, 0.35, 0.15)


@dataclass(frozen=True)
class Organ:
    """An ellipse in pixels with a brightness in [0, 1]."""

    name: str
    x: float
    y: float
    radius_x: float
    radius_y: float
    brightness: float

    def distance(self, x: float, y: float) -> float:
        """Return 0 at the centre, 1 on the outline, more outside."""
        return (((x - self.x) / self.radius_x) ** 2 + ((y - self.y) / self.radius_y) ** 2) ** 0.5


@dataclass(frozen=True)
class Lesion:
    """A disc of texture; `organ` is empty for an artefact that only looks like a lesion."""

    type: str
    organ: str
    size: Size
    x: float
    y: float
    radius: float
    contrast: float
    angle: float


@dataclass(frozen=True)
class Line:
    """A bright line through the image: a point, a direction, a brightness."""

    x: float
    y: float
    angle: float
    brightness: float


@dataclass(frozen=True)
class Scene:
    """Everything that an image shows.

    Attributes:
        seed: of this scene; style: a name in `STYLES`; region: a name in `ORGANS`.
        body, organs, lesions, decoys, lines: drawn in this order.
        gain: overall brightness factor.
    """

    seed: int
    style: str
    region: str
    body: Organ
    organs: tuple[Organ, ...]
    lesions: tuple[Lesion, ...]
    decoys: tuple[Lesion, ...]
    lines: tuple[Line, ...]
    gain: float

    def lesion_in(self, organ: str) -> int | None:
        """Return the index of the lesion in an organ, or None; an organ has at most one."""
        for index, lesion in enumerate(self.lesions):
            if lesion.organ == organ:
                return index
        return None

    def of_type(self, lesion_type: str) -> tuple[int, ...]:
        """Return the indices of the lesions of a type."""
        return tuple(i for i, lesion in enumerate(self.lesions) if lesion.type == lesion_type)


def lay_out(seed: int, style: Style) -> Scene:
    """Return the scene of a seed; the same seed and style give the same scene everywhere."""
    stream = Stream(VERSION, seed)
    region = stream.choose(tuple(ORGANS))
    shift = stream.between((-2.5, 2.5)), stream.between((-2.5, 2.5))
    scale = stream.between((0.95, 1.05))
    body = _place("body", BODY[region], shift, scale, stream)
    organs = tuple(
        _place(name, shape, shift, scale, stream) for name, shape in ORGANS[region].items()
    )
    count = stream.weighted(range(len(_LESION_COUNTS)), _LESION_COUNTS)
    lesions = tuple(_lesion(organ, style, stream) for organ in stream.several(organs, count))
    decoys = _decoys(organs, lesions, style, stream)
    lines = tuple(
        _line(stream) for _ in range(stream.weighted(range(len(style.lines)), style.lines))
    )
    return Scene(
        seed, style.name, region, body, organs, lesions, decoys, lines, stream.between(style.gain)
    )


def _place(
    name: str,
    shape: tuple[float, float, float, float, float],
    shift: tuple[float, float],
    scale: float,
    stream: Stream,
) -> Organ:
    x, y, radius_x, radius_y, brightness = shape
    middle = SIZE / 2
    return Organ(
        name,
        x=middle + (x - middle) * scale + shift[0] + stream.between((-0.7, 0.7)),
        y=middle + (y - middle) * scale + shift[1] + stream.between((-0.7, 0.7)),
        radius_x=radius_x * scale * stream.between((0.97, 1.03)),
        radius_y=radius_y * scale * stream.between((0.97, 1.03)),
        brightness=brightness + stream.between((-0.05, 0.05)),
    )


def _lesion(organ: Organ, style: Style, stream: Stream) -> Lesion:
    lesion_type = stream.weighted(LESIONS, style.weights)
    size: Size = "small" if stream.chance(0.5) else "large"
    radius = stream.between(RADIUS[size])
    # as far from the centre as keeps the disc (nearly) inside the organ
    reach_x, reach_y = max(organ.radius_x - radius, 0.5), max(organ.radius_y - radius, 0.5)
    if organ.name == "heart" or radius > 6:
        reach_x, reach_y = 0.7 * reach_x, 0.7 * reach_y
    distance, x, y = 2.0, 0.0, 0.0
    while distance > 1:
        x, y = stream.between((-1, 1)), stream.between((-1, 1))
        distance = x * x + y * y
    return Lesion(
        lesion_type,
        organ.name,
        size,
        organ.x + x * reach_x,
        organ.y + y * reach_y,
        radius,
        stream.between(style.contrast),
        stream.between((0, 6.283)),
    )


def _decoys(
    organs: Sequence[Organ], lesions: Sequence[Lesion], style: Style, stream: Stream
) -> tuple[Lesion, ...]:
    """Place lesion-like discs that touch no organ; give up on one after some tries."""
    placed: list[Lesion] = []
    for _ in range(stream.weighted(range(len(style.decoys)), style.decoys)):
        lesion_type = stream.choose(LESIONS)
        radius = stream.between(RADIUS["small"])
        for _ in range(40):
            x, y = stream.between((3, SIZE - 3)), stream.between((3, SIZE - 3))
            if _is_free(x, y, radius, organs, (*lesions, *placed)):
                contrast, angle = stream.between(style.decoy_contrast), stream.between((0, 6.283))
                placed.append(Lesion(lesion_type, "", "small", x, y, radius, contrast, angle))
                break
    return tuple(placed)


def _is_free(
    x: float, y: float, radius: float, organs: Sequence[Organ], discs: Sequence[Lesion]
) -> bool:
    for organ in organs:
        margin = radius / min(organ.radius_x, organ.radius_y)
        if organ.distance(x, y) < 1 + 0.8 * margin:
            return False
    return all((x - d.x) ** 2 + (y - d.y) ** 2 > (radius + d.radius + 1) ** 2 for d in discs)


def _line(stream: Stream) -> Line:
    x, y = stream.between((5, SIZE - 5)), stream.between((5, SIZE - 5))
    return Line(x, y, stream.between((0, 3.1416)), stream.between((0.15, 0.35)))
