"""What the phantom's CLIP learns from: segments as it sees them, with questions and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from medbench.labels.present import present
from medbench.labels.quality import RIGHT, overlaps
from medbench.phantom.draw import Mask, lesion_mask, organ_mask, region_mask
from medbench.phantom.model import GRID, PATCH
from medbench.phantom.questions import KINDS, PHRASINGS, Question, ask
from medbench.phantom.stream import Stream
from medbench.phantom.train_vision import MAPS
from medbench.phantom.world import LESIONS, ORGAN_NAMES, SIZE, Scene

Bytes: TypeAlias = npt.NDArray[np.uint8]

PREFIX = "medical image of {region} . {question}"
BLUR, DIM = 2.0, 0.35  # how what is outside a segment is shown
NAMES = (*ORGAN_NAMES, *LESIONS)


@dataclass(frozen=True)
class Cut:
    """A scene, its grey image, uint8 [64, 64], and its segments, bool [segments, 64, 64]."""

    scene: Scene
    image: Bytes
    segments: Mask


def as_pil(image: Bytes) -> Image.Image:
    """Return a grey image as the libraries take it."""
    return Image.fromarray(image).convert("RGB")


def shown(image: Bytes, mask: Mask | None) -> Bytes:
    """Return a grey image with one segment left sharp, as the CLIP is shown it; None: whole."""
    if mask is None:
        return image
    pixels = np.repeat(image[..., None], 3, axis=-1)
    return np.asarray(present(pixels, mask, how="blur", blur=BLUR, dim=DIM))[..., 0]


def labels_inside(labels: Bytes, mask: Mask | None) -> npt.NDArray[np.float32]:
    """Return a scene's patch labels, [64, maps] in [0, 1], of what a segment leaves sharp."""
    whole = labels.astype(np.float32) / np.float32(255)
    if mask is None:
        return whole
    cover = mask.reshape(GRID, PATCH, GRID, PATCH).mean((1, 3), dtype=np.float32).reshape(-1, 1)
    return (whole * np.minimum(2 * cover, 1)).astype(np.float32)


def segment_labels(scene: Scene, mask: Mask) -> npt.NDArray[np.float32]:
    """Return what a segment is, [maps]: the organ or lesion it fits, with the lesion's place."""
    labels = np.zeros(len(MAPS), np.float32)
    for lesion in scene.lesions:
        if overlaps(mask[None], lesion_mask(lesion))[0] > RIGHT:
            for name in (lesion.type, lesion.size, lesion.organ):
                labels[MAPS.index(name)] = 1
            return labels
    for organ in scene.organs:
        if overlaps(mask[None], organ_mask(scene, organ.name))[0] > RIGHT:
            labels[MAPS.index(organ.name)] = 1
    return labels


def question_text(scene: Scene, question: Question, *, prefix: bool) -> str:
    """Return what the text tower is given."""
    if not prefix:
        return question.text
    return PREFIX.format(region=scene.region, question=question.text)


def names_in(text: str) -> npt.NDArray[np.bool_]:
    """Return which organs and types of lesion a text names, bool [names]."""
    return np.array([name in text for name in NAMES])


class Batch:
    """The segments and questions of some images, and which belong together.

    Attributes:
        images: one a segment, as shown; segment_labels: what each is, [segments, maps].
        texts: of questions that one of their image's segments answers; names: in each of them.
        right, same, nothing_shared: bool [texts, segments], as `ranking_loss` takes them.
    """

    def __init__(self, cuts: Sequence[Cut], questions: int, stream: Stream) -> None:
        self.images: list[Bytes] = []
        self.texts: list[str] = []
        labels, owners = list[npt.NDArray[np.float32]](), list[int]()
        asked, right = list[int](), list[npt.NDArray[np.bool_]]()
        for number, cut in enumerate(cuts):
            self.images += [shown(cut.image, mask) for mask in cut.segments]
            labels += [segment_labels(cut.scene, mask) for mask in cut.segments]
            owners += [number] * len(cut.segments)
            for text, fits in _questions(cut, questions, stream):
                self.texts.append(text)
                asked.append(number)
                right.append(fits)
        self.segment_labels = torch.from_numpy(np.stack(labels))
        self.same = torch.tensor(asked)[:, None] == torch.tensor(owners)
        self.right = torch.zeros(self.same.shape, dtype=torch.bool)
        self.right[self.same] = torch.from_numpy(np.concatenate([*right, np.zeros(0, bool)]))
        names = np.array([names_in(text) for text in self.texts], bool).reshape(-1, len(NAMES))
        self.names = torch.from_numpy(names)
        shared = self.names.float() @ self.segment_labels[:, : len(NAMES)].T > 0
        # what names nothing may be about any segment of another image
        self.nothing_shared = self.names.any(1, keepdim=True) & ~shared


def _questions(cut: Cut, count: int, stream: Stream) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    """Return texts with the segments that are right for them, of those where any is."""
    found = list[tuple[str, npt.NDArray[np.bool_]]]()
    for _ in range(count):
        question = any_question(cut.scene, stream)
        if question is None:
            continue
        region = region_mask(cut.scene, question.organs, question.lesions)
        fits = overlaps(cut.segments, region) > RIGHT
        if fits.any():
            found.append((question_text(cut.scene, question, prefix=stream.chance(0.5)), fits))
    return found


def any_question(scene: Scene, stream: Stream) -> Question | None:
    """Ask anything in any phrasing: a CLIP has read more than the base model."""
    kind = stream.choose(KINDS)
    phrasing = stream.below(len(PHRASINGS[kind]))
    return ask(scene, kind, stream, phrasing=phrasing, want=stream.random())


def some_mask(scene: Scene, generator: np.random.Generator) -> Mask:
    """Return a lesion, a decoy or an organ, or a disc anywhere."""
    place = generator.random()
    discs = (*scene.lesions, *scene.decoys)
    if place < 0.45 and discs:
        return lesion_mask(discs[int(generator.integers(len(discs)))])
    if place < 0.9:
        organ = scene.organs[int(generator.integers(len(scene.organs)))]
        return organ_mask(scene, organ.name)
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    centre, radius = generator.uniform(0, SIZE, 2), generator.uniform(4, 12)
    return (x - centre[0]) ** 2 + (y - centre[1]) ** 2 <= radius**2
