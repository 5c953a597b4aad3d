"""Normalisation: the published one with its oddities, and the words of the strict metrics."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medbench.metrics.text import published, words

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/metrics.json").read_text("utf-8"))


@pytest.mark.parametrize(("text", "expected"), GOLDEN["published"])
def test_published_values(text: str, expected: str) -> None:
    assert published(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x-ray", "x ray"),  # touches no blank: becomes one
        ("x-ray - chest", "xray chest"),  # touches a blank somewhere: goes everywhere
        ("x-ray 1,000", "xray 1000"),  # digit, comma, digit anywhere: every mark goes
        ("left/right", "left right"),
        ("chest: it's fine", "chest: it's fine"),  # colon and apostrophe stay
        ("2.5 cm.", "2.5 cm"),
        (".5", ".5"),
        ("Two of the three", "2 of 3"),
        ("zero, none, ten, eleven", "0 0 10 eleven"),
        ("isnt its dont couldntve couldnt've", "isn't its don't couldntve couldn't've"),
        ("A an The", ""),
        ("theater an", "theater"),
        ("a-b", "b"),  # the article appears only after the mark has gone
        ("no,one", "no 1"),
        ("\tYes\n", "yes"),
        ("", ""),
    ],
)
def test_published_rule(text: str, expected: str) -> None:
    assert published(text) == expected


def test_only_the_first_periods_go() -> None:
    assert published("a" + "b. " * 40).count(".") == 40 - 32


def test_no_contraction_hides_a_common_word() -> None:
    for word in ("its", "were", "well", "shell", "ill", "lets", "shed", "wed", "id", "im"):
        assert published(word) == word


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yes.", ["yes"]),
        ("The T2-weighted image", ["t2", "weighted", "image"]),
        ("1,000 ml of 2.5 cm, 1,2", ["1000", "ml", "of", "2.5", "cm", "1", "2"]),
        ("It\u2019s the patient's", ["it's", "patient's"]),
        ("'quoted' words'", ["quoted", "words"]),
        ("Two lungs, none", ["2", "lungs", "none"]),
        ("不是 lung", ["不", "是", "lung"]),
        ("\uff39\uff45\uff53", ["yes"]),  # full-width letters
        ("left_lung/right", ["left", "lung", "right"]),
        ("normal", ["normal"]),
        (" .,;", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected
