"""RaTEScore: how much the medical entities of reports have alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from medbench.metric import Setting
from medbench.metrics.gate import Pair
from medbench.metrics.pairwise import Judged, Pairwise
from medbench.scorers import rate
from medbench.scorers.engine import values_of


@dataclass(frozen=True)
class RateScore(Pairwise):
    """Mean of RaTEScore with the weights for long reports: entities, each with the likest one.

    medspaCy's rules split a text into sentences, and one of fewer than three letters is left out.
    A DeBERTa finds the entities of each sentence and of which of five kinds they are (anatomy;
    abnormality or disease, there or not there), and BioLORD gives each a vector. Each entity of
    the gold has its highest cosine to one of the output, averaged with weights by the two kinds;
    less where one is a finding and the other its absence. The value is the harmonic mean of that
    and of the same the other way round.

    Where the output or the gold has no entity the value is 0.5, which is counted; so it is where a
    text has no sentence at all, such as "ok", which the package would leave out of its list.

    Args:
        release: 0.6.0, or 0.5.0 as the A3Tune paper's code has it: what a finding and its absence
            have in common counts 0.87 there and 0.36 here
        ner: folder of the model that finds entities; by default RaTE-NER-Deberta in the hub's cache
        encoder: folder of the model that gives vectors; by default BioLORD-2023-C there
    """

    name = "ratescore"
    paper = "RaTEScore (arXiv 2406.16845); A3Tune's is release 0.5.0 with its default models"
    extra = "clinical"
    downloads = (
        (
            "Angelakeke/RaTE-NER-Deberta",
            "config.json model.safetensors tokenizer.json",
            "744 MB",
        ),
        (
            "FremyCompany/BioLORD-2023-C",
            "config.json model.safetensors vocab.txt tokenizer_config.json special_tokens_map.json",
            "438 MB",
        ),
    )
    golden = (
        ("", "The heart is normal.", 0.0),
        ("The heart is normal.", "", 0.0),
        # Too short to be a sentence, hence without entities whatever the weights.
        ("ok", "The heart is normal.", 0.5),
    )
    unkeyed = ("ner", "encoder")

    release: Literal["0.6.0", "0.5.0"] = "0.6.0"
    ner: str = ""
    encoder: str = ""

    @property
    def published(self) -> bool:
        """Whether it computes with both models as published."""
        return not self.ner and not self.encoder

    def judge(self, pairs: Sequence[Pair], setting: Setting) -> Judged:
        """Return the value of each pair."""
        values = values_of(rate.ratescore(self.ner, self.encoder), pairs, setting)
        items = [None if one is None else one[self.release] for one in values.found]
        without = sum(one is not None and 0 in one["entities"] for one in values.found)
        notes = {"n_no_entity": without}
        return Judged(items, notes=notes, made_with=dict(values.made_with))
