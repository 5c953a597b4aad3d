"""Closed accuracy and recall: published values, naive references, and the counts beside them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from medbench.metric import Metric
from medbench.metrics.text import words
from medbench.metrics.vqa import (
    ClosedPaper,
    ClosedStrict,
    RecallPaper,
    RecallStrict,
    disagreements,
    health,
    verdict,
)
from medbench.rows import Row

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/metrics.json").read_text("utf-8"))
METRICS = {metric.name: metric for metric in (ClosedPaper, ClosedStrict, RecallPaper, RecallStrict)}
VOCABULARY = ("left", "right", "lung", "Lung.", "yes", "no", "the", "normal", "heart,", "2", "two")


def value(metric: type[Metric], output: str, gold: str) -> float:
    row: Row = {"kind": metric.kinds[0], "output": output, "gold": gold}
    assert metric().applies(row)
    (found,) = metric().items([row])
    return found


def texts(count: int, longest: int = 6) -> list[str]:
    generator = random.Random(5)
    return [
        " ".join(generator.choices(VOCABULARY, k=generator.randint(0, longest)))
        for _ in range(count)
    ]


@pytest.mark.parametrize("name", ["closed/paper", "recall/paper"])
def test_published_values(name: str) -> None:
    for output, gold, expected in GOLDEN[name]:
        assert value(METRICS[name], output, gold) == pytest.approx(expected), (output, gold)


@pytest.mark.parametrize("metric", METRICS.values())
def test_own_examples(metric: type[Metric]) -> None:
    assert metric.golden
    for output, gold, expected in metric.golden:
        assert value(metric, output, gold) == pytest.approx(expected), (output, gold)


def test_closed_strict_against_a_naive_reference() -> None:
    for output, gold in zip(
        texts(500), random.Random(6).choices(["Yes", "no."], k=500), strict=True
    ):
        said = [word.strip(".,").lower() for word in output.split()]
        right, wrong = ("yes", "no") if gold == "Yes" else ("no", "yes")
        expected = 1.0 if right in said and wrong not in said else 0.0
        assert value(ClosedStrict, output, gold) == expected, (output, gold)


def test_recall_strict_against_a_naive_reference() -> None:
    for output, gold in zip(texts(500), reversed(texts(700)), strict=False):
        left, found = words(output), 0
        for word in words(gold):
            if word in left:
                left.remove(word)
                found += 1
        n = len(words(gold))
        expected = found / n if n else float(not words(output))
        assert value(RecallStrict, output, gold) == pytest.approx(expected), (output, gold)


@pytest.mark.parametrize(
    ("output", "gold", "expected"),
    [
        ("Both lungs.", "both lungs", 1.0),
        ("lungs both", "both lungs", 0.0),
        ("", "", 1.0),
        ("yes", "yes, on the left", 0.0),
    ],
)
def test_closed_strict_where_the_gold_is_not_yes_or_no(
    output: str, gold: str, expected: float
) -> None:
    assert value(ClosedStrict, output, gold) == expected


@pytest.mark.parametrize("name", METRICS)
def test_kinds(name: str) -> None:
    metric = METRICS[name]()
    for kind in ("closed", "open", "choice", "report"):
        row: Row = {"kind": kind, "output": "yes", "gold": "yes"}
        assert metric.applies(row) == (kind == {"closed": "closed", "recall": "open"}[name[:6]])


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("Yes, it is.", "yes"),
        ("NO", "no"),
        ("Assistant: no", "no"),
        ("yes and no", "both"),
        ("yes/no", "both"),
        ("abnormal", "neither"),
        ("nothing known", "neither"),
        ("", "neither"),
    ],
)
def test_verdict(output: str, expected: str) -> None:
    assert verdict(output) == expected


def rows() -> list[Row]:
    return [
        {"kind": "closed", "output": "Yes", "gold": "yes", "stop": "eos"},
        {"kind": "closed", "output": "normal", "gold": "no", "stop": "eos"},
        {"kind": "closed", "output": "no, yes", "gold": "no", "stop": "length"},
        {"kind": "closed", "output": "", "gold": "yes", "stop": "eos"},
        {"kind": "closed", "output": "MRI", "gold": "MRI", "stop": "eos"},
        {"kind": "open", "output": "lung lung", "gold": "left lung", "stop": "length"},
        {"kind": "open", "output": "left lung", "gold": "left lung", "stop": "eos"},
        {"kind": "report", "output": " ", "gold": "left lung", "stop": "eos"},
    ]


def test_disagreements() -> None:
    assert disagreements(rows()) == {"closed": 3, "recall": 1}
    assert disagreements([]) == {"closed": 0, "recall": 0}


def test_health() -> None:
    assert health(rows()) == {
        "rows": 8,
        "empty": 2,
        "cut": 2,
        "yes_no": 4,
        "neither": 2,
        "both": 1,
        "in_format": 0.25,
    }


def test_health_of_nothing() -> None:
    assert health([])["in_format"] is None


def test_metrics_say_their_rule() -> None:
    for metric in METRICS.values():
        assert len((metric.__doc__ or "").splitlines()) > 3
