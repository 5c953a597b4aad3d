"""Scores of short answers: the published rules, strict ones, and how often yes is said at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from medbench.metric import Metric
from medbench.metrics.text import published, words
from medbench.rows import Row

Verdict = Literal["yes", "no", "both", "neither"]


@dataclass(frozen=True)
class ClosedPaper(Metric):
    """Substring test of the published evaluation, which "normal" passes where the gold is no.

    Both texts are normalised once by `text.published`. The value is 1 if the answer contains the
    letters "yes" or "no" anywhere and contains the gold's letters anywhere, else 0. So "normal",
    "unknown" and "abnormal" satisfy the gold "no", an answer with both words is right whatever the
    gold, and a gold that is neither word needs a yes or no in the answer as well. An empty gold is
    contained in everything.
    """

    name = "closed/paper"
    paper = "A3Tune, published evaluation of closed questions"
    kinds = ("closed",)
    golden = (
        ("Yes.", "yes", 1.0),
        ("no", "Yes", 0.0),
        ("normal", "no", 1.0),
        ("unknown", "no", 1.0),
        ("a nodule is seen", "no", 1.0),
        ("yes, nodule present", "no", 1.0),
        ("none", "no", 0.0),
        ("mri", "mri", 0.0),
        ("", "no", 0.0),
    )

    def items(self, rows: Sequence[Row]) -> list[float]:
        """Return 1.0 or 0.0 for each row."""
        return [_closed_paper(row["output"], row["gold"]) for row in rows]


@dataclass(frozen=True)
class ClosedStrict(Metric):
    """Word test: the answer must say exactly one of yes and no, and the right one.

    The words of the whole answer are those of `text.words`. For a gold that is yes or no, the
    value is 1 if that word occurs among them and the other does not; both or neither is 0. For any
    other gold (data sets call some either-or questions closed), the value is 1 if the answer's
    words are the gold's words in the same order, else 0; an empty gold asks for an empty answer.
    """

    name = "closed/strict"
    kinds = ("closed",)
    golden = (
        ("Yes.", "yes", 1.0),
        ("Yes, it is not enlarged.", "yes", 1.0),
        ("normal", "no", 0.0),
        ("yes, nodule present", "no", 0.0),
        ("yes and no", "no", 0.0),
        ("", "no", 0.0),
        ("The MRI.", "mri", 1.0),
        ("an MRI of the head", "mri", 0.0),
    )

    def items(self, rows: Sequence[Row]) -> list[float]:
        """Return 1.0 or 0.0 for each row."""
        return [_closed_strict(row["output"], row["gold"]) for row in rows]


@dataclass(frozen=True)
class RecallPaper(Metric):
    """Share of gold words found, counting the answer's repetitions, as in the published evaluation.

    Both texts are normalised twice by `text.published` and split at blanks. With c(w) and g(w) the
    counts of a word in answer and gold, the value is hits / (hits + misses), where hits sums c(w)
    over words in both and misses sums g(w) over gold words that the answer lacks; 0 if either
    text is empty. Repeating a right word raises it, extra words cost nothing.
    """

    name = "recall/paper"
    paper = "A3Tune, published evaluation of open questions"
    kinds = ("open",)
    golden = (
        ("lung lung lung", "left lung", 0.75),
        ("left lung lung lung", "left lung apex", 0.8),
        ("lung lung lung lung", "left lung", 0.8),
        ("heart", "left lung", 0.0),
        ("", "left lung", 0.0),
        ("left lung", "", 0.0),
    )

    def items(self, rows: Sequence[Row]) -> list[float]:
        """Return a share between 0 and 1 for each row."""
        return [_recall_paper(row["output"], row["gold"]) for row in rows]


@dataclass(frozen=True)
class RecallStrict(Metric):
    """Share of gold words found, each gold word to be matched by a word of its own.

    Both texts are split by `text.words`. With c(w) and g(w) the counts of a word in answer and
    gold, the value is the sum of min(c(w), g(w)) over the number of gold words. A gold without
    words asks for an answer without words: 1 if it has none, else 0.
    """

    name = "recall/strict"
    kinds = ("open",)
    golden = (
        ("lung lung lung", "left lung", 0.5),
        ("The left lung.", "Left Lung", 1.0),
        ("lung, lung", "left lung, right lung", 0.5),
        ("two", "2", 1.0),
        ("", "left lung", 0.0),
        ("", "", 1.0),
        ("lung", "", 0.0),
    )

    def items(self, rows: Sequence[Row]) -> list[float]:
        """Return a share between 0 and 1 for each row."""
        return [_recall_strict(row["output"], row["gold"]) for row in rows]


@dataclass(frozen=True)
class YesRate(Metric):
    """Share of the yes-no questions that are answered yes, right or wrong.

    It applies to closed questions whose gold is yes or no and nothing else. The words of the whole
    answer are those of `text.words`; the value is 1 if yes is among them and no is not, else 0, so
    that an answer with both words, with neither, or without any is none. A model that leans to one
    answer shows it here: `gold_yes_rate` is the share of golds that are yes. `n_both` and
    `n_neither` count the answers with both words and with none. Higher is not better.
    """

    name = "yes_rate"
    better = "neither"
    kinds = ("closed",)
    golden = (
        ("Yes.", "yes", 1.0),
        ("Yes, it is not enlarged.", "no", 1.0),
        ("no", "yes", 0.0),
        ("yes and no", "yes", 0.0),
        ("abnormal", "yes", 0.0),
        ("", "no", 0.0),
    )

    def applies(self, row: Row) -> bool:
        """Say whether the row is a closed question whose gold is yes or no."""
        return super().applies(row) and yes_or_no(row["gold"]) != ""

    def items(self, rows: Sequence[Row]) -> list[float]:
        """Return 1.0 or 0.0 for each row."""
        return [float(verdict(row["output"]) == "yes") for row in rows]

    def notes(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Return the golds' own rate, and count the answers that say neither or both."""
        asked = [row for row in rows if self.applies(row)]
        said = Counter(verdict(row["output"]) for row in asked)
        golds = [yes_or_no(row["gold"]) for row in asked]
        return {
            "gold_yes_rate": golds.count("yes") / len(golds) if golds else None,
            "n_neither": said["neither"],
            "n_both": said["both"],
        }


def verdict(output: str) -> Verdict:
    """Say which of the words yes and no an answer has."""
    found = set(words(output)) & {"yes", "no"}
    if len(found) == 2:
        return "both"
    if not found:
        return "neither"
    return "yes" if "yes" in found else "no"


def yes_or_no(gold: str) -> str:
    """Return "yes" or "no" if that is all the gold says, else ""."""
    said = words(gold)
    return said[0] if said in (["yes"], ["no"]) else ""


def _closed_paper(output: str, gold: str) -> float:
    answer = published(output)
    return float(("yes" in answer or "no" in answer) and published(gold) in answer)


def _closed_strict(output: str, gold: str) -> float:
    wanted = yes_or_no(gold)
    return float(verdict(output) == wanted if wanted else words(output) == words(gold))


def _recall_paper(output: str, gold: str) -> float:
    answer = Counter(published(published(output)).split())
    reference = Counter(published(published(gold)).split())
    hits = sum(count for word, count in answer.items() if word in reference)
    misses = sum(count for word, count in reference.items() if word not in answer)
    return hits / (hits + misses) if hits else 0.0


def _recall_strict(output: str, gold: str) -> float:
    answer, reference = Counter(words(output)), Counter(words(gold))
    if not reference:
        return float(not answer)
    return (answer & reference).total() / reference.total()
