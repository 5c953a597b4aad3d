"""The gate in front of the metrics of reports: one line a text, nothing dropped, all counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from medbench.errors import UserError
from medbench.metric import Measured, Pooled, Setting
from medbench.metrics.gate import LETTERS, WORDS, Pair, cap, let_in, one_line
from medbench.metrics.pairwise import Judged, Pairwise
from medbench.rows import Row


def row(output: object, gold: object = "the heart is normal", name: str = "x") -> Row:
    return {"id": name, "group": name, "kind": "report", "output": output, "gold": gold}  # pyright: ignore[reportReturnType]


ENDS = ["\n", "\r", "\r\n", "\t", "\v", "\f", "\0", "\x1c", "\x85", "\u2028", "\u2029", "\xa0"]


@pytest.mark.parametrize("end", ENDS)
def test_line_ends_and_blanks_of_all_kinds_become_one_blank(end: str) -> None:
    assert one_line(f"{end}the heart{end} {end}is normal{end}") == "the heart is normal"
    assert len(one_line(f"a{end}b").splitlines()) == 1


def test_marks_that_cannot_be_seen_part_no_words() -> None:
    assert one_line("\ufeffpneumo\u00adthorax\u200b.") == "pneumothorax."


def test_half_a_character_is_no_character() -> None:
    assert one_line("heart \ud83d normal").encode("utf-8") == b"heart normal"


def test_texts_that_are_fine_stay_as_they_are() -> None:
    for text in ("No edema.", "Größe 3 µm; 心脏正常。", "ok 👍", "a-b/c (d) [e] ``x''"):
        assert one_line(text) == text


def test_long_texts_are_cut_and_counted() -> None:
    words = " ".join(f"w{n}" for n in range(WORDS + 1))
    assert cap(words).split() == words.split()[:WORDS]
    assert cap("x" * (LETTERS + 1)) == "x" * LETTERS
    assert cap("ab " * 2000) == " ".join(["ab"] * WORDS)
    gated = let_in([row(words), row("short", words), row("short"), row("x" * 9999)])
    assert gated.capped == [True, True, False, True]
    assert gated.notes == {"n_empty": 0, "n_empty_gold": 0, "n_capped": 3}
    assert all(len(text.split()) <= WORDS for pair in gated.pairs for text in pair)


@pytest.mark.parametrize(
    ("strip", "output", "expected"),
    [
        ("prefix", "Assistant: Stable heart.", "Stable heart."),
        ("prefix", " ASSISTANT : Stable heart.", "Stable heart."),
        ("prefix", "The assistant: stable", "The assistant: stable"),
        ("prefix", "Assistant: Assistant: yes", "Assistant: yes"),
        ("none", "Assistant: Stable heart.", "Assistant: Stable heart."),
        # The published code's: a set of letters, taken off both ends.
        (
            "characters",
            "Assistant: Stable heart. No pneumothorax is present",
            "Stable heart. No pneumothorax is prese",
        ),
        ("characters", "Assistant: No pneumothorax.", "No pneumothorax."),
        ("characters", "stains", ""),
    ],
)
def test_what_is_taken_off_an_output(strip: str, output: str, expected: str) -> None:
    gated = let_in([row(output, output)], strip=strip)  # pyright: ignore[reportArgumentType]
    assert gated.pairs[0][0] == expected
    assert gated.pairs[0][1] == one_line(output)  # gold reports are nobody's answers


def test_short_texts_are_replaced_only_where_asked() -> None:
    rows = [row("No edema", "short"), row("", "No edema at all.")]
    assert let_in(rows).pairs == [("No edema", "short"), ("", "No edema at all.")]
    replaced = let_in(rows, replace_short=True)
    assert replaced.pairs == [
        ("No report generated.", "No report generated."),
        ("No report generated.", "No edema at all."),
    ]
    assert replaced.empty == [False, True]


@pytest.mark.parametrize("bad", [None, float("nan"), 3, ["no edema"], b"no edema"])
@pytest.mark.parametrize("field", ["output", "gold"])
def test_what_is_no_text_is_named_and_not_scored(field: str, bad: object) -> None:
    rows = [row("a"), row(**{"output": "a", field: bad}, name="study-7")]  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match=f"row study-7 has no {field}"):
        let_in(rows)


@dataclass(frozen=True)
class _Letters(Pairwise):
    """As many as the output has; what says `hang` is given up."""

    name = "letters"

    def judge(self, pairs: Sequence[Pair], setting: Setting) -> Judged:
        assert all(output and gold for output, gold in pairs)
        items = [None if output == "hang" else len(output) for output, _ in pairs]
        return Judged(items, notes={"n_pairs": len(pairs)}, made_with={"package": "1"})


@dataclass(frozen=True)
class _AllLetters(_Letters):
    whole = True

    def judge(self, pairs: Sequence[Pair], setting: Setting) -> Judged:
        totals = np.array([[len(output), len(gold)] for output, gold in pairs], dtype=float)
        return Judged([1.0] * len(pairs), Pooled(totals, lambda sums: sums[..., 0] / sums[..., 1]))


@dataclass(frozen=True)
class _Forgetful(_Letters):
    def judge(self, pairs: Sequence[Pair], setting: Setting) -> Judged:
        return Judged([1.0] * (len(pairs) - 1))


def measured(metric: Pairwise, *rows: Row) -> Measured:
    return metric.measure(rows, Setting())


def test_empties_have_a_value_and_shift_nothing() -> None:
    found = measured(
        _Letters(), row(""), row("abc"), row(" \u2028 "), row("ab", "\n"), row("hang"), row("abcd")
    )
    assert list(found.items) == [0, 3, 0, 0, 0, 4]
    assert found.notes == {
        "n_empty": 2, "n_empty_gold": 1, "n_capped": 0, "n_gave_up": 1, "n_pairs": 3,
    }  # fmt: skip
    assert found.made_with == {"package": "1"}


def test_nothing_but_empties() -> None:
    assert list(measured(_Letters(), row(""), row("", "")).items) == [0, 0]


def test_a_pooled_score_counts_what_empties_lack() -> None:
    found = measured(_AllLetters(), row("", "abcd"), row("ab", "ab"))
    assert list(found.items) == [0, 1]  # by the rule, whatever the package says
    assert found.pooled is not None
    assert found.pooled.value(found.pooled.totals.sum(axis=0)) == 2 / 6


def test_a_package_that_forgets_an_item_is_caught() -> None:
    with pytest.raises(ValueError, match="1 values for 2 pairs"):
        measured(_Forgetful(), row("a"), row("b"))
