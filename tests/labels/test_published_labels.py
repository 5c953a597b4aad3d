"""The published .npz layout, both ways, and the sheet a person looks at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medbench.errors import UserError
from medbench.labels import published
from medbench.labels.sheet import Tile, sheet
from medbench.provider import Region, Surroundings
from medbench.providers.npz import Npz
from medbench.task import Sample, Task
from medbench.tuning.regions import regions_on_grid, selected

from medbench.model.geometry import Geometry  # isort: skip


def sample(name: str, native: object = None, size: tuple[int, int] = (64, 32)) -> Sample:
    meta = {} if native is None else {"native_id": native}
    return Sample(name, lambda: Image.new("RGB", size), "q", "a", "open", name, meta=meta)


def opened(path: Path, samples: list[Sample], **options: bool):
    return Npz(file=str(path), **options).open(samples, Surroundings(Task()))


def mask(left: int, top: int, right: int, bottom: int, size=(256, 256)) -> np.ndarray:
    made = np.zeros(size, bool)
    made[top:bottom, left:right] = True
    return made


def test_masks_are_written_squashed_and_read_in_order(tmp_path: Path) -> None:
    regions = [
        Region(mask(10, 10, 60, 60), 3.0, (32, 64)),
        Region(mask(0, 0, 32, 16, (32, 64)), 2.0, (32, 64)),
    ]
    path = tmp_path / "l.npz"
    one, two = sample("slake-7", 7), sample("s2")
    assert published.write(path, [(one, regions), (two, [])]) == 2
    with np.load(path) as file:
        assert set(file.files) == {"7", "s2"}
        assert file["7"].shape == (2, 256, 256) and file["7"].dtype == bool
    found = opened(path, [one, two])
    assert [region.size for region in found(one)] == [(32, 64)] * 2
    assert np.array_equal(found(one)[0].mask, regions[0].mask)
    assert np.array_equal(found(one)[1].mask, mask(0, 0, 128, 128))
    assert found(two) == []


def test_files_as_published_are_read(tmp_path: Path) -> None:
    # Lists of masks, and an empty list where there was none.
    path = tmp_path / "training_segments.npz"
    np.savez_compressed(path, **{"3": [mask(1, 1, 9, 9), mask(2, 2, 8, 8)], "4": []})  # type: ignore[arg-type]
    one, two = sample("slake-3", 3), sample("slake-4", "4")
    found = opened(path, [one, two])
    assert [int(region.mask.sum()) for region in found(one)] == [64, 36]
    assert found(two) == []
    assert all(region.score is None for region in found(one))


def test_what_is_no_label_file_is_named(tmp_path: Path) -> None:
    text, pickled = tmp_path / "t.npz", tmp_path / "p.npz"
    text.write_text("no zip")
    np.savez(pickled, s1=np.array([{"a": 1}], dtype=object))
    for path in (text, tmp_path / "absent.npz"):
        with pytest.raises(UserError):
            opened(path, [sample("s1")])
    # Objects are refused, never unpickled.
    with pytest.raises(UserError, match="cannot read the masks"):
        opened(pickled, [sample("s1")])(sample("s1"))
    with pytest.raises(UserError, match="npz needs a file"):
        list(Npz().files())


def test_samples_without_an_entry_are_an_error_or_have_no_region(tmp_path: Path) -> None:
    path = tmp_path / "l.npz"
    np.savez(path, s1=np.ones((1, 4, 4), bool))
    both = [sample("s1"), sample("s2")]
    with pytest.raises(UserError, match="no entry for 1 of 2") as error:
        opened(path, both)
    assert "s2" in error.value.why
    found = opened(path, both, must_match=False)
    assert len(found(both[0])) == 1 and found(both[1]) == []
    with pytest.raises(UserError, match="no entry for 1 of 1"):
        opened(path, [sample("s3")], must_match=False)


def grid(*lines: str) -> list[float]:
    return [float(letter == "#") for line in lines for letter in line]


def test_squashed_masks_get_their_aspect_back_unless_the_published_way_is_asked_for() -> None:
    # The left half of an image twice as wide as high, on a square.
    region = Region(mask(0, 0, 128, 256), None, (32, 64))
    pad = Geometry(size=16, patch=4, fit="pad", mean=(0.5,) * 3, std=(0.5,) * 3)  # type: ignore[arg-type]
    crop = replace(pad, fit="crop")
    placed = regions_on_grid([region], pad)
    assert placed.tolist() == [grid("....", "##..", "##..", "....")]
    for geometry in (pad, crop):
        squashed = regions_on_grid([region], geometry, fit="squash")
        assert squashed.tolist() == [grid("##..", "##..", "##..", "##..")]
    assert regions_on_grid([region], crop).tolist() == [grid("##..", "##..", "##..", "##..")]


def test_the_published_way_to_the_grid_samples_twice() -> None:
    generator = np.random.default_rng(0)
    noise = Region(generator.random((256, 256)) > 0.5, None, (256, 256))
    for patches, size in ((16, 224), (24, 336)):
        geometry = Geometry(size, size // patches, "pad", (0.5,) * 3, (0.5,) * 3)  # type: ignore[arg-type]
        found = regions_on_grid([noise], geometry, fit="squash").reshape(patches, patches)
        # The pixel whose centre is nearest, from the grid to 224 and from there to 256. Every third
        # of 24 lies on the border of two pixels, where rounding decides.
        clear = [i for i in range(patches) if patches == 16 or i % 3 != 1]
        at = [int((int((i + 0.5) * 224 / patches) + 0.5) * 256 / 224) for i in clear]
        assert len(clear) == 16
        assert np.array_equal(found.numpy()[np.ix_(clear, clear)] > 0, noise.mask[np.ix_(at, at)])


def test_the_first_k_or_those_above_a_threshold_are_taken() -> None:
    regions = [Region(mask(0, 0, 9, 9), score, (4, 4)) for score in (30.0, 20.0, 10.0)]
    scores = lambda found: [one.score for one in found]  # noqa: E731
    assert scores(selected(regions, most=2)) == [30.0, 20.0]
    assert scores(selected(regions, most=9, threshold=20.0)) == [30.0, 20.0]
    assert scores(selected(regions, most=1, threshold=20.0)) == [30.0]
    assert selected(regions, most=9, threshold=40.0) == []
    unscored = [replace(one, score=None) for one in regions]
    assert len(selected(unscored, most=2, threshold=40.0)) == 2


def test_a_sheet_shows_regions_truth_and_what_has_none() -> None:
    image = Image.new("RGB", (32, 16), "grey")
    truth = mask(0, 0, 8, 8, (16, 32))
    tiles = [
        Tile(image, "first: is it?", [Region(mask(4, 4, 20, 12, (16, 32)), 21.5, (16, 32))], truth),
        *[Tile(image, "none " * 60, [])] * 4,
    ]
    page = np.asarray(sheet(tiles))
    colours = {tuple(int(v) for v in one) for one in np.unique(page.reshape(-1, 3), axis=0)}
    assert (230, 159, 0) in colours  # the first region's outline
    assert page.shape[1] > 4 * 256 and page.shape[0] > 2 * 256
    assert np.asarray(sheet([])).shape[0] > 256
