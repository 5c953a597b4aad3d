"""Image geometry: how an image, and a mask over it, reach the pixel grid a backbone sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

Fit = Literal["crop", "pad", "squash"]


@dataclass(frozen=True)
class Geometry:
    """How images of any size become squares of pixels.

    Attributes:
        size: side of the square in pixels.
        patch: side of a patch in pixels.
        fit: "crop" scales the shorter side to `size` and cuts the middle out; "pad" puts the
            image on a square of the mean colour and scales that; "squash" ignores the aspect.
        mean, std: per channel, for values scaled to 0..1.
    """

    size: int
    patch: int
    fit: Fit
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.size // self.patch, self.size // self.patch

    def pixels(self, image: Image.Image) -> Tensor:
        """Return float32 [3, size, size], normalised as the vision tower expects."""
        fill = tuple(int(255 * mean) for mean in self.mean)
        placed = self._place(image.convert("RGB"), Image.Resampling.BICUBIC, fill)
        values = np.asarray(placed, dtype=np.float32) / 255
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        return torch.from_numpy(((values - mean) / std).transpose(2, 0, 1).copy())

    def mask_to_grid(
        self, mask: np.ndarray, resize: Literal["nearest", "area"] = "nearest"
    ) -> np.ndarray:
        """Return float32 [rows, columns]: a mask of the image on the patch grid, 0..1.

        Args:
            mask: bool [height, width] in the image's own pixels.
            resize: "nearest" takes the value at each patch's centre, "area" the share of the
                patch that is covered.
        """
        image = Image.fromarray(np.asarray(mask, dtype=bool).astype(np.uint8) * 255)
        placed = np.asarray(self._place(image, Image.Resampling.NEAREST, 0)) > 127
        rows, columns = self.grid
        if resize == "nearest":
            centres = np.arange(rows) * self.patch + self.patch // 2
            return placed[np.ix_(centres, centres)].astype(np.float32)
        cells = placed.reshape(rows, self.patch, columns, self.patch)
        return cells.mean(axis=(1, 3), dtype=np.float32)

    def _place(
        self, image: Image.Image, resample: Image.Resampling, fill: int | tuple[int, ...]
    ) -> Image.Image:
        width, height = image.size
        square = (self.size, self.size)
        if self.fit == "squash":
            return image.resize(square, resample)
        if self.fit == "pad":
            side = max(width, height)
            canvas = Image.new(image.mode, (side, side), fill)
            canvas.paste(image, ((side - width) // 2, (side - height) // 2))
            return canvas.resize(square, resample)
        # As CLIP's processor: the longer side is truncated, not rounded.
        if width <= height:
            scaled = (self.size, int(self.size * height / width))
        else:
            scaled = (int(self.size * width / height), self.size)
        left, top = (scaled[0] - self.size) // 2, (scaled[1] - self.size) // 2
        resized = image.resize(scaled, resample)
        return resized.crop((left, top, left + self.size, top + self.size))
