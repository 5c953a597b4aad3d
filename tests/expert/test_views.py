"""Views of pictures: computed once, kept by content, and found again without the tower."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from medbench import plugins, spec
from medbench.errors import UserError
from medbench.expert.views import Views
from medbench.labels.pictures import key
from medbench.model.geometry import Geometry
from medbench.provider import Surroundings
from medbench.providers.biomedclip import BiomedClip
from medbench.providers.open_clip import OpenClip
from medbench.providers.unimed_b16 import UnimedB16
from medbench.providers.unimed_l14_336 import UnimedL14
from medbench.task import Sample
from tests.expert.conftest import STOCK, TIMM, MakeFolder


class Stand:
    """Stands in for a tower: patches are the means of their pixels, and of half of them."""

    grid = (4, 4)
    device = torch.device("cpu")

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.fits: list[str | None] = []

    def pixels(self, images: Sequence[Image.Image], fit: Any) -> Tensor:
        self.fits.append(fit)
        geometry = Geometry(32, 8, fit or "crop", (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
        return torch.stack([geometry.pixels(image) for image in images])

    def look(self, pixels: Tensor, feature: str) -> tuple[Tensor, Tensor]:
        self.batches.append(len(pixels))
        cells = torch.nn.functional.avg_pool2d(pixels, 8).flatten(2).transpose(1, 2)
        scale = {"block_out": 1.0, "post_ln": 2.0, "projected": 3.0}[feature]
        return cells * scale, cells.mean(2).softmax(1)


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> Stand:
    made = Stand()
    monkeypatch.setattr(OpenClip, "load", lambda self, device: made)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return what looks like a CLIP to those who only hash it."""
    path = tmp_path / "clip"
    path.mkdir()
    (path / "open_clip_config.json").write_text("{}")
    (path / "open_clip_model.safetensors").write_bytes(b"weights")
    return path


@pytest.fixture
def expert(folder: Path, tmp_path: Path) -> OpenClip:
    return OpenClip(weights=str(folder), cache=str(tmp_path / "cache"), batch_size=2)


def test_each_picture_is_looked_at_once_in_batches(
    expert: OpenClip, stand: Stand, samples: list[Sample], around: Surroundings
) -> None:
    told: list[tuple[int, int, str]] = []
    around = replace(around, progress=lambda *what: told.append(what))
    views = Views(expert, around)
    # Six pictures, of which the last is a copy of the first.
    assert views.compute(samples) == 5
    assert stand.batches == [2, 2, 1]
    assert told[0] == (0, 6, "") and told[-1] == (6, 6, "")
    assert views.compute(samples) == 0
    assert Views(expert, around).compute(samples) == 0
    assert stand.batches == [2, 2, 1]


def test_a_view_is_inner_products_and_attention_of_its_own_picture(
    expert: OpenClip,
    stand: Stand,
    samples: list[Sample],
    pictures: list[Image.Image],
    around: Surroundings,
) -> None:
    view = expert.open(samples, around)
    for index, image in enumerate([*pictures, pictures[0]]):
        found = view(samples[2 * index + 1])
        features, attention = stand.look(stand.pixels([image], "pad"), "block_out")
        unit = torch.nn.functional.normalize(features[0], dim=-1)
        assert found.grid == (4, 4)
        assert found.size == (image.height, image.width)
        assert found.gram.dtype == found.attention.dtype == np.float32
        np.testing.assert_allclose(found.gram, unit @ unit.T, atol=5e-4)
        np.testing.assert_allclose(found.attention, attention[0], atol=1e-7)
    assert view(samples[0]) is view(samples[1])
    assert set(stand.fits) == {"pad"}


def test_options_reach_the_view(
    expert: OpenClip,
    stand: Stand,
    samples: list[Sample],
    pictures: list[Image.Image],
    around: Surroundings,
) -> None:
    def of(**options: Any) -> Any:
        return replace(expert, **options).open(samples[:1], around)(samples[0])

    raw, _ = stand.look(stand.pixels(pictures[:1], "pad"), "block_out")
    # Without lengths of 1 the largest inner product is 1, whatever the scale of the features.
    products = raw[0] @ raw[0].T
    for feature in ("block_out", "projected"):
        found = of(prenorm=False, feature=feature).gram
        np.testing.assert_allclose(found, products / products.max(), atol=5e-4)
    divided = of(divide_by_max=True).attention
    plain = of().attention
    assert divided.max() == 1
    np.testing.assert_allclose(divided, plain / plain.max())
    stand.fits.clear()
    assert not np.allclose(of(geometry="as_published").gram, of().gram)
    assert stand.fits == [None]


def test_a_view_is_found_by_what_decides_it_and_nothing_else(
    expert: OpenClip, folder: Path, around: Surroundings, tmp_path: Path
) -> None:
    def name(of: OpenClip = expert, student: Surroundings = around) -> str:
        return of.memo(student).path.name

    same = [
        replace(expert, batch_size=9, cache=str(tmp_path), divide_by_max=True),
        replace(expert, weights=f"local-dir:{folder}"),
    ]
    assert {name(one) for one in same} == {name()}
    others = [
        name(replace(expert, feature="projected")),
        name(replace(expert, prenorm=False)),
        name(replace(expert, geometry="as_published")),
        name(student=replace(around, fit="crop")),
    ]
    (folder / "open_clip_model.safetensors").write_bytes(b"others")
    assert len({*others, name(), name(replace(expert, prenorm=False))}) == 6
    (folder / "tokenizer.json").write_text("plays no part")
    assert [path.name for path in expert.files()] == [
        "open_clip_config.json",
        "open_clip_model.safetensors",
    ]


def test_nothing_of_the_extra_is_needed_where_all_views_are_there(
    expert: OpenClip,
    stand: Stand,
    samples: list[Sample],
    around: Surroundings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = expert.open(samples, around)(samples[3])
    monkeypatch.undo()
    for name in ("open_clip", "open_clip.model", "open_clip.transform", "torchvision", "timm"):
        monkeypatch.setitem(sys.modules, name, None)
    found = expert.open(samples, around)(samples[3])
    assert np.array_equal(found.gram, wanted.gram)
    assert np.array_equal(found.attention, wanted.attention)
    with pytest.raises(UserError, match="package 'open_clip.*' is not installed") as raised:
        other = Sample("new", lambda: Image.new("RGB", (9, 9)), "?", "a", "open", "new")
        expert.open([other], around)
    assert "medbench[labels]" in raised.value.do


def test_views_that_are_shipped_are_found(
    expert: OpenClip,
    stand: Stand,
    samples: list[Sample],
    around: Surroundings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    boxed = tmp_path / "boxed"
    monkeypatch.setattr("medbench.expert.settings.LABELS", boxed)
    monkeypatch.setattr("medbench.providers.open_clip.LABELS", boxed)
    boxed.mkdir()
    Path(expert.weights).rename(boxed / "clip")
    inside = OpenClip(weights="phantom", cache=str(boxed))
    wanted = inside.open(samples, around)(samples[0])
    before = len(stand.batches)
    found = replace(inside, cache=str(tmp_path / "elsewhere")).open(samples, around)(samples[0])
    assert np.array_equal(found.gram, wanted.gram)
    assert len(stand.batches) == before
    assert not (tmp_path / "elsewhere").exists()


def test_the_array_on_disk_is_a_triangle_and_a_map(
    expert: OpenClip, stand: Stand, samples: list[Sample], around: Surroundings
) -> None:
    expert.open(samples, around)
    picture = key(samples[0].image())  # type: ignore[operator]
    assert picture.startswith("47x20-")
    kept = expert.memo(around).read([f"{picture}/gram", f"{picture}/attention"])
    gram, attention = kept[f"{picture}/gram"], kept[f"{picture}/attention"]
    assert (gram.shape, gram.dtype) == ((16 * 17 // 2,), np.float16)
    assert (attention.shape, attention.dtype) == ((4, 4), np.float32)


def test_without_a_student_only_the_experts_own_way_is_open(
    expert: OpenClip, stand: Stand, samples: list[Sample], around: Surroundings
) -> None:
    nobody = replace(around, fit=None)
    with pytest.raises(UserError, match="how the student places images"):
        expert.open(samples, nobody)
    replace(expert, geometry="as_published").open(samples, nobody)


def test_defaults_are_those_of_the_published_notebooks() -> None:
    experts: list[Any] = [UnimedL14(), UnimedB16(), BiomedClip()]
    found = [(one.feature, one.prenorm, one.divide_by_max) for one in experts]
    assert found == [
        ("block_out", True, True), ("block_out", True, True), ("projected", False, False),
    ]  # fmt: skip
    assert {one.geometry for one in experts} == {"match_student"}
    for one in experts:
        official = plugins.create("provider", spec.parse(f"{one.name}[variant=official]"))[1]
        assert official.geometry == "as_published"


@pytest.mark.parametrize(
    ("written", "what"),
    [
        ("open_clip", "needs a folder"),
        ("open_clip[weights=nowhere]", "no CLIP in nowhere"),
        ("biomedclip", "is not on this machine"),
        ("unimed_b16", "UzairK/unimed-clip-vit-b16 is not on this machine"),
        ("unimed_l14_336[weights=nowhere.pt]", "no weights of unimed_l14_336 in 'nowhere.pt'"),
    ],
)
def test_weights_that_are_not_there_are_a_users_error(
    written: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    provider = plugins.create("provider", spec.parse(written))[1]
    with pytest.raises(UserError) as raised:
        list(provider.files())
    assert what in str(raised.value)


def test_a_folder_without_weights_is_a_users_error(expert: OpenClip) -> None:
    (Path(expert.weights) / "open_clip_model.safetensors").unlink()
    with pytest.raises(UserError, match="no weights in"):
        list(expert.files())


def test_a_hubs_download_with_one_checkpoint_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medbench.clip.clip_folder", lambda name: tmp_path)
    with pytest.raises(UserError, match="holds 0 checkpoints"):
        list(UnimedB16().files())
    (tmp_path / "one.pt").touch()
    assert list(UnimedB16().files()) == [tmp_path / "one.pt"]
    (tmp_path / "two.pt").touch()
    with pytest.raises(UserError, match="holds 2 checkpoints") as raised:
        list(UnimedB16().files())
    assert "one.pt, two.pt" in raised.value.why


@pytest.mark.parametrize("described", [STOCK, TIMM], ids=["stock", "timm"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_views_of_a_real_tower_do_not_depend_on_the_batch(
    folder_of: MakeFolder,
    samples: list[Sample],
    pictures: list[Image.Image],
    around: Surroundings,
    tmp_path: Path,
    described: dict[str, Any],
    batch_size: int,
) -> None:
    expert = OpenClip(weights=str(folder_of(described)), cache=str(tmp_path), batch_size=batch_size)
    view = expert.open(samples, around)
    tower = expert.load("cpu")
    for index, image in enumerate(pictures):
        features, attention = tower.look(tower.pixels([image], "pad"), "block_out")
        unit = torch.nn.functional.normalize(features[0], dim=-1)
        found = view(samples[2 * index])
        assert found.grid == tower.grid
        np.testing.assert_allclose(found.gram, unit @ unit.T, atol=5e-4)
        np.testing.assert_allclose(found.attention, attention[0], atol=2e-6)
