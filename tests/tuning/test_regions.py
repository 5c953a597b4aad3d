"""Where regions come from, and how they reach the patch grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from torch import Tensor

from medbench import plugins, spec
from medbench.errors import UserError
from medbench.method import Target, Tuner
from medbench.methods.a3tune import A3Tune
from medbench.model.geometry import Fit, Geometry
from medbench.model.llava import Backbone
from medbench.provider import Region, Regions
from medbench.providers.roi import Roi
from medbench.providers.wrong import Wrong
from medbench.task import Sample
from medbench.tuning.regions import regions_on_grid

MakeTuner = Callable[..., Tuner]
Mask = np.ndarray


def geometry(fit: Fit) -> Geometry:
    return Geometry(size=16, patch=4, fit=fit, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def sample(mask: Mask | None) -> Sample:
    roi = None if mask is None else (lambda: mask)
    return Sample("s", lambda: None, "q", "a", "open", "g", roi=roi)  # type: ignore[arg-type,return-value]


def box(height: int, width: int, top: int, left: int, bottom: int, right: int) -> Mask:
    mask = np.zeros((height, width), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def regions(provider: Regions, one: Sample) -> Sequence[Region]:
    return provider.open([one], cast(Any, None))(one)


def on_grid(masks: list[Mask], geometry: Geometry, **options: Any) -> Tensor:
    return regions_on_grid(
        [Region(mask, None, (mask.shape[0], mask.shape[1])) for mask in masks], geometry, **options
    )


def target(tuner: Tuner, backbone: Backbone) -> Target:
    """Return what gives a sample's segments under the provider that the tuner names."""
    provider = plugins.create("provider", spec.parse(tuner.labels))[1]  # type: ignore[attr-defined]
    return tuner.targets(backbone, {"labels": provider.open([], cast(Any, None))})["segments"]


def grid(*lines: str) -> list[float]:
    return [float(letter == "#") for line in lines for letter in line]


def test_roi_is_the_samples_region_or_nothing() -> None:
    mask = box(8, 8, 0, 0, 2, 2)
    (found,) = regions(Roi(), sample(mask))
    assert np.array_equal(found.mask, mask)
    assert found.size == (8, 8)
    assert regions(Roi(), sample(None)) == []
    assert regions(Wrong(), sample(None)) == []


def test_wrong_is_the_same_region_three_eighths_away_both_ways() -> None:
    (found,) = regions(Wrong(), sample(box(8, 16, 1, 2, 3, 5)))
    assert np.array_equal(found.mask, box(8, 16, 4, 8, 6, 11))
    # What leaves on one side comes in on the other: the area stays.
    (around,) = regions(Wrong(), sample(box(8, 16, 6, 12, 8, 16)))
    assert around.mask.sum() == 8
    assert np.array_equal(around.mask, box(8, 16, 1, 2, 3, 6))


# A region over the top left quarter of an image twice as wide as high.
WIDE = box(16, 32, 0, 0, 8, 16)


@pytest.mark.parametrize(
    ("fit", "model", "squash"),
    [
        # The crop keeps the middle half of the width: the region's right half, top half.
        ("crop", grid("##..", "##..", "....", "...."), grid("##..", "##..", "....", "....")),
        # The pad puts a quarter of nothing above and below.
        ("pad", grid("....", "##..", "....", "...."), grid("##..", "##..", "....", "....")),
    ],
)
def test_a_mask_is_placed_as_the_model_places_the_image_or_squashed(
    fit: Fit, model: list[float], squash: list[float]
) -> None:
    assert on_grid([WIDE], geometry(fit)).tolist() == [model]
    assert on_grid([WIDE], geometry(fit), fit="squash").tolist() == [squash]


def test_a_crop_loses_what_lies_outside_while_a_squash_keeps_it() -> None:
    mask = box(16, 32, 0, 0, 16, 8)
    assert on_grid([mask], geometry("crop")).shape == (0, 16)
    squashed = on_grid([mask], geometry("crop"), fit="squash")
    assert squashed.tolist() == [grid("#...", "#...", "#...", "#...")]


def test_nearest_takes_the_patchs_centre_and_area_its_covered_share() -> None:
    mask = box(16, 16, 0, 0, 4, 6)  # patch (0, 1) is half covered, left of its centre
    nearest = on_grid([mask], geometry("pad"))
    assert nearest.tolist() == [grid("#...", "....", "....", "....")]
    (area,) = on_grid([mask], geometry("pad"), resize="area")
    assert area[:4].tolist() == [1.0, 0.5, 0.0, 0.0]
    assert area[4:].sum() == 0


def test_a_region_that_vanishes_is_dropped_or_kept_as_asked() -> None:
    thin, real = box(16, 16, 0, 0, 16, 1), box(16, 16, 0, 0, 8, 8)
    assert on_grid([thin, real], geometry("pad")).shape == (1, 16)
    kept = on_grid([thin, real], geometry("pad"), drop_empty=False)
    assert kept.sum(1).tolist() == [0.0, 4.0]
    assert on_grid([thin], geometry("pad"), resize="area").shape == (1, 16)


def test_no_regions_are_no_rows() -> None:
    assert on_grid([], geometry("pad")).shape == (0, 16)


def test_the_method_passes_its_options_on(backbone: Backbone, make_tuner: MakeTuner) -> None:
    thin = box(16, 32, 0, 0, 16, 2)
    options = (
        ({}, (0, 16)),
        ({"mask_geometry": "squash", "mask_resize": "area"}, (1, 16)),
        ({"drop_empty": "false"}, (1, 16)),
        ({"variant": "official"}, (1, 16)),
    )
    for written, shape in options:
        label = target(make_tuner("a3tune", labels="roi", **written), backbone)
        assert label(sample(thin)).shape == shape
    moved = target(make_tuner("a3tune", labels="wrong"), backbone)
    # Rows 0 to 4 and columns 0 to 8 go to 6 to 10 and 12 to 20; the toy sees columns 8 to 24.
    found = moved(sample(box(16, 32, 0, 0, 4, 8)))
    assert found.tolist() == [grid("....", ".##.", "....", "....")]


def test_without_alignment_no_region_is_read(backbone: Backbone, make_tuner: MakeTuner) -> None:
    for tuner in (make_tuner("a3tune", align_weight=0), make_tuner("a3tune", R=0)):
        assert tuner.supervised() == ()
        assert tuner.targets(backbone, {}) == {}
    assert make_tuner("lora").targets(backbone, {}) == {}


def test_a_class_token_among_the_visual_tokens_lies_in_no_region(
    backbone: Backbone, make_tuner: MakeTuner
) -> None:
    full = replace(backbone, vision_select="full")
    label = target(make_tuner("a3tune", labels="roi"), full)
    found = label(sample(box(16, 16, 0, 0, 4, 4)))
    assert found.shape == (1, full.image_tokens)
    assert found[0].tolist() == [0.0, *grid("#...", "....", "....", "....")]


def test_a_task_without_an_alignment_weight_is_a_users_error(backbone: Backbone) -> None:
    with pytest.raises(UserError, match="how strongly to align"):
        A3Tune().extend(backbone)
    assert A3Tune(align_weight=0.0).extend(backbone) is not None
