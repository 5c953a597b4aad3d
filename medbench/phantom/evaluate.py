"""Accuracy by kind, beside what a model that sees nothing would score, and where it looks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from medbench.phantom.draw import Mask, region_mask
from medbench.phantom.model import GRID, PATCH, TOKENS, tokenizer
from medbench.phantom.packing import Encoder
from medbench.phantom.questions import CLOSED, KINDS, TRAINED_PHRASINGS, Question, ask
from medbench.phantom.splits import Item
from medbench.phantom.stream import Stream
from medbench.phantom.world import Scene

_BATCH = 64
_LONGEST = 6  # tokens of an answer; a correct one has at most two and an end
_COVERED = 0.125  # a patch belongs to the RoI if this share of its pixels does


@dataclass(frozen=True)
class Row:
    """What is counted of some questions; shares are fractions.

    Attributes:
        n: number of questions.
        accuracy: exact answers; majority: always the commonest training answer to the same
            words; imageless: the model itself without the image's tokens.
        in_format: answers that are possible for the kind at all (yes or no for closed ones).
        in_roi: share of the attention to the image that falls inside the RoI.
    """

    n: int
    accuracy: float
    majority: float
    imageless: float
    in_format: float
    in_roi: float


class Majority:
    """Answers with the commonest training answer to the same words.

    Args:
        scenes: to draw training questions from; count: how many.
    """

    def __init__(self, scenes: Sequence[Scene], count: int = 40_000) -> None:
        stream = Stream(5, len(scenes))
        answers: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.known: defaultdict[str, set[str]] = defaultdict(set)
        for _ in range(count):
            kind = stream.choose(KINDS)
            question = ask(
                stream.choose(scenes),
                kind,
                stream,
                phrasing=stream.below(TRAINED_PHRASINGS),
                want=stream.random(),
            )
            if question is not None:
                answers[question.text][question.answer] += 1
                answers[question.kind][question.answer] += 1
                self.known[question.kind].add(question.answer)
        self._best = {text: counts.most_common(1)[0][0] for text, counts in answers.items()}

    def answer(self, question: Question) -> str:
        """Return the commonest answer to the words, or to the kind where they are new."""
        return self._best.get(question.text, self._best[question.kind])


@torch.no_grad()
def answers(
    model: LlavaForConditionalGeneration,
    questions: Sequence[Question],
    features: Tensor | None,
    encoder: Encoder,
) -> list[str]:
    """Return the greedy answers.

    Args:
        features: the tower's output for each question's image, [questions, 64, width]; None
            leaves the image's tokens out of the prompt.
    """
    decoder = tokenizer()
    found = [""] * len(questions)
    language, embed = model.model.language_model, model.get_input_embeddings()
    for rows in _equally_long(questions, encoder):
        inputs = prompt_embeddings(model, [questions[row] for row in rows], encoder, features, rows)
        tokens: list[Tensor] = []
        output = language(inputs_embeds=inputs, use_cache=True)
        for _ in range(_LONGEST):
            token = model.lm_head(output.last_hidden_state[:, -1]).argmax(-1)
            tokens.append(token)
            output = language(
                inputs_embeds=embed(token)[:, None],
                past_key_values=output.past_key_values,
                use_cache=True,
            )
        for row, ids in zip(rows, torch.stack(tokens, 1).tolist(), strict=True):
            end = ids.index(encoder.words.end) if encoder.words.end in ids else len(ids)
            found[row] = str(decoder.decode(ids[:end]))
    return found


@torch.no_grad()
def attention_in(
    model: LlavaForConditionalGeneration,
    questions: Sequence[Question],
    features: Tensor,
    given: Sequence[str],
    masks: Sequence[Mask],
    encoder: Encoder,
) -> list[float]:
    """Return the share of visual attention inside each RoI.

    Averaged over all layers and heads and over the positions that produce the answer's tokens,
    the end token included; `given` are the answers whose production is looked at.
    """
    shares = [0.0] * len(questions)
    prefix = encoder.words.prefix
    visual = slice(prefix - TOKENS, prefix)
    text_model = model.model.language_model
    before = text_model.config._attn_implementation
    text_model.set_attn_implementation("eager")
    for rows in _equally_long(questions, encoder, given):
        batch = [questions[row] for row in rows]
        inputs = prompt_embeddings(model, batch, encoder, features, rows)
        answer_ids = torch.tensor([encoder(given[row]) for row in rows], dtype=torch.long)
        first = inputs.shape[1] - 1
        if answer_ids.numel():
            spoken = model.get_input_embeddings()(answer_ids)
            inputs = torch.cat([inputs, spoken], dim=1)
        outputs = text_model(inputs_embeds=inputs, output_attentions=True, use_cache=False)
        weights = torch.stack(outputs.attentions)[:, :, :, first:, visual]
        inside = torch.stack([patches_in(masks[row]) for row in rows])
        total = weights.sum(-1).clamp_min(1e-12)  # a head may look at the text alone
        share = (weights * inside[None, :, None, None]).sum(-1) / total
        for row, value in zip(rows, share.mean((0, 2, 3)).tolist(), strict=True):
            shares[row] = value
    text_model.set_attn_implementation(before)
    return shares


def patches_in(mask: Mask) -> Tensor:
    """Return which patches belong to an RoI, float32 [64]; never none for a mask not empty."""
    cover = mask.reshape(GRID, PATCH, GRID, PATCH).mean((1, 3)).reshape(TOKENS)
    inside = cover >= min(_COVERED, cover.max())
    return torch.from_numpy(inside & (cover > 0)).float()


def evaluate(
    model: LlavaForConditionalGeneration,
    items: Sequence[Item],
    features: Tensor,
    majority: Majority,
) -> dict[str, dict[str, float]]:
    """Return a `Row` by kind, and for closed, open and all questions, as plain dictionaries.

    Args:
        features: of the items' images, in the order of `Item.number`.
    """
    encoder = Encoder(tokenizer())
    questions = [item.question for item in items]
    of_item = features[[item.number for item in items]].float()
    given = answers(model, questions, of_item, encoder)
    imageless = answers(model, questions, None, encoder)
    masks = [region_mask(i.scene, i.question.organs, i.question.lesions) for i in items]
    shares = attention_in(model, questions, of_item, given, masks, encoder)
    columns = np.array(
        [
            (
                answer == question.answer,
                majority.answer(question) == question.answer,
                blind == question.answer,
                answer in majority.known[question.kind],
                share,
            )
            for question, answer, blind, share in zip(
                questions, given, imageless, shares, strict=True
            )
        ]
    )
    groups = {kind: [q.kind == kind for q in questions] for kind in KINDS}
    groups["closed"] = [q.kind in CLOSED for q in questions]
    groups["open"] = [q.kind not in CLOSED for q in questions]
    groups["new phrasing"] = [q.phrasing >= TRAINED_PHRASINGS for q in questions]
    groups["all"] = [True] * len(questions)
    return {
        name: asdict(Row(sum(chosen), *np.round(columns[chosen].mean(0), 4).tolist()))
        for name, chosen in groups.items()
        if any(chosen)
    }


def table(scores: dict[str, dict[str, float]]) -> str:
    """Return the scores as a table in percent."""
    names = ("accuracy", "majority", "imageless", "in_format", "in_roi")
    lines = [f"{'kind':<14}{'n':>6}" + "".join(f"{name:>11}" for name in names)]
    for kind, row in scores.items():
        values = "".join(f"{100 * row[name]:>11.1f}" for name in names)
        lines.append(f"{kind:<14}{int(row['n']):>6}{values}")
    return "\n".join(lines)


def prompt_embeddings(
    model: LlavaForConditionalGeneration,
    questions: Sequence[Question],
    encoder: Encoder,
    features: Tensor | None,
    rows: Sequence[int],
) -> Tensor:
    """Return the embedded prompts of equally long questions, [questions, length, width]."""
    embed = model.get_input_embeddings()
    asked = [(*encoder(q.text), *encoder.words.before_answer) for q in questions]
    parts = [embed(torch.tensor(encoder.words.before_image)).expand(len(questions), -1, -1)]
    if features is not None:
        parts.append(model.model.multi_modal_projector(features[list(rows)]))
    parts.append(embed(torch.tensor(asked)))
    return torch.cat(parts, dim=1)


def _equally_long(
    questions: Sequence[Question], encoder: Encoder, given: Iterable[str] | None = None
) -> Iterator[list[int]]:
    """Yield rows whose texts have the same lengths, so that no padding is needed."""
    texts = given if given is not None else [""] * len(questions)
    groups: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for row, (question, text) in enumerate(zip(questions, texts, strict=True)):
        groups[len(encoder(question.text)), len(encoder(text))].append(row)
    for rows in groups.values():
        for start in range(0, len(rows), _BATCH):
            yield rows[start : start + _BATCH]
