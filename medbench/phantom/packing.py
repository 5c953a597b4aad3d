"""Several questions about an image in one row: each sees the image and itself only.

Packing costs one visual prefix for ten questions. Positions start again at every question, so
the model computes exactly what it would for each question alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from medbench.phantom.model import PROMPT, SPECIAL, TOKENS

IGNORED = -100


@dataclass(frozen=True)
class Words:
    """Token ids of the template's parts."""

    before_image: tuple[int, ...]
    before_answer: tuple[int, ...]
    end: int

    @property
    def prefix(self) -> int:
        """Number of positions before the question."""
        return len(self.before_image) + TOKENS


@dataclass(frozen=True)
class Packed:
    """A batch of packed rows; positions count from the first token after the image.

    Attributes:
        ids, labels: int64 [rows, length]; a label stands where its token is predicted.
        turns: int64 [rows, length], the question a token belongs to; -1 is padding.
        positions: int64 [rows, prefix + length].
        mask: float32 [rows, 1, prefix + length, prefix + length], 0 or -inf-like.
    """

    ids: Tensor
    labels: Tensor
    turns: Tensor
    positions: Tensor
    mask: Tensor


class Encoder:
    """Turns texts of the phantom world into token ids by table look-up.

    Args:
        tokenizer: of the model; asked once for each different text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        before, after = PROMPT.split("{question}")
        self._tokenizer = tokenizer
        self._known: dict[str, tuple[int, ...]] = {}
        before_image = (SPECIAL.index("<s>"), *self(before.replace("<image>", "")))
        self.words = Words(before_image, self(after), SPECIAL.index("</s>"))

    def __call__(self, text: str) -> tuple[int, ...]:
        """Return the ids of a text without begin or end token."""
        if text not in self._known:
            ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
            self._known[text] = tuple(ids)
        return self._known[text]


def pack(rows: Sequence[Sequence[tuple[str, str]]], encoder: Encoder) -> Packed:
    """Pack each row's (question, answer) pairs behind one image prefix."""
    ids, labels, turns, places = [], [], [], []
    for row in rows:
        row_ids: list[int] = []
        row_labels: list[int] = []
        row_turns: list[int] = []
        row_places: list[int] = []
        for turn, (question, answer) in enumerate(row):
            asked = (*encoder(question), *encoder.words.before_answer)
            given = (*encoder(answer), encoder.words.end)
            tokens = (*asked, *given[:-1])
            row_ids += tokens
            row_labels += [IGNORED] * (len(asked) - 1) + list(given)
            row_turns += [turn] * len(tokens)
            row_places += range(len(tokens))
        ids.append(row_ids)
        labels.append(row_labels)
        turns.append(row_turns)
        places.append(row_places)
    prefix = encoder.words.prefix
    turn_ids = _pad(turns, -1)
    positions = torch.cat(
        [torch.arange(prefix).expand(len(rows), -1), prefix + _pad(places, 0)], dim=1
    )
    return Packed(_pad(ids, 0), _pad(labels, IGNORED), turn_ids, positions, _mask(turn_ids, prefix))


def _pad(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    length = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (length - len(row))] for row in rows])


def _mask(turns: Tensor, prefix: int) -> Tensor:
    rows, length = turns.shape
    whole = torch.cat([torch.full((rows, prefix), -2), turns], dim=1)
    same = whole[:, :, None] == whole[:, None, :]
    same[:, :, :prefix] = True
    seen = same & torch.ones(prefix + length, prefix + length, dtype=torch.bool).tril()
    mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    return mask[:, None]
