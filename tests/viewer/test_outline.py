"""Lines around regions: filled again, they are the regions."""

import numpy as np
import pytest

from medbench.viewer.outline import outline, shrunk


@pytest.mark.parametrize("seed", range(8))
def test_a_path_encloses_what_it_was_drawn_around(seed, filled):
    draws = np.random.default_rng(seed)
    mask = draws.random((12, 17)) > (0.3, 0.5, 0.7, 0.95)[seed % 4]
    np.testing.assert_array_equal(filled(outline(mask), *mask.shape), mask)


def test_a_rectangle_is_four_lines_and_a_hole_a_loop_of_its_own(filled):
    mask = np.zeros((6, 9), bool)
    mask[1:5, 2:8] = True
    assert outline(mask) == "M2 1h6v4h-6z"
    mask[2:4, 4:6] = False
    assert outline(mask).count("M") == 2
    np.testing.assert_array_equal(filled(outline(mask), 6, 9), mask)
    assert outline(np.zeros((3, 3), bool)) == ""
    np.testing.assert_array_equal(filled(outline(np.ones((3, 4), bool)), 3, 4), np.ones((3, 4)))


def test_a_region_is_made_small_by_what_most_of_a_pixel_is():
    mask = np.zeros((40, 80), bool)
    mask[8:20, 20:40] = True
    small = shrunk(mask, 20, 10)
    assert small.shape == (10, 20)
    expected = np.zeros((10, 20), bool)
    expected[2:5, 5:10] = True
    np.testing.assert_array_equal(small, expected)
    assert shrunk(mask, 80, 40) is mask


def test_a_region_too_small_for_a_pixel_does_not_vanish():
    mask = np.zeros((100, 100), bool)
    mask[50, 50] = True
    small = shrunk(mask, 10, 10)
    assert small.sum() == 1
    assert small[5, 5]
