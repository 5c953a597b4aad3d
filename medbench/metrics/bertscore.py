"""BERTScore: how much words in context have alike, as a RoBERTa sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medbench.metric import Setting
from medbench.metrics.gate import Pair
from medbench.metrics.pairwise import Judged, Pairwise
from medbench.scorers import bert
from medbench.scorers.engine import values_of


@dataclass(frozen=True)
class BertScore(Pairwise):
    """Mean of BERTScore's F1 by roberta-large, not rescaled: likeness of words in their context.

    Both texts go through the first 17 layers of roberta-large, the first word written as one in
    the midst of a text; of more than 512 tokens the first 512 are read, which is counted. Each
    token of the output has the highest cosine to a token of the gold, and the other way round;
    precision and recall are their means, without weighing rare words, and the value is their
    harmonic mean. Unrelated English texts have about 0.83; an empty one has 0, on either scale.

    Args:
        rescaled: count from that up: (F1 - b) / (1 - b) with the b that bert-score ships, which
            gives negative values where texts have less in common than unrelated ones
        weights: folder of roberta-large or of a model of its format; by default the hub's cache
    """

    name = "bertscore"
    paper = "A3Tune's BERTScore: its published evaluation calls bert-score with lang=en"
    range = "up to 1, in practice 0.8 to 1; rescaled 0 to 1, and less for what is unlike"
    extra = "report"
    downloads = (
        ("roberta-large", "config.json model.safetensors vocab.json merges.txt", "1.42 GB"),
    )
    golden = (
        ("", "the heart is normal", 0.0),
        ("the heart is normal", "", 0.0),
    )
    golden_published = (
        # From bert-score's own tests, as those of rescaled values below.
        (
            "28-year-old chef found dead in San Francisco mall",
            "28-Year-Old Chef Found Dead at San Francisco Mall",
            0.983356,
        ),
        (
            "A 28-year-old chef who recently moved to San Francisco was found dead in the "
            "staircase of a local shopping center.",
            "A 28-year-old chef who had recently moved to San Francisco was found dead in the "
            "stairwell of a local mall this week.",
            0.978230,
        ),
        (
            "The victim's brother said he cannot imagine anyone who would want to harm "
            'him,"Finally, it went uphill again at him."',
            "But the victim's brother says he can't think of anyone who would want to hurt him, "
            'saying, "Things were finally going well for him."',
            0.916215,
        ),
    )
    unkeyed = ("weights",)

    rescaled: bool = False
    weights: str = ""

    def __post_init__(self) -> None:
        if self.rescaled:
            known = zip(self.golden_published, (0.901383, 0.871011, 0.503565), strict=True)
            examples = tuple((output, gold, value) for (output, gold, _), value in known)
            object.__setattr__(self, "golden_published", examples)

    @property
    def published(self) -> bool:
        """Whether it computes with roberta-large as published."""
        return not self.weights

    def judge(self, pairs: Sequence[Pair], setting: Setting) -> Judged:
        """Return the F1 of each pair."""
        values = values_of(bert.bertscore(self.weights), pairs, setting)
        key = "rescaled" if self.rescaled else "f1"
        items = [None if one is None else one[key] for one in values.found]
        notes = {"n_cut": sum(one is not None and one["cut"] for one in values.found)}
        return Judged(items, notes=notes, made_with=dict(values.made_with))
