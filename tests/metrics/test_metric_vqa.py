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
    YesRate,
    verdict,
    yes_or_no,
)
from medbench.rows import Row
from medbench.scoring import check_golden, score_rows

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


@pytest.mark.parametrize(
    ("gold", "expected"),
    [("Yes", "yes"), ("no.", "no"), ("The no", "no"), ("not seen", ""), ("abnormal", ""), ("", "")]
    + [("yes, on the left", ""), ("yes no", "")],
)
def test_a_gold_is_yes_or_no_only_if_that_is_all_it_says(gold: str, expected: str) -> None:
    assert yes_or_no(gold) == expected


class TestYesRate:
    ASKED = (
        # gold, answer, whether it counts as yes
        ("yes", "Yes, there is.", 1.0),
        ("Yes", "no", 0.0),
        ("no", "yes", 1.0),
        ("No.", "Assistant: yes", 1.0),
        ("no", "yes and no", 0.0),
        ("no", "abnormal", 0.0),
        ("no", " ", 0.0),
        ("yes", "\u2028\u0085", 0.0),
    )

    def rows(self) -> list[Row]:
        made: list[Row] = [
            {"id": str(at), "group": str(at % 3), "kind": "closed", "output": output, "gold": gold}
            for at, (gold, output, _) in enumerate(self.ASKED)
        ]
        other: list[Row] = [
            {"id": "a", "group": "a", "kind": "closed", "output": "yes", "gold": "MRI"},
            {"id": "b", "group": "a", "kind": "closed", "output": "yes", "gold": ""},
            {"id": "c", "group": "a", "kind": "open", "output": "yes", "gold": "yes"},
            {"id": "d", "group": "a", "kind": "choice", "output": "yes", "gold": "yes"},
        ]
        return [*other[:2], *made, *other[2:]]

    def test_own_examples(self) -> None:
        assert {expected for *_, expected in YesRate.golden} == {0.0, 1.0}
        check_golden(YesRate())

    def test_share_of_yes_no_questions_only(self) -> None:
        scores, scored = score_rows(self.rows(), ["yes_rate"])
        found = scores["yes_rate"]
        assert [row["scores"]["yes_rate"] for row in scored if "scores" in row] == [
            None, None, *(expected for *_, expected in self.ASKED), None, None,
        ]  # fmt: skip
        assert (found.value, found.n, found.groups) == (3 / 8, 8, 3)
        assert found.interval is not None
        # Golds: 3 of 8 yes. Answers: one with both words, three with neither.
        assert found.notes == {"gold_yes_rate": 3 / 8, "n_neither": 3, "n_both": 1}

    def test_where_nothing_is_asked(self) -> None:
        found = score_rows(self.rows()[:2], ["yes_rate"])[0]["yes_rate"]
        assert (found.value, found.n) == (None, 0)
        assert found.notes == {"gold_yes_rate": None, "n_neither": 0, "n_both": 0}


def test_metrics_say_their_rule() -> None:
    for metric in (*METRICS.values(), YesRate):
        assert len((metric.__doc__ or "").splitlines()) > 3
