"""What stands beside the scores: empty answers, yes against no, where two rules differ."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from medbench.cli.scores import count_lines
from medbench.metrics.counts import confusion, disagreements, health
from medbench.rows import Row
from medbench.scoring import score_rows, to_json

OPTIONS = ["CT scan", "MRI", "X-ray"]


def row(kind: str, output: str, gold: str, stop: str = "eos") -> Row:
    return {"id": "a", "group": "a", "kind": kind, "output": output, "gold": gold, "stop": stop}


def choice(output: str, gold: str) -> Row:
    return {**row("choice", output, gold), "meta": {"options": OPTIONS}}


def rows() -> list[Row]:
    return [
        row("closed", "Yes", "yes"),
        row("closed", "normal", "no"),
        row("closed", "no, yes", "no", "length"),
        row("closed", "", "yes"),
        row("closed", "MRI", "MRI"),
        row("open", "lung lung", "left lung", "length"),
        row("open", "left lung", "left lung"),
        row("report", " ", "left lung"),
        choice("an X-ray image", "X-ray"),
        choice("CT scan", "CT scan"),
    ]


class TestHealth:
    def test_counts(self) -> None:
        assert health(rows()) == {
            "rows": 10,
            "empty": 2,
            "cut": 2,
            "yes_no": 4,
            "neither": 2,
            "both": 1,
            "in_format": 0.25,
        }

    def test_nothing(self) -> None:
        assert health([])["in_format"] is None
        assert health([])["cut"] is None

    def test_how_answers_ended_is_not_known_of_every_row(self) -> None:
        untold: list[Row] = [
            {"id": "a", "group": "a", "kind": "open", "output": "a", "gold": "a"},
            {"id": "b", "group": "a", "kind": "open", "output": "a", "gold": "a"},
        ]
        assert health(untold)["cut"] is None
        assert health([*untold, row("open", "a", "a")])["cut"] == 0


class TestConfusion:
    def test_counts(self) -> None:
        assert confusion(rows()) == {
            "yes": {"yes": 1, "no": 0, "both": 0, "neither": 1},
            "no": {"yes": 0, "no": 0, "both": 1, "neither": 1},
        }

    def test_nothing_where_nothing_is_asked(self) -> None:
        assert confusion([]) == {}
        assert confusion(rows()[4:]) == {}

    def test_both_golds_are_there_if_one_is(self) -> None:
        assert confusion(rows()[:1])["no"] == {"yes": 0, "no": 0, "both": 0, "neither": 0}

    def test_against_a_naive_count_and_the_other_counts(self) -> None:
        draw = random.Random(4)
        answers = {"yes": "Yes it is.", "no": "No", "both": "yes/no", "neither": "normal"}
        said = [draw.choice(list(answers)) for _ in range(300)]
        golds = [draw.choice(["yes", "no"]) for _ in said]
        made = [row("closed", answers[one], gold) for one, gold in zip(said, golds, strict=True)]
        naive = Counter(zip(golds, said, strict=True))
        found = confusion(made)
        assert {(g, s): n for g, counts in found.items() for s, n in counts.items()} == naive
        told = health(made)
        assert sum(found["yes"].values()) + sum(found["no"].values()) == told["yes_no"] == 300
        assert found["yes"]["both"] + found["no"]["both"] == told["both"]
        scores, _ = score_rows(made, ["closed/strict", "yes_rate"])
        assert scores["closed/strict"].value == (found["yes"]["yes"] + found["no"]["no"]) / 300
        assert scores["yes_rate"].value == (found["yes"]["yes"] + found["no"]["yes"]) / 300


class TestDisagreements:
    def test_counts(self) -> None:
        # Closed: "normal", "no, yes" and MRI; recall: the repeated word; choice: the sentence.
        assert disagreements(rows()) == {"closed": 3, "recall": 1, "choice": 1}

    def test_only_pairs_that_apply(self) -> None:
        assert disagreements([]) == {}
        assert disagreements(rows()[:1]) == {"closed": 0}
        assert disagreements(rows()[5:8]) == {"recall": 1}
        assert disagreements(rows()[8:]) == {"choice": 1}
        assert disagreements(rows()[7:8]) == {}

    def test_choices_without_options_are_left_to_whoever_made_them(self) -> None:
        bare = row("choice", "MRI", "MRI")
        empty: Row = {**bare, "meta": {"options": []}}
        assert disagreements([bare, empty]) == {}
        assert disagreements([bare, choice("an X-ray image", "X-ray"), empty]) == {"choice": 1}

    @pytest.mark.parametrize(
        ("kind", "name"), [("closed", "closed"), ("open", "recall"), ("choice", "choice")]
    )
    def test_as_many_as_the_scores_differ_on(self, kind: str, name: str) -> None:
        draw = random.Random(7)
        words = ("yes", "no", "normal", "CT", "scan", "X-ray", "lung", "left", "lung", "left")
        golds = {"closed": ["yes", "no"], "open": ["left lung", "lung"], "choice": OPTIONS}[kind]
        made: list[Row] = [
            {
                **row(
                    kind, " ".join(draw.choices(words, k=draw.randint(0, 4))), draw.choice(golds)
                ),
                "meta": {"options": OPTIONS},
            }
            for _ in range(200)
        ]
        scores, _ = score_rows(made, [f"{name}/paper", f"{name}/strict"])
        values = zip(*(score.per_item for score in scores.values()), strict=True)
        expected = sum(one != other for one, other in values)
        assert 10 < expected < 190
        assert disagreements(made) == {name: expected}


class TestLines:
    def lines(self, given: list[Row]) -> list[str]:
        return list(count_lines(to_json({}, given)))

    def test_all_there_is(self) -> None:
        assert self.lines(rows()) == [
            "10 answers: 2 empty, 2 cut at the length limit",
            "yes-no questions: gold yes 2 -> yes 1, neither 1; gold no 2 -> both 1, neither 1",
            "paper and strict rules differ on: closed 3, recall 1, choice 1",
        ]

    def test_no_zeros_for_nothing(self) -> None:
        assert self.lines([row("report", "a", "b")]) == [
            "1 answer: 0 empty, 0 cut at the length limit"
        ]
        assert self.lines([row("closed", "yes", "yes")]) == [
            "1 answer: 0 empty, 0 cut at the length limit",
            "yes-no questions: gold yes 1 -> yes 1",
            "paper and strict rules differ on: closed 0",
        ]

    def test_what_is_not_known_is_not_said(self) -> None:
        untold: Row = {"id": "a", "group": "a", "kind": "report", "output": "", "gold": "a"}
        assert self.lines([untold]) == ["1 answer: 1 empty"]

    def test_scores_of_an_older_medbench_are_told_as_far_as_they_go(self) -> None:
        older = to_json({}, rows())
        del older["confusion"]
        assert len(list(count_lines(older))) == 2
