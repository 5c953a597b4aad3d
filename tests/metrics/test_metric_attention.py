"""Attention metrics against loops over patches; maps and masks to text and back."""

from __future__ import annotations

import json

import numpy as np
import pytest

from medbench.errors import UserError
from medbench.metrics.attention import (
    CoverageMinmax,
    CoverageSum,
    InRegion,
    IntensityMinmax,
    IntensitySum,
    OnRegion,
    decode_map,
    decode_mask,
    encode_map,
    encode_mask,
)
from medbench.rows import Row

METRICS = (CoverageMinmax, CoverageSum, IntensityMinmax, IntensitySum, InRegion)


def row(attention: np.ndarray, region: np.ndarray, kind: str = "open") -> Row:
    return {"kind": kind, "attention": encode_map(attention), "roi": encode_mask(region)}


def naive(name: str, attention: list[list[float]], region: list[list[bool]]) -> float:
    """Loop over the patches, in the words of the definition."""
    flat = [value for line in attention for value in line]
    low, high, total = min(flat), max(flat), sum(flat)
    kept: list[float] = []
    for line, inside in zip(attention, region, strict=True):
        for value, there in zip(line, inside, strict=True):
            if there:
                if name.endswith("minmax"):
                    kept.append((value - low) / (high - low) if high > low else 0.0)
                else:
                    kept.append(value / total if total else 0.0)
    if name.startswith("coverage"):
        return sum(value >= 0.15 for value in kept) / len(kept)
    return sum(kept) if name == "attention/in_roi" else sum(kept) / len(kept)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("grid", [(2, 3), (6, 6), (24, 24)])
def test_against_a_naive_reference(metric: type[OnRegion], grid: tuple[int, int]) -> None:
    generator = np.random.default_rng(3)
    for _ in range(20):
        # Of half precision from the start, so that storing changes nothing.
        attention = decode_map(encode_map(generator.random(grid) ** 4 / 20))
        region = generator.random(grid) < 0.4
        region[0, 0] = True
        (found,) = metric().items([row(attention, region)])
        expected = naive(metric.name, attention.tolist(), region.tolist())
        assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("level", [0.0, 0.5])
def test_constant_map(metric: type[OnRegion], level: float) -> None:
    region = np.array([[True, False], [False, False]])
    (found,) = metric().items([row(np.full((2, 2), level), region)])
    flat_share = {"coverage/sum": 1.0, "intensity/sum": 0.25, "attention/in_roi": 0.25}
    assert found == (flat_share.get(metric.name, 0.0) if level else 0.0)


def test_the_normalisation_decides_whether_sharper_attention_covers_more() -> None:
    region = np.array([[True, True, False], [False, False, False]])
    broad = row(np.array([[0.14, 0.14, 0.2], [0.2, 0.2, 0.12]]), region)
    sharp = row(np.array([[0.75, 0.11, 0.05], [0.05, 0.02, 0.02]]), region)
    assert CoverageMinmax().items([broad, sharp]) == [1.0, 0.5]
    assert CoverageSum().items([broad, sharp]) == [0.0, 0.5]
    assert InRegion().items([broad, sharp]) == pytest.approx([0.28, 0.86], abs=1e-3)


@pytest.mark.parametrize("metric", METRICS)
def test_rows_without_a_region_do_not_apply(metric: type[OnRegion]) -> None:
    full = row(np.ones((2, 2)), np.ones((2, 2), dtype=bool))
    empty = row(np.ones((2, 2)), np.zeros((2, 2), dtype=bool))
    bare: Row = {"kind": "open", "output": "lung", "gold": "lung"}
    only_map: Row = {"kind": "open", "attention": full["attention"]}
    only_region: Row = {"kind": "open", "roi": full["roi"]}
    rows = [full, empty, bare, only_map, only_region]
    assert [metric().applies(item) for item in rows] == [True, False, False, False, False]
    assert metric().notes(rows) == {"n_empty_region": 1}


@pytest.mark.parametrize("metric", METRICS)
def test_own_examples(metric: type[OnRegion]) -> None:
    for output, gold, expected in metric.golden:
        (found,) = metric().items([metric().example(output, gold)])
        assert found == pytest.approx(expected, abs=1e-6)


def test_grids_must_agree() -> None:
    with pytest.raises(UserError, match="cannot be read") as raised:
        InRegion().items([row(np.ones((2, 2)), np.ones((3, 3), dtype=bool))])
    assert "(2, 2)" in raised.value.why


@pytest.mark.parametrize("grid", [(1, 1), (3, 5), (16, 16), (24, 24)])
def test_maps_and_masks_survive_a_line_of_json(grid: tuple[int, int]) -> None:
    generator = np.random.default_rng(1)
    attention, mask = generator.random(grid).astype(np.float16), generator.random(grid) < 0.5
    packed = json.loads(json.dumps([encode_map(attention), encode_mask(mask)]))
    assert np.array_equal(decode_map(packed[0]), attention.astype(np.float64))
    assert np.array_equal(decode_mask(packed[1]), mask)
    assert packed[0]["grid"] == list(grid)


def test_maps_of_steps_survive_too_but_are_no_map_of_a_row() -> None:
    maps = np.random.default_rng(2).random((5, 3, 4)).astype(np.float16)
    packed = json.loads(json.dumps(encode_map(maps)))
    assert packed["grid"] == [5, 3, 4]
    assert np.array_equal(decode_map(packed), maps.astype(np.float64))
    steps: Row = {"kind": "open", "attention": packed, "roi": encode_mask(np.ones((3, 4)))}
    with pytest.raises(UserError, match="cannot be read"):
        InRegion().items([steps])


def test_a_mask_of_numbers_is_what_is_not_zero() -> None:
    assert decode_mask(encode_mask(np.array([[0, 2], [1, 0]]))).tolist() == [
        [False, True],
        [True, False],
    ]


@pytest.mark.parametrize(
    "packed",
    [
        {},
        {"grid": [2, 2]},
        {"grid": [2], "data": ""},
        {"grid": [2, 2], "data": "AAA"},
        {"grid": [2, 2], "data": "not base64!"},
        {"grid": [20, 20], "data": "AAAA"},
        {"grid": None, "data": "AAAA"},
    ],
)
def test_damaged_maps(packed: dict[str, object]) -> None:
    for decode in (decode_map, decode_mask):
        with pytest.raises(UserError) as raised:
            decode(packed)  # pyright: ignore[reportArgumentType]
        assert len(raised.value.lines()) == 3
