"""ROUGE-L by Google's rouge-score: its own words, stemmed; the F-measure of equal weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from medbench.extras import importing
from medbench.scorers.engine import Engine
from medbench.scorers.packages import versions


def rouge_l() -> Engine:
    """Return the engine of ROUGE-L with stemming."""
    return Engine(__name__, {}, batch=64, apart=False, kept=False)


def describe(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the versions of the package and of NLTK, whose stemmer it takes."""
    return versions(["rouge-score", "nltk"], extra="report")


def load(settings: Mapping[str, Any], device: str) -> Callable[[Sequence[tuple[str, ...]]], Any]:
    """Return a function from (output, gold) pairs to their F-measures."""
    with importing("report"):
        from rouge_score.rouge_scorer import RougeScorer  # pyright: ignore
    scorer = RougeScorer(["rougeL"], use_stemmer=True)

    def values(pairs: Sequence[tuple[str, ...]]) -> list[float]:
        return [float(scorer.score(gold, output)["rougeL"].fmeasure) for output, gold in pairs]

    return values
