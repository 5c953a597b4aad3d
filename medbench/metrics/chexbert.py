"""Scores of reports by CheXbert: which findings they state, and the vectors these are read from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from medbench.metric import Setting
from medbench.metrics.cxr_report_metric import CxrReportMetric
from medbench.metrics.gate import Pair
from medbench.metrics.pairwise import Judged, Pairwise
from medbench.scorers import chexbert
from medbench.scorers.engine import Values, values_of

# Of the states of a finding, those that count as stated: positive and uncertain.
_STATED = (1, 3)


@dataclass(frozen=True)
class OfCheXbert(Pairwise):
    """Base of the metrics that compare what CheXbert sees in two reports.

    Args:
        weights: folder with chexbert.pth, config.json and the tokenizer's files; "" for the
            published checkpoint, where f1chexbert or the hub's cache keeps it
    """

    downloads = (
        ("StanfordAIMI/RRG_scorers", "chexbert.pth", "1.31 GB"),
        (
            "bert-base-uncased",
            "config.json tokenizer.json tokenizer_config.json vocab.txt",
            "0.7 MB",
        ),
    )
    golden = (
        ("The heart is enlarged.", "The heart is enlarged.", 1.0),
        ("", "The heart is normal.", 0.0),
        ("The heart is normal.", "", 0.0),
    )
    unkeyed = ("weights",)

    weights: str = ""

    @property
    def published(self) -> bool:
        """Whether it computes with the published checkpoint."""
        return not self.weights


@dataclass(frozen=True)
class CheXbertLabels(OfCheXbert):
    """Cosine of the findings that two reports state, as CheXbert labels them.

    CheXbert calls each of fourteen findings (the last is "no finding") blank, positive, negative or
    uncertain, on at most 512 tokens. Positive and uncertain are 1, the others 0, as f1chexbert
    does; the value is the cosine of the two vectors, and the score the mean. If both vectors are
    all 0 the value is 1 (n_both_blank), if one is, it is 0 (n_one_blank).
    """

    name = "chexbert/labels"
    paper = "A3Tune's text: cosine of CheXbert's pathology indicators; its code: chexbert/embedding"
    golden_published = (
        # f1chexbert's own test, whose counts of labels leave no other value.
        ("No pleural effusion. Normal heart size.", "No pleural effusions.", 1.0),
        ("Normal heart size.", "Enlarged heart.", 0.0),
        (
            "Increased mild pulmonary edema and left basal atelectasis.",
            "No evidence of pneumonia. Stable cardiomegaly.",
            0.0,
        ),
    )

    def judge(self, pairs: Sequence[Pair], setting: Setting) -> Judged:
        """Return the cosine of each pair's labels."""
        values = _read(self.weights, pairs, setting)
        labels = [
            (_stated(output), _stated(gold)) if output and gold else None
            for output, gold in _paired(values)
        ]
        known = [pair for pair in labels if pair is not None]
        notes = {
            "n_both_blank": sum(not any(a) and not any(b) for a, b in known),
            "n_one_blank": sum(any(a) != any(b) for a, b in known),
            **_cut(values),
        }
        items = [None if pair is None else _alike(*pair) for pair in labels]
        return Judged(items, notes=notes, made_with=dict(values.made_with))


@dataclass(frozen=True)
class CheXbertEmbedding(OfCheXbert, CxrReportMetric):
    """Cosine of two reports' vectors, the first token's in CheXbert's encoder (s_emb).

    The vector is the last hidden state of the first token, on at most 512 tokens; the value is the
    cosine of the two, the score the mean. Vectors of any two reports are much alike: read it beside
    the value of another method, not from 0.
    """

    name = "chexbert/embedding"
    paper = "Yu et al. 2023, CXR-Report-Metric; A3Tune's CheXbert: the published evaluation"
    range = "-1 to 1"

    def judge(self, pairs: Sequence[Pair], setting: Setting) -> Judged:
        """Return the cosine of each pair's vectors."""
        values = _read(self.weights, pairs, setting)
        items = [
            _cosine(output["embedding"], gold["embedding"]) if output and gold else None
            for output, gold in _paired(values)
        ]
        return Judged(items, notes=_cut(values), made_with=dict(values.made_with))


def _read(weights: str, pairs: Sequence[Pair], setting: Setting) -> Values:
    """Return what CheXbert says of the outputs, and then of the golds."""
    texts = [(output,) for output, _ in pairs] + [(gold,) for _, gold in pairs]
    return values_of(chexbert.chexbert(weights), texts, setting)


def _paired(values: Values) -> list[tuple[Any, Any]]:
    half = len(values.found) // 2
    return list(zip(values.found[:half], values.found[half:], strict=True))


def _cut(values: Values) -> dict[str, int]:
    """Return how many pairs have a text that was cut at 512 tokens."""
    return {"n_cut": sum(any(one and one["cut"] for one in pair) for pair in _paired(values))}


def _stated(value: dict[str, Any]) -> list[bool]:
    return [state in _STATED for state in value["classes"]]


def _alike(one: Sequence[bool], other: Sequence[bool]) -> float:
    """Return the cosine of two vectors of 0 and 1; 1 if both are all 0, 0 if one is."""
    if not any(one) or not any(other):
        return float(not any(one) and not any(other))
    both = sum(a and b for a, b in zip(one, other, strict=True))
    return both / math.sqrt(sum(one) * sum(other))


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    import numpy as np

    a, b = np.array(one), np.array(other)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))
