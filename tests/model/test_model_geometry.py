"""Pixels against transformers' own processor, and masks that follow their image."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from medbench.model.geometry import Geometry
from medbench.model.llava_format import CLIP_MEAN, CLIP_STD

SIZES = [(48, 48), (31, 97), (200, 33), (97, 31), (5, 7), (1, 3), (49, 48), (640, 479)]


def geometry(fit, size=48, patch=8):
    return Geometry(size, patch, fit, CLIP_MEAN, CLIP_STD)


def drawn(width, height, mode="RGB"):
    draw = np.random.default_rng(width * 1000 + height)
    image = Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8))
    return image.convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "CMYK", "RGBA", "1", "LA"])
@pytest.mark.parametrize("size", SIZES)
def test_cropped_pixels_are_those_of_clips_processor(size, mode):
    image = drawn(*size, mode)
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48}
    )
    expected = processor(image, return_tensors="pt")["pixel_values"][0]
    pixels = geometry("crop").pixels(image)
    assert pixels.shape == (3, 48, 48)
    assert pixels.dtype == torch.float32
    assert (pixels - expected).abs().max() < 1e-4


@pytest.mark.parametrize("size", SIZES)
def test_squashed_pixels_are_those_of_the_processor_without_a_crop(size):
    image = drawn(*size)
    processor = CLIPImageProcessorPil(size={"height": 48, "width": 48}, do_center_crop=False)
    expected = processor(image, return_tensors="pt")["pixel_values"][0]
    assert (geometry("squash").pixels(image) - expected).abs().max() < 1e-4


@pytest.mark.parametrize("size", SIZES)
def test_padded_pixels_are_the_image_in_the_middle_of_the_mean_colour(size):
    image = drawn(*size)
    width, height = size
    side = max(size)
    canvas = np.empty((side, side, 3), dtype=np.uint8)
    canvas[:] = (122, 116, 104)  # int(255 * mean)
    top, left = (side - height) // 2, (side - width) // 2
    canvas[top : top + height, left : left + width] = np.asarray(image)
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48}
    )
    expected = processor(Image.fromarray(canvas), return_tensors="pt")["pixel_values"][0]
    pixels = geometry("pad").pixels(image)
    assert (pixels - expected).abs().max() < 1e-4
    assert torch.equal(pixels, geometry("pad").pixels(image)), "the offset is not drawn"


def test_the_grid_is_counted_in_whole_patches():
    assert geometry("crop").grid == (6, 6)
    assert geometry("crop", size=336, patch=14).grid == (24, 24)


@pytest.mark.parametrize("resize", ["nearest", "area"])
@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
@pytest.mark.parametrize("size", [(96, 48), (48, 96), (200, 130), (33, 47), (48, 48)])
def test_a_mask_lands_on_the_patches_where_its_region_is_seen(size, fit, resize):
    """Paint a rectangle white in a black image; the patches that turn white are the mask's."""
    width, height = size
    draw = np.random.default_rng(1)
    for _ in range(6):
        left, top = int(draw.integers(0, width - 12)), int(draw.integers(0, height - 12))
        right = int(draw.integers(left + 10, width + 1))
        bottom = int(draw.integers(top + 10, height + 1))
        mask = np.zeros((height, width), dtype=bool)
        mask[top:bottom, left:right] = True
        image = Image.fromarray(np.uint8(mask) * 255).convert("RGB")
        shape = geometry(fit)
        pixels = shape.pixels(image)
        std, mean = torch.tensor(CLIP_STD), torch.tensor(CLIP_MEAN)
        light = (pixels * std[:, None, None] + mean[:, None, None]).mean(0).numpy()
        grid = shape.mask_to_grid(mask, resize)
        if fit == "pad":  # what is added around the image is grey, not black
            light = geometry("pad").pixels(Image.fromarray(np.uint8(mask) * 255).convert("RGB"))
            ones = geometry("pad").pixels(Image.new("RGB", size, "black"))
            light = ((light - ones) * std[:, None, None]).mean(0).numpy()
        cells = light.reshape(6, 8, 6, 8)
        share = cells.mean(axis=(1, 3))
        centre = cells[:, 4, :, 4]
        assert grid.shape == (6, 6)
        assert grid.dtype == np.float32
        # Bicubic edges blur over about a pixel of the source: judge where it is clear.
        if resize == "area":
            assert np.abs(grid - share).max() < 0.3
            assert (grid[share > 0.99] > 0.8).all()
            assert (grid[share < 0.01] < 0.2).all()
        else:
            assert (grid[centre > 0.9] == 1).all()
            assert (grid[centre < 0.1] == 0).all()


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_nearest_takes_the_centre_and_area_the_share_of_each_patch(fit):
    """The image has the model's size already, so that the loops need no resizing."""
    mask = np.random.default_rng(0).random((48, 48)) > 0.5
    nearest = geometry(fit).mask_to_grid(mask, "nearest")
    area = geometry(fit).mask_to_grid(mask, "area")
    for row in range(6):
        for column in range(6):
            cell = mask[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8]
            assert nearest[row, column] == cell[4, 4]
            assert area[row, column] == pytest.approx(cell.sum() / 64)


def test_what_the_crop_cuts_off_is_lost_to_the_mask_too():
    mask = np.zeros((48, 144), dtype=bool)
    mask[:, :40] = True
    assert geometry("crop").mask_to_grid(mask).sum() == 0
    assert geometry("pad").mask_to_grid(mask).sum() > 0
    assert geometry("squash").mask_to_grid(mask).sum() > 0


@pytest.mark.parametrize("values", [np.uint8(255), np.uint8(1), np.int64(7), True])
def test_a_mask_is_what_is_not_zero(values):
    mask = np.zeros((48, 48), dtype=np.asarray(values).dtype)
    mask[:8, 8:16] = values
    grid = geometry("crop").mask_to_grid(mask)
    assert grid[0, 1] == 1
    assert grid.sum() == 1
