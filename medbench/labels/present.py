"""Visual prompts: how a segment is shown to the model that names it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from medbench.labels.segment import Masks, box
from medbench.labels.settings import How


def present(
    pixels: npt.NDArray[np.uint8], mask: Masks, *, how: How, blur: float, dim: float
) -> Image.Image:
    """Return an image that shows one segment.

    Args:
        pixels: uint8 [h, w, 3]; mask: bool [h, w], not empty.
        how: "crop" cuts the segment's box out of the image and blackens what is outside the mask
            (A3Tune's published code); "blur" keeps the frame and blurs what is outside (the
            reverse blur of FGVP); "box" cuts the box out with all that is in it.
        blur: standard deviation in pixels of that blur.
        dim: what is outside is multiplied by that after the blur; 1 leaves it as bright.
    """
    left, top, right, bottom = box(mask)
    if how == "box":
        return Image.fromarray(pixels[top:bottom, left:right])
    if how == "crop":
        return Image.fromarray((pixels * mask[..., None])[top:bottom, left:right])
    blurred = np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(blur)))
    outside = np.rint(blurred * np.float32(dim)).astype(np.uint8)
    return Image.fromarray(np.where(mask[..., None], pixels, outside))
