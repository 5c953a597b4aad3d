"""Opening the images of samples, encoding each one once, and keeping what fits in memory.

Workers open the images of the next batch while the model is at this one.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from PIL.Image import Image
from torch import Tensor

from medbench.data.pictures import open_image
from medbench.errors import UserError
from medbench.method import Decoder
from medbench.model.llava import Backbone
from medbench.run_images import digest_of, name
from medbench.task import Sample

LIMIT_BYTES = 512 * 2**20
# Pillow decodes without holding the interpreter's lock; more threads than this wait for the disk.
WORKERS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True)
class Encoded:
    """An image as a backbone sees it.

    Attributes:
        pixels: float32 [3, size, size]; features: [N, width], projected.
        digest: sha256 of the RGB pixels as loaded.
        looked: what the decoder read off the vision tower, if it reads anything.
    """

    pixels: Tensor
    features: Tensor
    digest: str
    looked: Tensor | None = None


class ImageEncoder:
    """Encodes the images of samples one by one, so that no neighbour moves a digit.

    Args:
        backbone: whose tower and geometry.
        decoder: may read something off the tower on the way (`Decoder.look`).
        limit: bytes of pixels and features to keep; the longest unused go first.
    """

    def __init__(
        self, backbone: Backbone, decoder: Decoder | None = None, limit: int = LIMIT_BYTES
    ) -> None:
        self._backbone = backbone
        self._decoder = decoder or Decoder()
        self._limit = limit
        self._held = 0
        self._kept: OrderedDict[str, Encoded] = OrderedDict()
        self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="images")
        self._coming: dict[str, Future[tuple[Tensor, str]]] = {}

    def ahead(self, samples: Iterable[Sample]) -> None:
        """Let workers open the images of samples that are to be asked for next.

        What another call left unasked for is dropped, so that no more than a batch is waiting.
        """
        wanted = {name(sample): sample for sample in samples}
        for key in self._coming.keys() - wanted.keys():
            self._coming.pop(key).cancel()
        for key, sample in wanted.items():
            if key not in self._kept and key not in self._coming:
                self._coming[key] = self._workers.submit(self._open, sample)

    def __call__(self, sample: Sample) -> Encoded:
        """Return a sample's image, encoded.

        Raises:
            UserError: the image cannot be read.
        """
        key = name(sample)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        coming = self._coming.pop(key, None)
        pixels, digest = coming.result() if coming else self._open(sample)
        features, looked = encode(self._backbone, self._decoder, pixels[None])
        encoded = Encoded(pixels, features, digest, looked)
        self._keep(key, encoded)
        return encoded

    def _open(self, sample: Sample) -> tuple[Tensor, str]:
        """Return a sample's pixels, [3, size, size], and the sha256 of the image as loaded."""
        image = opened(sample)
        pixels = self._backbone.pixel_values([image])[0]
        return pixels, digest_of(image)

    def _keep(self, key: str, encoded: Encoded) -> None:
        self._kept[key] = encoded
        self._held += _size(encoded)
        while self._held > self._limit and len(self._kept) > 1:
            self._held -= _size(self._kept.popitem(last=False)[1])


def opened(sample: Sample) -> Image:
    """Open a sample's image.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return open_image(sample.image)
    # What reading an image out of an archive or a table may raise.
    except (OSError, ValueError, SyntaxError, EOFError, LookupError) as error:
        raise UserError(
            f"cannot read the image of sample {sample.id}",
            f"{type(error).__name__}: {str(error).partition(chr(10))[0]}",
            "Mend the data and run the same command again; what is answered is kept.",
        ) from error


def _size(encoded: Encoded) -> int:
    tensors = (encoded.pixels, encoded.features, encoded.looked)
    return sum(one.element_size() * one.nelement() for one in tensors if one is not None)


def encode(backbone: Backbone, decoder: Decoder, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the features [N, width] of one image, and what the decoder reads off the tower.

    Args:
        pixels: float32 [1, 3, size, size].
    """
    states = backbone.vision_states(pixels)
    with torch.no_grad():
        looked = decoder.look(backbone, states)
    return backbone.project(states)[0], None if looked is None else looked[0]


def stacked(tensors: Sequence[Tensor | None]) -> Tensor | None:
    """Stack what the images of a batch have, [samples, ...]; None if one has nothing."""
    found = [one for one in tensors if one is not None]
    return torch.stack(found) if found and len(found) == len(tensors) else None
