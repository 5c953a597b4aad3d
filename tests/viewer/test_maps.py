"""Attention as bytes: what the browser reads back is what the run wrote, to a byte's precision."""

import base64

import numpy as np
import pytest

from medbench.errors import UserError
from medbench.metrics.attention import encode_map
from medbench.viewer.maps import attention


def read_back(packed):
    data = np.frombuffer(base64.b64decode(packed["data"]), np.uint8)
    tops = np.array(packed["tops"])
    maps = data.reshape(len(tops), *packed["grid"]) / 255
    return maps * tops[:, None, None]


@pytest.mark.parametrize("steps", [0, 3])
def test_maps_come_back(steps):
    maps = np.random.default_rng(0).random((3, 4, 5)) / 20
    row = {"attention": encode_map(maps.mean(axis=0))}
    if steps:
        row["steps"] = {"attention": encode_map(maps), "pieces": ["a", "b", "c"]}
    packed = attention(row)
    assert packed["grid"] == [4, 5]
    expected = np.concatenate([maps.mean(axis=0)[None], maps[:steps]])
    found = read_back(packed)
    assert found.shape == expected.shape
    # Half a byte's step, and the three digits of half precision that the run wrote.
    np.testing.assert_allclose(found, expected, atol=maps.max() * (0.5 / 255 + 0.001))


def test_an_empty_map_and_no_map():
    packed = attention({"attention": encode_map(np.zeros((2, 2)))})
    assert packed["tops"] == [0.0]
    assert not read_back(packed).any()
    assert attention({}) is None


def test_what_is_no_number_is_drawn_as_nothing():
    packed = attention({"attention": encode_map(np.array([[np.nan, 0.5], [np.inf, 0.25]]))})
    np.testing.assert_allclose(read_back(packed), [[[0, 0.5], [0, 0.25]]], atol=0.002)


def test_steps_on_another_grid_are_refused():
    row = {
        "attention": encode_map(np.ones((2, 2))),
        "steps": {"attention": encode_map(np.ones((3, 4, 4))), "pieces": ["a", "b", "c"]},
    }
    with pytest.raises(UserError, match="stored maps do not fit"):
        attention(row)
