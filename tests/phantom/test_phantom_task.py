"""The task: its passport holds, nothing is drawn early, images and RoIs fit together."""

from __future__ import annotations

import hashlib
import itertools
import time
from unittest.mock import patch

import numpy as np
import pytest

from medbench.errors import UserError
from medbench.tasks.phantom import Phantom


@pytest.mark.parametrize("split", list(Phantom.passport))
def test_passport_holds(split: str) -> None:
    ids = [sample.id for sample in Phantom().samples(split)]
    assert len(ids) == Phantom.passport[split]["rows"]
    assert hashlib.sha256("\n".join(ids).encode()).hexdigest() == Phantom.passport[split]["ids"]


def test_an_unknown_split_names_those_there_are() -> None:
    with pytest.raises(UserError) as caught:
        list(Phantom().samples("tset"))
    assert "test" in caught.value.do


def test_nothing_is_drawn_until_an_image_is_opened() -> None:
    with patch("medbench.phantom.draw.draw") as draw, patch("numpy.mgrid"):
        samples = list(Phantom().samples("test"))
        assert not draw.called
    image, roi = samples[0].image, samples[0].roi
    assert callable(image)
    assert roi is not None
    assert image().size == (64, 64)
    assert image().mode == "RGB"
    assert roi().shape == (64, 64)
    assert roi().dtype == np.bool_


def test_two_thousand_samples_are_listed_quickly() -> None:
    start = time.process_time()
    assert len(list(Phantom().samples("test"))) >= 2000
    assert time.process_time() - start < 5  # about half a second when nothing else runs


def test_samples_say_what_they_are() -> None:
    samples = list(Phantom().samples("validation"))
    assert {sample.kind for sample in samples} == {"open", "closed"}
    for sample in samples:
        assert (sample.kind == "closed") == (sample.answer in ("yes", "no"))
        assert sample.group in sample.id
        assert str(sample.meta["seed"]) in sample.stamp
    assert len({sample.group for sample in samples}) == 240
    assert {sample.kind for sample in Phantom().samples("reports")} == {"report"}


def test_questions_of_one_image_share_it() -> None:
    by_group: dict[str, set[str]] = {}
    for sample in Phantom().samples("train"):
        by_group.setdefault(sample.group, set()).add(sample.stamp)
    assert all(len(stamps) == 1 for stamps in by_group.values())


def test_the_examples_are_the_first_samples() -> None:
    first = itertools.islice(Phantom().samples("test"), 2)
    assert Phantom.examples == tuple((s.id, s.kind, s.question, s.answer) for s in first)
