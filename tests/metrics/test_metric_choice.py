"""Multiple choice: the published rule with its oddities, the strict one, and the counts beside."""

from __future__ import annotations

import random
from difflib import SequenceMatcher

import pytest

from medbench import plugins
from medbench.errors import UserError
from medbench.metric import Metric
from medbench.metrics.choice import ChoicePaper, ChoiceStrict, matching
from medbench.rows import Row
from medbench.scoring import check_golden, score, score_rows

METRICS = (ChoicePaper, ChoiceStrict)
OPTIONS = ["CT scan", "MRI", "X-ray", "Fundus photography"]


def row(output: str, gold: str, options: list[str], name: str = "a") -> Row:
    return {
        "id": name,
        "group": name,
        "kind": "choice",
        "output": output,
        "gold": gold,
        "meta": {"options": options},
    }


def value(metric: type[Metric], output: str, gold: str, options: list[str] = OPTIONS) -> float:
    (found,) = metric().items([row(output, gold, options)])
    return found


@pytest.mark.parametrize("metric", METRICS)
def test_own_examples(metric: type[Metric]) -> None:
    assert len(metric.golden) > 5
    assert {expected for *_, expected in metric.golden} == {0.0, 1.0}
    check_golden(metric())


@pytest.mark.parametrize("metric", METRICS)
def test_only_multiple_choice(metric: type[Metric]) -> None:
    for kind in ("closed", "open", "choice", "report"):
        one: Row = {**row("a", "a", ["a", "b"]), "kind": kind}
        assert metric().applies(one) == (kind == "choice")


@pytest.mark.parametrize("metric", METRICS)
def test_metrics_say_their_rule(metric: type[Metric]) -> None:
    assert len((metric.__doc__ or "").splitlines()) > 5
    assert plugins.get("metric", metric.name).summary in (metric.__doc__ or "")


class TestPaper:
    def test_against_a_naive_reference(self) -> None:
        def most_like(text: str, options: list[str]) -> int | None:
            best, at = 0.0, None
            for index, option in enumerate(options):
                ratio = SequenceMatcher(None, option, text).ratio()
                if ratio > best:
                    best, at = ratio, index
            return at

        generator = random.Random(3)
        right = 0
        for _ in range(500):
            options = [
                "".join(generator.choices("abcABC ", k=generator.randint(1, 8)))
                for _ in range(generator.randint(2, 4))
            ]
            gold = generator.choice(options)
            output = "".join(generator.choices("abcABCxy ", k=generator.choice((0, 3, 9, 250))))
            expected = float(most_like(output, options) == most_like(gold.lower(), options))
            assert value(ChoicePaper, output, gold, options) == expected
            right += int(expected)
        assert 50 < right < 450

    @pytest.mark.parametrize(
        ("output", "gold", "options", "expected"),
        [
            ("ab", "ab", ["ab", "ab"], 1.0),
            # Both options are equally like the answer: the first is taken.
            ("x", "xa", ["xa", "xb"], 1.0),
            ("x", "xb", ["xa", "xb"], 0.0),
            # Nothing in common with any option, on both sides.
            ("", "AB", ["AB", "CD"], 1.0),
            ("zzz", "AB", ["AB", "CD"], 1.0),
            ("AB", "AB", ["AB", "CD"], 0.0),
            # The lower-cased gold is most like another option.
            ("CT", "CT", ["PET scan", "CT"], 0.0),
            ("PET scan", "CT", ["PET scan", "CT"], 1.0),
            # Several options named: the one with more letters in common.
            ("not benign but malignant", "benign", ["benign", "malignant"], 0.0),
            ("Sorry, I cannot answer.", "malignant", ["benign", "malignant"], 1.0),
            ("Assistant: benign", "benign", ["benign", "malignant"], 1.0),
        ],
    )
    def test_oddities(self, output: str, gold: str, options: list[str], expected: float) -> None:
        assert value(ChoicePaper, output, gold, options) == expected

    def test_order_of_the_two_texts_matters(self) -> None:
        # difflib's ratio is not symmetric: the published code puts the option first.
        pairs = [(one, two) for one in ("tide", "diet", "edit") for two in ("tide", "diet")]
        one_way = [SequenceMatcher(None, a, b).ratio() for a, b in pairs]
        assert one_way != [SequenceMatcher(None, b, a).ratio() for a, b in pairs]
        assert SequenceMatcher(None, "tide", "diet").ratio() == 0.25
        assert SequenceMatcher(None, "diet", "tide").ratio() == 0.5
        # .25 for the first option, .4 for the second; the other way round .5 and .4.
        assert value(ChoicePaper, "diet", "d.....", ["tide", "d....."]) == 0.0

    def test_golds_that_go_astray_are_counted(self) -> None:
        rows: list[Row] = [
            row("CT", "CT", ["PET scan", "CT"], "a"),
            row("CT", "AB", ["AB", "xy"], "b"),
            row("CT", "benign", ["benign", "malignant"], "c"),
            row("CT", "unlisted", ["benign", "malignant"], "d"),
            {**row("CT", "CT", ["PET scan", "CT"], "e"), "kind": "open"},
        ]
        assert ChoicePaper().notes(rows) == {"n_gold_astray": 2}


class TestStrict:
    @pytest.mark.parametrize(
        ("output", "expected"),
        [
            ("MRI", 1.0),
            ("mri.", 1.0),
            ("The MRI", 1.0),
            ("Assistant: MRI", 1.0),
            ("\n assistant :\tB", 1.0),
            ("B", 1.0),
            ("b", 1.0),
            ("B.", 1.0),
            ("B)", 1.0),
            ("B:", 1.0),
            ("B. MRI", 1.0),
            ("B) because of the contrast", 1.0),
            ("B:\nMRI", 1.0),
            ("A", 0.0),
            ("A. MRI", 0.0),
            ("a) an MRI", 0.0),
            ("(B)", 0.0),
            ("B MRI", 0.0),
            ("B.MRI", 0.0),
            ("B, MRI", 0.0),
            ("MRI scan", 0.0),
            ("It is MRI", 0.0),
            ("CT scan, MRI", 0.0),
            ("MRI Assistant:", 0.0),
            ("Assistant: Assistant: MRI", 0.0),
            ("X-ray", 0.0),
            ("E", 0.0),
            ("BB", 0.0),
            ("", 0.0),
            (" ", 0.0),
            (".", 0.0),
        ],
    )
    def test_rule(self, output: str, expected: float) -> None:
        assert value(ChoiceStrict, output, "MRI") == expected

    @pytest.mark.parametrize("at", range(4))
    def test_every_letter(self, at: int) -> None:
        for letter in "ABCD":
            expected = float("ABCD".index(letter) == at)
            assert value(ChoiceStrict, letter, OPTIONS[at]) == expected

    def test_options_that_are_letters(self) -> None:
        options = ["B", "A"]
        assert value(ChoiceStrict, "B", "B", options) == 1.0
        assert value(ChoiceStrict, "B", "A", options) == 0.0
        assert value(ChoiceStrict, "A", "A", options) == 1.0

    def test_options_that_begin_like_letters(self) -> None:
        options = ["Candida", "E. coli", "A. fumigatus"]
        assert value(ChoiceStrict, "A. fumigatus.", "A. fumigatus", options) == 1.0
        assert value(ChoiceStrict, "A. fumigatus", "Candida", options) == 0.0
        assert value(ChoiceStrict, "A. niger", "Candida", options) == 1.0

    def test_letter_beyond_the_options(self) -> None:
        assert value(ChoiceStrict, "C", "no", ["yes", "no"]) == 0.0

    def test_abbreviation_is_no_letter(self) -> None:
        assert value(ChoiceStrict, "C.T. scan", "x-ray", ["mri", "ct", "x-ray"]) == 0.0

    def test_gold_that_is_no_option(self) -> None:
        for output, expected in (("lung", 1.0), ("A", 0.0), ("CT scan", 0.0)):
            assert value(ChoiceStrict, output, "Lung") == expected
        rows = [row("a", "Lung", OPTIONS, "a"), row("a", "mri.", OPTIONS, "b")]
        assert ChoiceStrict().notes(rows) == {"n_gold_no_option": 1}


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("MRI", 1),
        ("x_ray.", 2),
        ("x-ray", 2),
        ("fundus  photography.", 3),
        ("Fundus", None),
        ("", None),
    ],
)
def test_matching(text: str, at: int | None) -> None:
    assert matching(text, OPTIONS) == at


def test_matching_is_exact_first_and_never_a_guess() -> None:
    assert matching("mri", ["MRI", "mri"]) == 1
    assert matching("Mri", ["MRI", "mri"]) is None
    assert matching("mri", ["mri", "mri"]) == 0
    assert matching("A", ["a", "the"]) == 0


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("meta", [{}, {"options": []}, {"options": "CT"}])
def test_rows_without_options_are_an_error(metric: type[Metric], meta: dict[str, object]) -> None:
    one: Row = {**row("a", "a", OPTIONS, "omni-7"), "meta": meta}
    with pytest.raises(UserError) as raised:
        metric().items([one])
    assert len(raised.value.lines()) == 3
    assert "omni-7" in raised.value.what


def test_scored_as_a_run_is() -> None:
    rows = [row("MRI", "MRI", OPTIONS, "a"), row("malignant", "benign", ["benign", "malignant"])]
    scores, scored = score_rows(rows, ["choice/paper", "choice/strict"])
    assert scores["choice/strict"].value == 0.5
    assert scores["choice/strict"].notes == {"n_gold_no_option": 0}
    assert [one["scores"]["choice/strict"] for one in scored if "scores" in one] == [1.0, 0.0]
    assert scores["choice/paper"].n == 2


def test_texts_alone_are_not_enough() -> None:
    with pytest.raises(UserError, match="compares an answer with the options"):
        score("choice/strict", predictions=["MRI"], golds=["MRI"])
