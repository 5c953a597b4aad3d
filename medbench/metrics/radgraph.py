"""Scores of reports by RadGraph: how many entities and relations of two reports are the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from medbench.metric import Setting
from medbench.metrics.cxr_report_metric import CxrReportMetric
from medbench.metrics.gate import Pair
from medbench.metrics.pairwise import Judged, Pairwise
from medbench.scorers import radgraph
from medbench.scorers.engine import values_of

# Of one text by number: "tokens", "label", and "relations" as (label, number of another).
Entities = dict[str, dict[str, Any]]
Found = set[tuple[Any, ...]]

_DESCRIPTION = "config.json tokenizer.json tokenizer_config.json vocab.txt special_tokens_map.json"
_DOWNLOADS_FIRST = (
    ("StanfordAIMI/RRG_scorers", "radgraph.tar.gz", "432 MB"),
    ("microsoft/BiomedNLP-PubMedBERT-base-uncased-abstract-fulltext", _DESCRIPTION, "0.2 MB"),
)
_DOWNLOADS_XL = (
    ("StanfordAIMI/RRG_scorers", "radgraph-xl.tar.gz", "416 MB"),
    ("microsoft/BiomedVLP-CXR-BERT-general", _DESCRIPTION, "0.2 MB"),
)
# The two pairs of the package's README, which gives the means of their rewards.
_SAME = "no acute cardiopulmonary abnormality"
_TUBE = "et tube terminates 2 cm above the carina and bibasilar opacities"
_TUBE_GOLD = (
    "endotracheal tube is present and bibasilar opacities likely represent mild atelectasis"
)


@dataclass(frozen=True)
class OfRadGraph(Pairwise):
    """Base of the metrics that compare what RadGraph finds in two reports.

    Args:
        model: radgraph-xl (Delbrouck et al. 2024, the package's own choice), or radgraph, the first
            (Jain et al. 2021)
        weights: folder that holds the model's folder, with config.json, weights.th and vocabulary/;
            "" for the published ones, where the package or the hub's cache keeps them
    """

    extra = "clinical"
    downloads = _DOWNLOADS_XL
    golden = (
        ("", "The heart is normal.", 0.0),
        ("The heart is normal.", "", 0.0),
    )
    unkeyed = ("weights",)

    model: Literal["radgraph-xl", "radgraph"] = "radgraph-xl"
    weights: str = ""

    def __post_init__(self) -> None:
        needed = _DOWNLOADS_XL if self.model == "radgraph-xl" else _DOWNLOADS_FIRST
        object.__setattr__(self, "downloads", needed)

    @property
    def published(self) -> bool:
        """Whether it computes with the published weights."""
        return not self.weights

    def judge(self, pairs: Sequence[Pair], setting: Setting) -> Judged:
        """Return the value of each pair, after RadGraph has read each text once."""
        texts = [(output,) for output, _ in pairs] + [(gold,) for _, gold in pairs]
        values = values_of(radgraph.radgraph(self.model, self.weights), texts, setting)
        found = zip(values.found[: len(pairs)], values.found[len(pairs) :], strict=True)
        both = [(output, gold) if output and gold else None for output, gold in found]
        sides = [[one["entities"] for one in pair] for pair in both if pair]
        notes = {
            "n_no_entity": sum(not all(pair) for pair in sides),
            "n_no_relation": sum(not all(map(relations, pair)) for pair in sides),
            "n_cut": sum(any(one["cut"] for one in pair) for pair in both if pair),
        }
        items = [self.value(*(one["entities"] for one in pair)) if pair else None for pair in both]
        return Judged(items, notes=notes, made_with=dict(values.made_with))

    def value(self, output: Entities, gold: Entities) -> float:
        """Return the value of two texts."""
        raise NotImplementedError


@dataclass(frozen=True)
class Reward(OfRadGraph):
    """Base of the rewards of Delbrouck et al.: F1 of what is found in two reports."""

    def value(self, output: Entities, gold: Entities) -> float:
        """Return the F1 of two texts."""
        return f1(self.found(output), self.found(gold))

    def found(self, entities: Entities) -> Found:
        """Return what counts of a text's entities."""
        raise NotImplementedError


@dataclass(frozen=True)
class RadGraphSimple(Reward):
    """F1 of the entities of two reports (RG_E): the same words with the same label.

    RadGraph marks spans of a report as anatomy or as observations that are present, absent or
    uncertain. With each side's set of (words, label), case kept, the value is 2 x common / sum of
    sizes, 0 if a side has none (n_no_entity); the score is the mean. Of a text the first 640 words
    and marks are read (n_cut).
    """

    name = "radgraph/simple"
    paper = "Delbrouck et al. 2022; RadGraph-XL: Delbrouck et al. 2024"
    golden_published = ((_SAME, _SAME, 1.0), (_TUBE, _TUBE_GOLD, 0.5))

    def found(self, entities: Entities) -> Found:
        """Return words and labels."""
        return simple(entities)


@dataclass(frozen=True)
class RadGraphPartial(Reward):
    """F1 of the entities of two reports and of whether each has a relation (RG_ER).

    As radgraph/simple, of (words, label, whether a relation leads away from it). This is the one
    that papers mostly report. Of two reports without common entities, or where a side has none
    (n_no_entity), it is 0.
    """

    name = "radgraph/partial"
    paper = "Delbrouck et al. 2022; RadGraph-XL: Delbrouck et al. 2024"
    golden_published = ((_SAME, _SAME, 1.0), (_TUBE, _TUBE_GOLD, 1 / 3))

    def found(self, entities: Entities) -> Found:
        """Return words, labels, and whether there is a relation."""
        return partial(entities)


@dataclass(frozen=True)
class RadGraphComplete(Reward):
    """F1 of the entities of two reports together with their relations (RG_bar_ER).

    As radgraph/simple, of (words, label) of entities without relations, and of (words, label,
    relation, words of the other) of each relation, there in lower case. 0 if a side has no entity
    (n_no_entity).
    """

    name = "radgraph/complete"
    paper = "Delbrouck et al. 2022; RadGraph-XL: Delbrouck et al. 2024"
    golden_published = ((_SAME, _SAME, 1.0), (_TUBE, _TUBE_GOLD, 4 / 13))

    def found(self, entities: Entities) -> Found:
        """Return relations, and entities that have none."""
        return complete(entities)


@dataclass(frozen=True)
class RadGraphCombined(OfRadGraph, CxrReportMetric):
    """Mean of the F1 of two reports' entities and the F1 of their relations (radgraph_combined).

    Entities are sets of (words, label), relations sets of (words and label of one, words and label
    of the other, relation), case kept; an F1 is 2 x common / sum of sizes, and 0 where both sides
    are empty. So a report without relations has at most 0.5, compared with itself too
    (n_no_relation), and one without entities 0 (n_no_entity). The score is the mean; of a text the
    first 640 words and marks are read (n_cut).

    Args:
        model: radgraph, the first (Jain et al. 2021), as in CXR-Report-Metric, or radgraph-xl
    """

    name = "radgraph/combined"
    paper = "Yu et al. 2023, CXR-Report-Metric; A3Tune's RadGraph: the published evaluation"
    downloads = _DOWNLOADS_FIRST
    golden_published = (
        # RadEval's tests, which agree with CXR-Report-Metric.
        ("No acute cardiopulmonary process.", "No acute cardiopulmonary process.", 1.0),
        ("No acute findings.", "No acute cardiopulmonary process.", 0.2),
        (
            "Bilateral pleural effusions and basilar atelectasis.",
            "Small bilateral pleural effusions with bibasilar atelectasis.",
            3 / 11,
        ),
        ("Mild cardiomegaly with clear lungs.", "Mild cardiomegaly. No pleural effusion.", 0.25),
    )

    model: Literal["radgraph-xl", "radgraph"] = "radgraph"

    def value(self, output: Entities, gold: Entities) -> float:
        """Return the mean of the two F1 of two texts."""
        of_entities = f1(simple(output), simple(gold))
        return (of_entities + f1(relations(output), relations(gold))) / 2


def simple(entities: Entities) -> Found:
    """Return each entity's words and label."""
    return {(one["tokens"], one["label"]) for one in entities.values()}


def partial(entities: Entities) -> Found:
    """Return each entity's words, label and whether a relation leads away from it."""
    return {(one["tokens"], one["label"], bool(one["relations"])) for one in entities.values()}


def complete(entities: Entities) -> Found:
    """Return each relation with its words in lower case, and entities without any as they are."""
    alone = {(one["tokens"], one["label"]) for one in entities.values() if not one["relations"]}
    return alone | {
        (one["tokens"].lower(), one["label"], relation, entities[other]["tokens"].lower())
        for one in entities.values()
        for relation, other in one["relations"]
    }


def relations(entities: Entities) -> Found:
    """Return each relation with words and labels of its two entities."""
    return {
        (one["tokens"], one["label"], relation, entities[other]["tokens"], entities[other]["label"])
        for one in entities.values()
        for relation, other in one["relations"]
    }


def f1(one: Found, other: Found) -> float:
    """Return the F1 of two sets, 0 if both are empty."""
    return 2 * len(one & other) / (len(one) + len(other)) if one or other else 0.0
