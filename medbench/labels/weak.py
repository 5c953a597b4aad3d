"""Weak labels of samples: computed where they are missing, then looked up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from PIL.Image import Image

from medbench import images
from medbench.clip import Clip, load_clip
from medbench.labels.pictures import by_picture, key
from medbench.labels.rank import best_first, score_segments, text_key
from medbench.labels.segment import Masks, Segmenter, canvas, load_sam
from medbench.provider import Region, Surroundings
from medbench.task import Sample

if TYPE_CHECKING:
    from medbench.providers.sam_biomedclip import SamBiomedclip


@dataclass(frozen=True)
class _Picture:
    """A picture's key, and its height and width."""

    key: str
    size: tuple[int, int]


class WeakLabels:
    """Segments and their scores, from disk where they are, from the models where they are not.

    The models are loaded when the first thing is missing, so nothing of the extra is needed where
    all is there.

    Args:
        provider: its settings and paths; around: task, device, progress.
    """

    def __init__(self, provider: SamBiomedclip, around: Surroundings) -> None:
        self._provider, self._around = provider, around
        self._segments, self._scores = (memo.of(around.task) for memo in provider.memos())
        self._pictures: dict[str, _Picture] = {}

    def compute(self, samples: Sequence[Sample]) -> int:
        """Compute what is missing for these samples; return for how many pictures that was.

        What is done is on disk at once, so that a killed job goes on where it was.
        """
        pictures = by_picture(samples)
        computed = 0
        for done, (name, about) in enumerate(pictures.items()):
            self._around.progress(done, len(pictures), "")
            image = images.opened(about[0])
            self._pictures[name] = _Picture(key(image), (image.height, image.width))
            texts = list(dict.fromkeys(self.text(sample) for sample in about))
            computed += self._complete(self._pictures[name].key, image, texts)
        self._around.progress(len(pictures), len(pictures), "")
        return computed

    def regions(self, sample: Sample) -> list[Region]:
        """Return a computed sample's segments, the best first."""
        picture = self._picture(sample)
        masks = self.masks(sample)
        if not len(masks):
            return []
        name = text_key(picture.key, self.text(sample))
        scores = self._scores.read([name])[name]
        return [Region(masks[i], float(scores[i]), picture.size) for i in best_first(scores)]

    def masks(self, sample: Sample) -> Masks:
        """Return the segments of a computed sample's picture in SAM's order, bool [S, h, w]."""
        name = self._picture(sample).key
        return self._segments.read([name])[name]

    def text(self, sample: Sample) -> str:
        """Return what a sample's segments are compared with."""
        how = self._provider.text
        if how == "question":
            return sample.question
        return self._around.task.name_region(sample, published=how == "published")

    def _picture(self, sample: Sample) -> _Picture:
        name = images.name(sample)
        if name not in self._pictures:
            self.compute([sample])
        return self._pictures[name]

    def _complete(self, picture: str, image: Image, texts: Sequence[str]) -> bool:
        """Compute what one picture lacks; say whether it lacked anything."""
        keys = {text_key(picture, text): text for text in texts}
        found = self._segments.read([picture])
        if picture in found and not len(found[picture]):
            return False  # no segments, so nothing to score
        scored = self._scores.has(list(keys))
        missing = [one for one in keys if one not in scored]
        if picture in found and not missing:
            return False
        if picture not in found:
            found[picture] = self._segmenter(image)
            self._segments.write(found)
        pixels = canvas(image, self._provider)
        scores = score_segments(
            self._clip, pixels, found[picture], [keys[one] for one in missing], self._provider
        )
        self._scores.write(dict(zip(missing, scores.astype(np.float32), strict=True)))
        return True

    @cached_property
    def _segmenter(self) -> Segmenter:
        sam = load_sam(self._provider.sam_path(), self._around.device)
        return Segmenter(sam, self._provider)

    @cached_property
    def _clip(self) -> Clip:
        return load_clip(self._provider.clip_path(), self._around.device)
