"""The labels that ship with the phantom: there for the whole training split, and made as said."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

import medbench
from medbench import plugins, spec, supervise
from medbench.model.geometry import Fit
from medbench.phantom import LABELS
from medbench.provider import Surroundings
from medbench.providers.open_clip import OpenClip
from medbench.providers.sam_biomedclip import SamBiomedclip
from medbench.task import Sample, Task

FACTS = plugins.get("task", "phantom").attributes


@pytest.fixture(scope="module")
def task() -> Task:
    return plugins.create("task", spec.parse("phantom"))[1]


@pytest.fixture(scope="module")
def train(task: Task) -> list[Sample]:
    return list(task.samples("train"))


@pytest.fixture(scope="module")
def fit() -> Fit:
    """Return how the phantom's backbone places images, loaded while every package is there."""
    return medbench.load_backbone("phantom", device="cpu").geometry.fit


@pytest.fixture
def no_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the packages that make labels impossible to import."""
    for name in ("segment_anything", "open_clip", "torchvision", "cv2"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture
def models_only(tmp_path: Path) -> Path:
    """Return a folder that is in the box's place, and lacks the labels."""
    for name in ("sam", "clip"):
        shutil.copytree(LABELS / name, tmp_path / "box" / name)
    return tmp_path / "box"


def shipped(name: str, cache: Path):
    provider = supervise.create_one(name, FACTS)[1]
    assert isinstance(provider, SamBiomedclip | OpenClip)
    return replace(provider, cache=str(cache))


def test_weak_labels_of_the_training_split_are_in_the_box(
    task: Task, train: list[Sample], no_extra: None, tmp_path: Path
) -> None:
    regions = shipped("sam-biomedclip", tmp_path / "cache").open(train, Surroundings(task))
    found = [regions(sample) for sample in train]
    assert sum(bool(one) for one in found) >= 0.99 * len(train)
    assert not (tmp_path / "cache").exists()


def test_the_experts_views_of_the_training_split_are_in_the_box(
    task: Task, train: list[Sample], fit: Fit, no_extra: None, tmp_path: Path
) -> None:
    view = shipped("open_clip", tmp_path / "cache").open(train, Surroundings(task, fit))
    assert all(view(sample).grid == (8, 8) for sample in train)
    assert not (tmp_path / "cache").exists()


def test_labels_made_here_are_those_in_the_box(
    task: Task,
    train: list[Sample],
    extra: None,
    models_only: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    some = list(islice(train, 32))
    provider = shipped("sam-biomedclip", tmp_path / "cache")
    around = Surroundings(task)
    wanted = provider.open(some, around)
    monkeypatch.setattr("medbench.providers.sam_biomedclip.LABELS", models_only)
    labels = provider.weak_labels(around)
    assert labels.compute(some) == len({sample.group for sample in some})
    for sample in some:
        ours, theirs = labels.regions(sample), wanted(sample)
        assert len(ours) == len(theirs)
        # Another CPU rounds in another way; scores are cosines times a hundred.
        assert [one.score for one in ours] == pytest.approx([one.score for one in theirs], abs=1e-4)
        assert all(np.array_equal(x.mask, y.mask) for x, y in zip(ours, theirs, strict=True))


def test_views_made_here_are_those_in_the_box(
    task: Task,
    train: list[Sample],
    fit: Fit,
    extra: None,
    models_only: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    some = list(islice(train, 16))
    provider = shipped("open_clip", tmp_path / "cache")
    wanted = provider.open(some, Surroundings(task, fit))
    monkeypatch.setattr("medbench.expert.settings.LABELS", models_only)
    view = provider.open(some, Surroundings(task, fit))
    for sample in some:
        np.testing.assert_allclose(view(sample).gram, wanted(sample).gram, atol=1e-3)
        np.testing.assert_allclose(view(sample).attention, wanted(sample).attention, atol=1e-4)
