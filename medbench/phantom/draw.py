"""Pixels and masks of a scene, in numpy."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from medbench.phantom.world import SIZE, STYLES, Lesion, Line, Organ, Scene

Floats: TypeAlias = npt.NDArray[np.float32]
Mask: TypeAlias = npt.NDArray[np.bool_]

_Y, _X = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
_PIXEL_SEED = 7919  # keeps the pixel noise apart from the layout drawn from the same seed


def draw(scene: Scene) -> npt.NDArray[np.uint8]:
    """Return the grey image, uint8 [64, 64].

    The noise depends on the seed alone, so that two scenes that differ in one lesion differ in
    that lesion's pixels only.
    """
    generator = np.random.default_rng((_PIXEL_SEED, scene.seed))
    canvas = np.full((SIZE, SIZE), 0.04, np.float32)
    for organ in (scene.body, *scene.organs):
        inside = np.clip((1 - _distance(organ)) * min(organ.radius_x, organ.radius_y) + 0.5, 0, 1)
        canvas += inside * (organ.brightness - canvas)
    canvas += _tissue(generator)
    for lesion in (*scene.lesions, *scene.decoys):
        canvas += lesion.contrast * texture(lesion)
    for line in scene.lines:
        canvas += _stroke(line)
    canvas *= scene.gain
    canvas += generator.standard_normal((SIZE, SIZE), np.float32) * STYLES[scene.style].noise
    return np.rint(np.clip(canvas, 0, 1) * 255).astype(np.uint8)


def texture(lesion: Lesion) -> Floats:
    """Return what a lesion adds at contrast 1, in [-1, 1]; zero outside its mask.

    Types differ in texture and shape, not in brightness: a disc, a ring with a dark core, a
    cross, a checkerboard, five dots, a disc half bright and half dark.
    """
    x, y = _X - lesion.x, _Y - lesion.y
    distance = np.sqrt(x * x + y * y) / lesion.radius
    cosine, sine = np.cos(lesion.angle), np.sin(lesion.angle)
    along, across = x * cosine + y * sine, y * cosine - x * sine
    match lesion.type:
        case "nodule":
            pattern = np.ones_like(distance)
        case "cyst":
            pattern = np.where(distance > 0.55, 1.0, -0.7)
        case "mass":
            width = 0.3 * lesion.radius
            arms = (np.abs(along) < width) | (np.abs(across) < width)
            pattern = np.where(arms, 1.0, 0.0)
        case "edema":
            squares = (_X // 2 + _Y // 2) % 2
            pattern = np.where(squares > 0, 1.0, -0.5)
        case "calcification":
            turns = lesion.angle + np.arange(5) * (2 * np.pi / 5)
            dots = np.zeros_like(distance, bool)
            for turn in turns:
                dot_x = 0.68 * lesion.radius * np.cos(turn)
                dot_y = 0.68 * lesion.radius * np.sin(turn)
                dots |= (x - dot_x) ** 2 + (y - dot_y) ** 2 < (0.27 * lesion.radius) ** 2
            pattern = np.where(dots, 1.0, -0.15)
        case _:  # hemorrhage
            pattern = np.where(along > 0, 1.0, -0.8)
    return np.where(distance <= 1, pattern, 0.0).astype(np.float32)


def organ_mask(scene: Scene, name: str) -> Mask:
    """Return where an organ is, bool [64, 64]; organs drawn later hide those under them."""
    mask = np.zeros((SIZE, SIZE), bool)
    for organ in scene.organs:
        inside = _distance(organ) <= 1
        mask = mask | inside if organ.name == name else mask & ~inside
    return mask


def lesion_mask(lesion: Lesion) -> Mask:
    """Return the disc that holds a lesion, bool [64, 64]."""
    return (_X - lesion.x) ** 2 + (_Y - lesion.y) ** 2 <= lesion.radius**2


def region_mask(scene: Scene, organs: tuple[str, ...], lesions: tuple[int, ...]) -> Mask:
    """Return the union of some organs (by name) and lesions (by index), bool [64, 64]."""
    mask = np.zeros((SIZE, SIZE), bool)
    for name in organs:
        mask |= organ_mask(scene, name)
    for index in lesions:
        mask |= lesion_mask(scene.lesions[index])
    return mask


def _distance(organ: Organ) -> Floats:
    x, y = (_X - organ.x) / organ.radius_x, (_Y - organ.y) / organ.radius_y
    return np.sqrt(x * x + y * y)


def _tissue(generator: np.random.Generator) -> Floats:
    """Return a slow random wave, the unevenness of real images."""
    waves = np.zeros((SIZE, SIZE), np.float32)
    for frequency_x, frequency_y, phase in generator.uniform(-1, 1, (3, 3)):
        waves += np.cos(0.25 * (frequency_x * _X + frequency_y * _Y) + 3.1416 * phase)
    return 0.02 * waves


def _stroke(line: Line) -> Floats:
    offset = (_X - line.x) * np.sin(line.angle) - (_Y - line.y) * np.cos(line.angle)
    return line.brightness * np.clip(1.2 - np.abs(offset), 0, 1)
