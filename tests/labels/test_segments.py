"""From an image to filtered segments: the canvas, the filters, and SAM itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from medbench.errors import UserError
from medbench.labels.segment import Segmenter, box, canvas, filtered, load_sam
from medbench.labels.settings import Segmentation

PUBLISHED = Segmentation()


def masks(*boxes: tuple[int, int, int, int], side: int = 256) -> np.ndarray:
    """Return filled boxes (left, top, right, bottom), the ends exclusive."""
    made = np.zeros((len(boxes), side, side), bool)
    for mask, (left, top, right, bottom) in zip(made, boxes, strict=True):
        mask[top:bottom, left:right] = True
    return made


def gradient(width: int, height: int) -> Image.Image:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 250, width)
    pixels[..., 2] = np.linspace(0, 250, height)[:, None]
    return Image.fromarray(pixels)


def test_the_canvas_keeps_the_aspect_or_squashes_as_published() -> None:
    image = gradient(400, 100)
    assert canvas(image, PUBLISHED).shape == (64, 256, 3)
    assert canvas(image, replace(PUBLISHED, fit="squash")).shape == (256, 256, 3)
    assert canvas(gradient(50, 100), PUBLISHED).shape == (256, 128, 3)
    assert canvas(gradient(1000, 1), PUBLISHED).shape == (1, 256, 3)


def test_the_channels_are_swapped_only_as_published() -> None:
    image = gradient(64, 64)
    straight = canvas(image, PUBLISHED)
    assert np.array_equal(
        canvas(image, replace(PUBLISHED, channel_order="bgr")), straight[..., ::-1]
    )


def test_any_kind_of_image_becomes_eight_bit_colour() -> None:
    for mode in ("L", "RGBA", "P", "CMYK", "I;16"):
        made = canvas(Image.new(mode, (30, 20)), PUBLISHED)
        assert (made.shape, made.dtype) == ((171, 256, 3), np.uint8)


@pytest.mark.parametrize(
    ("wanted", "where"),
    [
        (True, (10, 10, 60, 60)),
        # 200 x 200 is 40000 pixels and too large, one row less is not.
        (False, (10, 10, 210, 210)),
        (True, (10, 10, 210, 209)),
        # SAM's box of 13 pixels is 12 wide, which is not wider than 12.
        (False, (10, 10, 23, 60)),
        (True, (10, 10, 24, 60)),
        (False, (10, 10, 60, 23)),
        # At the edge: x = 0 or y = 0, or the last pixel beyond 253.
        (False, (0, 10, 60, 60)),
        (False, (10, 0, 60, 60)),
        (True, (1, 1, 60, 60)),
        (True, (200, 10, 254, 60)),
        (False, (200, 10, 255, 60)),
        (False, (10, 200, 60, 255)),
    ],
)
def test_the_published_filters(wanted: bool, where: tuple[int, int, int, int]) -> None:
    assert len(filtered(masks(where), PUBLISHED)) == wanted


@pytest.mark.parametrize(
    ("wanted", "where"),
    [
        (True, (1, 1, 63, 63)),
        (False, (0, 1, 63, 63)),
        (False, (1, 0, 63, 63)),
        (False, (1, 1, 64, 63)),
        (False, (1, 1, 63, 64)),
    ],
)
def test_a_small_canvas_has_four_edges_too(wanted: bool, where: tuple[int, int, int, int]) -> None:
    kept = filtered(masks(where, side=64), replace(PUBLISHED, side=64))
    assert len(kept) == wanted


def test_filters_keep_order_and_drop_what_is_empty() -> None:
    made = masks((10, 10, 60, 60), (5, 5, 5, 5), (0, 0, 200, 200), (20, 20, 80, 90))
    kept = filtered(made, PUBLISHED)
    assert [box(mask) for mask in kept] == [(10, 10, 60, 60), (20, 20, 80, 90)]
    assert filtered(made[:0], PUBLISHED).shape == (0, 256, 256)
    everywhere = replace(PUBLISHED, drop_border=False, max_area=65537)
    assert len(filtered(made, everywhere)) == 3


def test_a_small_sam_makes_masks_of_the_canvas(sam_folder: Path, lenient: dict[str, Any]) -> None:
    segmenter = Segmenter(load_sam(sam_folder), Segmentation(**lenient))
    found = segmenter(gradient(80, 40))
    assert found.dtype == bool and found.shape[1:] == (32, 64) and len(found)
    assert np.array_equal(found, segmenter(gradient(80, 40)))


def test_an_image_without_segments_is_an_empty_stack(
    sam_folder: Path, lenient: dict[str, Any]
) -> None:
    # A random SAM never believes in its masks as much as SAM's own defaults ask.
    strict = Segmentation(**lenient | {"pred_iou_thresh": 9.0})
    found = Segmenter(load_sam(sam_folder), strict)(gradient(64, 64))
    assert found.shape == (0, 64, 64)


@pytest.mark.slow
def test_an_official_checkpoint_is_known_by_its_width(extra: None, tmp_path: Path) -> None:
    from segment_anything import sam_model_registry

    torch.manual_seed(0)
    made = sam_model_registry["vit_b"]()
    path = tmp_path / "sam_vit_b_01ec64.pth"
    torch.save(made.state_dict(), path)
    loaded = load_sam(path)
    state = loaded.state_dict()
    assert all(torch.equal(state[name], one) for name, one in made.state_dict().items())
    assert not any(one.requires_grad for one in loaded.parameters())


def test_what_is_no_sam_is_named(sam_folder: Path, tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("nothing of the kind")
    (tmp_path / "folder").mkdir()
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "config.json").write_bytes((sam_folder / "config.json").read_bytes())
    weights = (sam_folder / "model.safetensors").read_bytes()
    (tmp_path / "cut" / "model.safetensors").write_bytes(weights[:1000])
    for name in ("other.pth", "text.pth", "folder", "cut", "absent.pth"):
        with pytest.raises(UserError, match="cannot load the SAM") as error:
            load_sam(tmp_path / name)
        assert name in str(error.value)
