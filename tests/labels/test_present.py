"""How a segment is shown to the model that names it."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from medbench.labels.present import present
from medbench.labels.settings import How


def shown(pixels: np.ndarray, mask: np.ndarray, how: How, blur: float = 2, dim: float = 1):
    return np.asarray(present(pixels, mask, how=how, blur=blur, dim=dim))


def scene() -> tuple[np.ndarray, np.ndarray]:
    pixels = np.random.default_rng(0).integers(1, 255, (12, 16, 3)).astype(np.uint8)
    mask = np.zeros((12, 16), bool)
    mask[3:7, 4:10] = True
    mask[3, 4] = False
    return pixels, mask


def test_crop_cuts_the_box_and_blackens_what_is_outside_the_mask() -> None:
    pixels, mask = scene()
    found = shown(pixels, mask, "crop")
    assert found.shape == (4, 6, 3)
    assert not found[0, 0].any()
    expected = pixels[3:7, 4:10].copy()
    expected[0, 0] = 0
    assert np.array_equal(found, expected)


def test_box_cuts_the_box_with_all_that_is_in_it() -> None:
    pixels, mask = scene()
    assert np.array_equal(shown(pixels, mask, "box"), pixels[3:7, 4:10])


def test_blur_keeps_the_frame_and_blurs_and_dims_what_is_outside() -> None:
    pixels, mask = scene()
    found = shown(pixels, mask, "blur", blur=3, dim=0.5)
    assert found.shape == pixels.shape
    assert np.array_equal(found[mask], pixels[mask])
    blurred = np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(3)))
    assert np.array_equal(found[~mask], np.rint(blurred[~mask] * 0.5).astype(np.uint8))
    # Without a blur or a dimming the image is as it was.
    assert np.array_equal(shown(pixels, mask, "blur", blur=0), pixels)


def test_one_pixel_is_shown_too() -> None:
    pixels, mask = scene()
    mask[:] = False
    mask[11, 15] = True
    assert shown(pixels, mask, "crop").shape == (1, 1, 3)
    assert shown(pixels, mask, "blur").shape == pixels.shape
