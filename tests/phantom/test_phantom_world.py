"""Scenes and pixels: deterministic, and the masks say where the pixels are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medbench.phantom.draw import draw, lesion_mask, organ_mask, region_mask
from medbench.phantom.stream import Stream
from medbench.phantom.world import LESIONS, ORGANS, REFERENCE, SHIFTED, SIZE, Style, lay_out

SEEDS = range(60)


def test_stream_repeats_and_its_choices_are_in_range() -> None:
    first, second = Stream(4, 2), Stream(4, 2)
    assert [first.random() for _ in range(300)] == [second.random() for _ in range(300)]
    assert Stream(2, 4).random() != Stream(4, 2).random()
    assert {Stream(seed).below(3) for seed in SEEDS} == {0, 1, 2}
    assert sorted(Stream(1).several("abcd", 4)) == list("abcd")
    drawn = [Stream(seed).weighted(("often", "never", "rare"), (9, 0, 1)) for seed in range(400)]
    assert drawn.count("never") == 0
    assert 0.05 < drawn.count("rare") / 400 < 0.16


@pytest.mark.parametrize("style", [REFERENCE, SHIFTED], ids=lambda style: style.name)
def test_a_seed_is_one_image(style: Style) -> None:
    scene = lay_out(11, style)
    assert lay_out(11, style) == scene
    image = draw(scene)
    assert image.dtype == np.uint8
    assert image.shape == (SIZE, SIZE)
    assert np.array_equal(draw(lay_out(11, style)), image)
    assert not np.array_equal(draw(lay_out(12, style)), image)


@pytest.mark.parametrize("style", [REFERENCE, SHIFTED], ids=lambda style: style.name)
def test_a_lesion_changes_the_pixels_of_its_mask_only(style: Style) -> None:
    seen = set[str]()
    for seed in SEEDS:
        scene = lay_out(seed, style)
        for index, lesion in enumerate(scene.lesions):
            rest = tuple(other for other in scene.lesions if other is not lesion)
            changed = draw(scene) != draw(replace(scene, lesions=rest))
            mask = lesion_mask(scene.lesions[index])
            assert not (changed & ~mask).any()
            assert changed[mask].mean() > 0.2
            seen.add(lesion.type)
    assert seen == set(LESIONS)


def test_lesions_lie_in_their_organ_and_artefacts_in_none() -> None:
    decoys = 0
    for seed in range(200):
        scene = lay_out(seed, SHIFTED)
        assert len({lesion.organ for lesion in scene.lesions}) == len(scene.lesions)
        for lesion in scene.lesions:
            centre = int(round(lesion.y)), int(round(lesion.x))
            assert organ_mask(scene, lesion.organ)[centre]
            inside = organ_mask(scene, lesion.organ)[lesion_mask(lesion)]
            assert inside.mean() > 0.6
        for decoy in scene.decoys:
            decoys += 1
            organs = region_mask(scene, tuple(organ.name for organ in scene.organs), ())
            assert organs[lesion_mask(decoy)].mean() < 0.15
    assert decoys > 150


def test_organs_of_a_region_are_all_visible_and_apart() -> None:
    for seed in SEEDS:
        scene = lay_out(seed, REFERENCE)
        masks = [organ_mask(scene, name) for name in ORGANS[scene.region]]
        assert all(mask.sum() > 150 for mask in masks)
        assert np.sum(masks, axis=0).max() == 1


def test_shifted_images_are_fainter_and_have_more_rare_lesions() -> None:
    def lesions(style: Style) -> list[tuple[str, float]]:
        return [
            (lesion.type, lesion.contrast)
            for seed in range(300)
            for lesion in lay_out(seed, style).lesions
        ]

    plain, shifted = lesions(REFERENCE), lesions(SHIFTED)
    assert max(c for _, c in shifted) < max(c for _, c in plain)

    def rare(found: list[tuple[str, float]]) -> float:
        return sum(name in ("calcification", "hemorrhage") for name, _ in found) / len(found)

    assert rare(plain) < 0.22
    assert rare(shifted) > 0.4
