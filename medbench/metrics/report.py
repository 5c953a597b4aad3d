"""Scores of reports by their words, with the packages of A3Tune's evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medbench.metric import Setting
from medbench.metrics.gate import Pair
from medbench.metrics.pairwise import Judged, Pairwise
from medbench.scorers import google_rouge, nltk_texts
from medbench.scorers.engine import Engine, values_of


@dataclass(frozen=True)
class Bleu4Nltk(Pairwise):
    """Mean of NLTK's sentence BLEU-4, smoothed, on words as they stand.

    Output and gold are split by NLTK's word_tokenize (sentences by Punkt, words by the Treebank
    rules); case and punctuation are kept. The value is sentence_bleu with equal weights on 1 to 4
    words and smoothing method 4: without a common word it is 0; else in place of the k-th number of
    matches that is 0 stands ln(w) / (5 * 2^k), w being the output's words, and for w = 1 that
    precision is left out. The score is the mean. A text of two or three words can be the gold and
    have less than 1.
    """

    name = "bleu4/nltk"
    paper = "A3Tune's BLEU: the published evaluation of reports"
    extra = "report"
    downloads = (("nltk", "punkt_tab", "4 MB"),)
    golden = (
        ("the heart is normal in size .", "the heart is normal in size .", 1.0),
        ("", "the heart is normal .", 0.0),
        ("the heart is normal .", "", 0.0),
    )

    def judge(self, pairs: Sequence[Pair], setting: Setting) -> Judged:
        """Return the sentence BLEU of each pair."""
        return by_mean(nltk_texts.bleu4(), pairs, setting)


@dataclass(frozen=True)
class RougeLGoogle(Pairwise):
    """Mean of ROUGE-L by rouge-score: stemmed words, F-measure of equal weights.

    Texts are lowered and split into runs of letters a to z and digits; words of more than three
    letters are stemmed (Porter). With L the length of the longest common subsequence of words,
    precision is L over the output's words, recall L over the gold's, and the value their harmonic
    mean. The published evaluation hands the two texts over the other way round, which changes
    precision and recall and not their mean.
    """

    name = "rougeL/google"
    paper = "A3Tune's ROUGE-L: the published evaluation of reports"
    extra = "report"
    golden = (
        ("The heart is normal.", "the heart is normal", 1.0),
        ("the heart", "the heart is normal", 2 / 3),
        ("", "the heart is normal", 0.0),
    )

    def judge(self, pairs: Sequence[Pair], setting: Setting) -> Judged:
        """Return the F-measure of each pair."""
        return by_mean(google_rouge.rouge_l(), pairs, setting)


@dataclass(frozen=True)
class MeteorNltk(Pairwise):
    """Mean of NLTK's METEOR, with its own parameters.

    Output and gold are split by NLTK's word_tokenize and lowered. Words are aligned in three passes
    from the end, each over what the one before has left: equal words, equal stems (Porter), and
    stems that stand in one set of synonyms of WordNet (few do: a stem is seldom a word). With P the
    aligned words over the output's and R over the gold's, F = P R / (0.9 P + 0.1 R), and the value
    is F (1 - 0.5 (c / m)^3) for m aligned words in c chunks. So a text of n words that is its gold
    has 1 - 0.5 / n^3. It is not METEOR 1.5 (meteor/1.5), and mostly higher.
    """

    name = "meteor/nltk"
    paper = "A3Tune's METEOR: the published evaluation of reports"
    extra = "report"
    downloads = (("nltk", "punkt_tab wordnet", "15 MB"),)
    golden = (
        ("The heart is normal in size .", "the heart is normal in size .", 1 - 0.5 / 343),
        ("the heart", "the heart is normal", 0.4934211),
        ("", "the heart is normal", 0.0),
    )

    def judge(self, pairs: Sequence[Pair], setting: Setting) -> Judged:
        """Return the METEOR of each pair."""
        return by_mean(nltk_texts.meteor(), pairs, setting)


def by_mean(engine: Engine, pairs: Sequence[Pair], setting: Setting) -> Judged:
    """Return what an engine says that has one number for each pair."""
    values = values_of(engine, pairs, setting)
    return Judged(values.found, made_with=dict(values.made_with))
