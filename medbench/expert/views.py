"""An expert's views of pictures: computed where they are missing, then looked up."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL.Image import Image

from medbench import images
from medbench.expert import resample
from medbench.labels.pictures import by_picture, key
from medbench.provider import ExpertView, Surroundings
from medbench.task import Sample

if TYPE_CHECKING:
    from medbench.expert.settings import ClipExpert
    from medbench.expert.tower import Tower

# Bytes of views to keep in memory; the longest unused go first.
_LIMIT = 512 * 2**20


class Views:
    """Views from disk where they are, from the tower where they are not.

    The tower is loaded when the first view is missing, so nothing of the extra is needed where
    all are there. On disk a view is two arrays: the upper triangle of its inner products, as
    float16 and scaled so that the largest is 1, and the attention on the grid.

    Args:
        expert: its settings; around: the student's geometry, device, progress.
    """

    def __init__(self, expert: ClipExpert, around: Surroundings) -> None:
        self._expert, self._around = expert, around
        self._memo = expert.memo(around).of(around.task)
        self._pictures: dict[str, tuple[str, tuple[int, int]]] = {}
        self._kept: OrderedDict[str, ExpertView] = OrderedDict()
        self._held = 0

    def compute(self, samples: Sequence[Sample]) -> int:
        """Compute what is missing for these samples; return for how many pictures that was.

        What is done is on disk at once, so that a killed job goes on where it was.
        """
        pictures = by_picture(samples)
        waiting: dict[str, Image] = {}
        computed = 0
        for done, (name, about) in enumerate(pictures.items()):
            self._around.progress(done, len(pictures), "")
            image = images.opened(about[0])
            picture = key(image)
            self._pictures[name] = picture, (image.height, image.width)
            if picture not in waiting and not self._memo.has([_attention(picture)]):
                waiting[picture] = image
            if len(waiting) == self._expert.batch_size:
                computed += self._look(waiting)
                waiting = {}
        computed += self._look(waiting)
        self._around.progress(len(pictures), len(pictures), "")
        return computed

    def __call__(self, sample: Sample) -> ExpertView:
        """Return the view of a sample's image."""
        name = images.name(sample)
        if name not in self._pictures:
            self.compute([sample])
        picture, size = self._pictures[name]
        if picture not in self._kept:
            view = self._read(picture, size)
            self._kept[picture] = view
            self._held += view.gram.nbytes
            while self._held > _LIMIT and len(self._kept) > 1:
                self._held -= self._kept.popitem(last=False)[1].gram.nbytes
        self._kept.move_to_end(picture)
        return self._kept[picture]

    def _read(self, picture: str, size: tuple[int, int]) -> ExpertView:
        found = self._memo.read([_gram(picture), _attention(picture)])
        attention = found[_attention(picture)]
        rows, columns = attention.shape
        triangle = torch.from_numpy(found[_gram(picture)]).float()
        gram = resample.unpacked(triangle, attention.size)
        if self._expert.divide_by_max:
            attention = attention / attention.max()
        return ExpertView((rows, columns), gram.numpy(), attention.ravel(), size)

    def _look(self, pictures: dict[str, Image]) -> int:
        """Compute and keep the views of some pictures; say of how many."""
        if not pictures:
            return 0
        pixels = self._tower.pixels(list(pictures.values()), self._expert.fit(self._around))
        features, attention = self._tower.look(pixels, self._expert.feature)
        if self._expert.prenorm:
            features = torch.nn.functional.normalize(features, dim=-1)
        grams = features @ features.transpose(1, 2)
        arrays: dict[str, np.ndarray] = {}
        for picture, gram, seen in zip(pictures, grams.cpu(), attention.cpu(), strict=True):
            # No similarity depends on the scale, and float16 then holds them to 0.0005.
            gram = gram / gram.diagonal().amax()
            arrays[_gram(picture)] = resample.packed(gram).half().numpy()
            arrays[_attention(picture)] = seen.view(self._tower.grid).numpy()
        self._memo.write(arrays)
        return len(pictures)

    @cached_property
    def _tower(self) -> Tower:
        return self._expert.load(self._around.device)


def _gram(picture: str) -> str:
    return f"{picture}/gram"


def _attention(picture: str) -> str:
    return f"{picture}/attention"
