"""Scores of reports as captions of images are scored: BLEU-4, ROUGE-L, METEOR 1.5.

Most papers on reports give them. They are those of pycocoevalcap, and need a Java.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medbench.errors import UserError
from medbench.metric import Pooled, Setting
from medbench.metrics.gate import Pair
from medbench.metrics.pairwise import Judged, Pairwise
from medbench.metrics.report import by_mean
from medbench.scorers import coco, meteor
from medbench.scorers.engine import Engine, values_of

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Bleu4Coco(Pairwise):
    """BLEU-4 of the whole corpus, as captions of images are scored.

    Output and gold are lowered and split into Penn Treebank words by Stanford's program in
    Java; punctuation is dropped (brackets stay, as -lrb- and -rrb-). The score is (p1 p2 p3
    p4)^(1/4), with pn the n-grams of all outputs that are in their golds as well (each as often
    as it is there) over all n-grams of all outputs, and is multiplied by exp(1 - gold words /
    output words) where the outputs have fewer words than the golds. So it is no mean: the value
    of one item is its own BLEU-4, which is near 0 for a text of fewer than four words even if
    it is the gold. Empty outputs count in the lengths. As in the package, 1e-15 and 1e-9 keep
    divisions defined.
    """

    name = "bleu4/coco"
    paper = "BLEU-4 by pycocoevalcap, as reports are mostly scored"
    extra = "report"
    whole = True
    golden = (
        ("No acute cardiopulmonary abnormality", "no acute cardiopulmonary abnormality.", 1.0),
        (
            "Heart size is normal. No pleural effusion, pneumothorax (or) edema.",
            "The heart size is normal. There is no pleural effusion or pneumothorax.",
            0.3264971,
        ),
        ("", "the heart is normal", 0.0),
    )

    def judge(self, pairs: Sequence[Pair], setting: Setting) -> Judged:
        """Return each pair's BLEU-4, and the counts that the corpus's follows from."""
        return _pooled(coco.bleu4(), pairs, setting, list, bleu_of)


@dataclass(frozen=True)
class RougeLCoco(Pairwise):
    """Mean of ROUGE-L, as captions of images are scored.

    Output and gold are lowered and split into Penn Treebank words by Stanford's program in
    Java; punctuation is dropped (brackets stay, as -lrb- and -rrb-). With L the length of the
    longest common subsequence of words, P is L over the output's words and R is L over the
    gold's; the value is (1 + b^2) P R / (R + b^2 P) with b = 1.2, so recall weighs more. A text
    of punctuation alone has the value 0.
    """

    name = "rougeL/coco"
    paper = "ROUGE-L by pycocoevalcap, as reports are mostly scored"
    extra = "report"
    golden = (
        ("No acute cardiopulmonary abnormality", "no acute cardiopulmonary abnormality.", 1.0),
        (
            "Heart size is normal. No pleural effusion, pneumothorax (or) edema.",
            "The heart size is normal. There is no pleural effusion or pneumothorax.",
            2 / 3,
        ),
        ("", "the heart is normal", 0.0),
    )

    def judge(self, pairs: Sequence[Pair], setting: Setting) -> Judged:
        """Return the ROUGE-L of each pair."""
        return by_mean(coco.rouge_l(), pairs, setting)


@dataclass(frozen=True)
class Meteor15(Pairwise):
    """METEOR 1.5 of the whole corpus, as captions of images are scored.

    Output and gold are lowered and split into Penn Treebank words by Stanford's program in
    Java; punctuation is dropped, and the authors' program in Java (-l en -norm) aligns their
    words: equal ones (weight 1), those of one stem (0.6), synonyms (0.8), paraphrases (0.6). P
    is the weight of the output's aligned words over its length, R the same of the gold; content
    words count 0.75 and function words 0.25. With F = P R / (0.85 P + 0.15 R), m the aligned
    words (mean of both sides) and c the chunks they stand in, the score is F (1 - 0.6 (c /
    m)^0.2), of the sums over all items: it is no mean. An item aligned word by word in one
    chunk adds none. Empty outputs count in the lengths, and so does an output that the program
    did not survive.
    """

    name = "meteor/1.5"
    paper = "Denkowski and Lavie 2014, by pycocoevalcap"
    extra = "report"
    whole = True
    golden = (
        ("No acute cardiopulmonary abnormality", "no acute cardiopulmonary abnormality.", 1.0),
        (
            "Heart size is normal. No pleural effusion, pneumothorax (or) edema.",
            "The heart size is normal. There is no pleural effusion or pneumothorax.",
            0.42331005,
        ),
        ("", "the heart is normal", 0.0),
    )

    def judge(self, pairs: Sequence[Pair], setting: Setting) -> Judged:
        """Return the METEOR of each pair, and the sums that the corpus's follows from."""
        return _pooled(meteor.meteor(), pairs, setting, _weighed, meteor_of)


def bleu_of(sums: np.ndarray) -> np.ndarray:
    """Return BLEU-4 from sums over items.

    Args:
        sums: [..., 10], common n-grams and the output's n-grams for n from 1 to 4, words of the
            outputs, words of the golds.
    """
    import numpy as np

    tiny, small = 1e-15, 1e-9
    shares = (sums[..., 0:4] + tiny) / (sums[..., 4:8] + small)
    ratio = (sums[..., 8] + tiny) / (sums[..., 9] + small)
    return shares.prod(axis=-1) ** 0.25 * np.exp(np.minimum(0.0, 1.0 - 1.0 / ratio))


def meteor_of(sums: np.ndarray) -> np.ndarray:
    """Return METEOR 1.5 from sums over items, by equations of Denkowski and Lavie (2014).

    Args:
        sums: [..., 6], for the output and for the gold the weight of aligned words and the length,
            then chunks and aligned words.
    """
    import numpy as np

    alpha, beta, gamma = 0.85, 0.2, 0.6
    output, outputs, gold, golds, chunks, aligned = np.moveaxis(sums, -1, 0)
    some = aligned > 0
    # Where nothing is aligned all is 0, and the divisors may be.
    precision = output / np.where(some, outputs, 1.0)
    recall = gold / np.where(some, golds, 1.0)
    mean = precision * recall / np.where(some, alpha * precision + (1 - alpha) * recall, 1.0)
    return mean * (1 - gamma * (chunks / np.where(some, aligned, 1.0)) ** beta)


def _weighed(found: Sequence[float]) -> list[float]:
    """Return what a pair adds to the sums of METEOR, from the program's numbers.

    These are, for output and gold in turn: words; function words; then for each kind of match its
    content words and its function words; at last chunks, and words aligned.
    """
    weights, content = (1.0, 0.6, 0.8, 0.6), 0.75
    words, functions, matches, (chunks, *aligned) = found[:2], found[2:4], found[4:20], found[20:]
    sides: list[float] = []
    for side in (0, 1):
        matched = zip(weights, matches[side::4], matches[side + 2 :: 4], strict=True)
        sides.append(sum(w * (content * c + (1 - content) * f) for w, c, f in matched))
        of_content = words[side] - functions[side]
        sides.append(content * of_content + (1 - content) * functions[side])
    # The program takes no penalty of such an item.
    unbroken = chunks == 1 and list(aligned) == list(words)
    return [*sides, 0.0 if unbroken else chunks, sum(aligned) / 2]


def _pooled(
    engine: Engine,
    pairs: Sequence[Pair],
    setting: Setting,
    adds: Callable[[Sequence[float]], list[float]],
    of: Callable[[np.ndarray], np.ndarray],
) -> Judged:
    """Return an engine's values where each is that of a pair and what it adds to the corpus's.

    Args:
        adds: numbers of the engine -> what the pair adds to the sums; of: sums -> score.
    """
    import numpy as np

    values = values_of(engine, pairs, setting)
    lost = {at: ("", pairs[at][1]) for at, value in enumerate(values.found) if value is None}
    counted = list(values.found)
    if lost:
        instead = values_of(engine, [*lost.values()], setting).found
        for at, value in zip(lost, instead, strict=True):
            counted[at] = value
    if None in counted:
        raise UserError(
            f"{engine.name} gave up on an empty output",
            "So its score of all cannot be told.",
            "Run this again on a machine with less to do, or more memory.",
        )
    items = [None if value is None else float(value[0]) for value in values.found]
    totals = np.array([adds(value[1:]) for value in counted], dtype=np.float64)
    return Judged(items, Pooled(totals, of), made_with=dict(values.made_with))
