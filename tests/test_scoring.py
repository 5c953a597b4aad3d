"""From rows to scores: denominators, intervals, what is written down, golden examples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from medbench import plugins
from medbench.errors import UserError
from medbench.metric import Measured, Metric, Pooled, Setting
from medbench.metrics.attention import encode_map, encode_mask
from medbench.metrics.vqa import RecallStrict
from medbench.rows import Row
from medbench.scoring import Score, check_golden, load_metric, score, score_rows, to_json

NAMES = (
    "closed/paper",
    "closed/strict",
    "yes_rate",
    "recall/paper",
    "recall/strict",
    "coverage/minmax",
    "coverage/sum",
    "intensity/minmax",
    "intensity/sum",
    "attention/in_roi",
)


def rows() -> list[Row]:
    region = np.array([[True, False], [False, False]])
    seen = {"attention": encode_map(np.array([[0.3, 0.1], [0.0, 0.1]])), "roi": encode_mask(region)}
    answers = [
        ("a", "closed", "Yes", "yes"),
        ("a", "closed", "normal", "no"),
        ("b", "closed", "no", "yes"),
        ("b", "open", "lung lung", "left lung"),
        ("c", "open", "left lung", "left lung"),
    ]
    made: list[Row] = [
        {
            "id": f"{at}",
            "group": group,
            "kind": kind,
            "output": output,
            "gold": gold,
            "stop": "eos",
            "seconds": at * 0.1,
        }
        for at, (group, kind, output, gold) in enumerate(answers)
    ]
    made[0].update(seen)  # pyright: ignore[reportCallIssue, reportArgumentType]
    made[4].update(seen)  # pyright: ignore[reportCallIssue, reportArgumentType]
    return made


def test_values_denominators_and_rows() -> None:
    scores, scored = score_rows(rows(), NAMES)
    assert list(scores) == list(NAMES)
    assert scores["closed/paper"].value == pytest.approx(2 / 3)
    assert scores["closed/strict"].value == pytest.approx(1 / 3)
    assert scores["recall/paper"].value == pytest.approx((2 / 3 + 1) / 2)
    assert scores["recall/strict"].value == pytest.approx(0.75)
    assert (scores["closed/paper"].n, scores["closed/paper"].groups) == (3, 2)
    assert (scores["recall/paper"].n, scores["recall/paper"].groups) == (2, 2)
    assert scores["attention/in_roi"].value == pytest.approx(0.6, abs=1e-3)
    assert scores["attention/in_roi"].n == 2
    assert scores["attention/in_roi"].notes == {"n_empty_region": 0}
    assert [row["scores"]["closed/paper"] for row in scored] == [1.0, 1.0, 0.0, None, None]  # pyright: ignore[reportTypedDictNotRequiredAccess]
    assert scores["closed/paper"].per_item == (1.0, 1.0, 0.0, None, None)
    assert "scores" not in rows()[0]


def test_interval_is_clustered() -> None:
    many = [
        {
            "group": f"{at // 10}",
            "kind": "closed",
            "output": "yes" if at % 40 < 20 else "no",
            "gold": "yes",
        }
        for at in range(200)
    ]
    scores, _ = score_rows(many, ["closed/strict"])  # pyright: ignore[reportArgumentType]
    clustered = scores["closed/strict"].interval
    alone = score("closed/strict", predictions=[row["output"] for row in many], golds=["yes"] * 200)
    assert clustered is not None
    assert alone.interval is not None
    assert clustered[1] - clustered[0] > 2 * (alone.interval[1] - alone.interval[0])


def test_nothing_to_score() -> None:
    scores, scored = score_rows([], ["recall/paper"])
    assert scored == []
    assert scores["recall/paper"] == Score("recall/paper", None, None, None, 0, 0)
    only_closed, _ = score_rows(rows()[:3], ["recall/paper"])
    assert only_closed["recall/paper"].value is None
    assert only_closed["recall/paper"].n == 0


def test_what_is_written_is_the_same_every_time_and_holds_no_times() -> None:
    def text(order: Sequence[Row]) -> str:
        scores, _ = score_rows(order, NAMES)
        return json.dumps(to_json(scores, order), allow_nan=False)

    slower = [Row(**{**row, "seconds": 9.0}) for row in rows()]  # pyright: ignore[reportArgumentType]
    assert text(rows()) == text(rows()) == text(slower)
    content = json.loads(text(rows()))
    assert set(content) == {"scores", "unscored", "health", "confusion", "disagreements"}
    assert set(content["scores"]["closed/paper"]) == {
        "value", "low", "high", "n", "groups", "notes", "made_with",
    }  # fmt: skip
    assert content["disagreements"] == {"closed": 1, "recall": 1}
    assert content["health"]["rows"] == 5
    assert content["confusion"] == {
        "yes": {"yes": 1, "no": 1, "both": 0, "neither": 0},
        "no": {"yes": 0, "no": 0, "both": 0, "neither": 1},
    }


def test_scoring_again_changes_nothing() -> None:
    first, scored = score_rows(rows(), NAMES)
    again, rescored = score_rows(scored, NAMES)
    assert again == first
    assert rescored == scored


class TestTexts:
    def test_values(self) -> None:
        found = score("recall/paper", predictions=["lung lung lung", "x"], golds=["left lung", "y"])
        assert found.per_item == (0.75, 0.0)
        assert found.value == 0.375
        assert found.n == 2
        assert found.interval == (found.low, found.high)

    def test_kinds_choose(self) -> None:
        found = score(
            "closed/strict",
            predictions=["yes", "lung"],
            golds=["yes", "lung"],
            kinds=["closed", "open"],
            groups=["a", "a"],
        )
        assert found.per_item == (1.0, None)
        assert (found.value, found.n, found.groups, found.interval) == (1.0, 1, 1, None)

    @pytest.mark.parametrize("what", ["golds", "kinds", "groups"])
    def test_lengths_must_agree(self, what: str) -> None:
        given = {"golds": ["a", "b"], "kinds": ["open"] * 2, "groups": ["g"] * 2, what: ["a"]}
        with pytest.raises(UserError, match=f"2 predictions but 1 {what}"):
            score("recall/paper", predictions=["a", "b"], **given)  # pyright: ignore[reportArgumentType]

    def test_attention_is_no_text(self) -> None:
        with pytest.raises(UserError) as raised:
            score("coverage/sum", predictions=["a"], golds=["b"])
        assert raised.value.why == "It needs attention and roi."

    def test_unknown_metric(self) -> None:
        with pytest.raises(UserError) as raised:
            score("recall/papr", predictions=[], golds=[])
        assert "recall/paper" in raised.value.why


@pytest.mark.parametrize("name", NAMES)
def test_metrics_are_found_by_reading_and_hold_their_examples(name: str) -> None:
    plugin = plugins.get("metric", name)
    assert plugin.broken is None
    assert plugin.attributes["golden"]
    assert plugin.attributes["kinds"]
    assert plugin.summary.endswith(".")
    check_golden(load_metric(name))


@dataclass(frozen=True)
class _Wrong(RecallStrict):
    golden = (("lung", "lung", 0.5),)


@dataclass(frozen=True)
class _OverAllWords(RecallStrict):
    """Gold words found over gold words, not a mean of shares."""

    def measure(self, rows: Sequence[Row], setting: Setting) -> Measured:
        items = self.items(rows)
        words = np.array([len(row["gold"].split()) for row in rows], dtype=float)
        return Measured(items, Pooled(np.stack([items * words, words], axis=1), _ratio))


def _ratio(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


@dataclass(frozen=True)
class _Dropping(RecallStrict):
    def items(self, rows: Sequence[Row]) -> list[float]:
        return [1.0]


def test_a_changed_metric_is_caught() -> None:
    with pytest.raises(UserError) as raised:
        check_golden(_Wrong())
    assert "fails its own example" in raised.value.what
    assert "1, not 0.5" in raised.value.why


def use(monkeypatch: pytest.MonkeyPatch, metric: Metric) -> Score:
    monkeypatch.setattr("medbench.scoring.load_metric", lambda name: metric)
    scores, _ = score_rows(rows(), ["any"])
    return scores["recall/strict"]


def test_what_is_not_a_mean_has_an_interval_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    found = use(monkeypatch, _OverAllWords())
    assert found.value == 3 / 4
    assert [item for item in found.per_item if item is not None] == [0.5, 1.0]
    # Resampled: b alone, c alone, or one of each.
    assert found.interval == (0.5, 1.0)


def test_a_metric_may_not_drop_items(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="1 values for 2 rows"):
        use(monkeypatch, _Dropping())
