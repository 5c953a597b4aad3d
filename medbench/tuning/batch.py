"""Training batches: prompts with their answers, left-padded, and what stands where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from medbench.model.llava import Backbone
from medbench.model.prompt import Prompt
from medbench.model.rows import RowMasks, left_padded

IGNORE = -100


@dataclass(frozen=True)
class Example:
    """One training sample, encoded.

    Attributes:
        id: of the sample.
        prompt: with the image's features; answer: ids, the end token included.
        targets: of auxiliary losses, by name; each [k, ...], where k may be 0.
    """

    id: str
    prompt: Prompt
    answer: list[int]
    targets: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])


@dataclass(frozen=True)
class Targets:
    """Targets of one name side by side.

    Attributes:
        values: float32 [samples, k, ...], where k is the most that any sample has.
        present: bool [samples, k], which of them are real.
    """

    values: Tensor
    present: Tensor


@dataclass(frozen=True)
class TrainBatch:
    """Samples that go through the model together.

    Attributes:
        embeddings: [samples, T, width]; answers stand at the right end.
        labels: int64 [samples, T], the answer's ids at their own places, elsewhere IGNORE.
        tokens: int64 [samples, T], the ids of prompt and answer; -1 for padding and image.
        masks: what stands where.
        targets: what auxiliary losses compare with, by name.
    """

    ids: tuple[str, ...]
    embeddings: Tensor
    labels: Tensor
    tokens: Tensor
    masks: RowMasks
    targets: Mapping[str, Targets]

    @property
    def answer(self) -> Tensor:
        """Positions of answer tokens, bool [samples, T]."""
        return self.labels != IGNORE

    @property
    def after_image(self) -> Tensor:
        """Text positions after the image, answer included, bool [samples, T]."""
        seen = self.masks.visual.long().cumsum(1)
        return (seen == seen[:, -1:]) & ~self.masks.visual & self.masks.filled

    @property
    def generating(self) -> Tensor:
        """Positions whose next token is an answer token, bool [samples, T]."""
        return nn.functional.pad(self.answer[:, 1:], (0, 1)) & self.masks.filled

    @property
    def last_prompt(self) -> Tensor:
        """The prompt's last token, which generates the first answer token, bool [samples, T]."""
        return self.generating & self.masks.prompt


def collate(backbone: Backbone, examples: Sequence[Example]) -> TrainBatch:
    """Put examples side by side."""
    device = backbone.device
    embed = backbone.language_model.get_input_embeddings()
    rows, labels, tokens, prompts = [], [], [], []
    for example in examples:
        answer = torch.tensor(example.answer, device=device)
        rows.append(torch.cat([backbone.embed(example.prompt), embed(answer)]))
        # Shifted by one so that 0 can pad and stand for "no label" or "no token".
        labels.append(torch.cat([torch.zeros_like(example.prompt.ids), answer + 1]))
        written = (example.prompt.ids + 1).masked_fill(example.prompt.visual, 0)
        tokens.append(torch.cat([written, answer + 1]))
        prompts.append(torch.ones_like(rows[-1][:, 0], dtype=torch.bool))
        prompts[-1][len(example.prompt) :] = False
    padded = left_padded(labels)
    width = padded.shape[1]
    return TrainBatch(
        ids=tuple(example.id for example in examples),
        embeddings=left_padded(rows).detach(),
        labels=torch.where(padded > 0, padded - 1, IGNORE),
        tokens=left_padded(tokens) - 1,
        masks=RowMasks(
            filled=left_padded([torch.ones_like(row[:, 0], dtype=torch.bool) for row in rows]),
            visual=_prompt_mask([example.prompt.visual for example in examples], rows, width),
            question=_prompt_mask([example.prompt.question for example in examples], rows, width),
            prompt=left_padded(prompts),
        ),
        targets={
            name: _side_by_side([example.targets[name].to(device) for example in examples])
            for name in examples[0].targets
        },
    )


def _prompt_mask(masks: Sequence[Tensor], rows: Sequence[Tensor], width: int) -> Tensor:
    """Return prompt masks followed by False for the answer, left-padded."""
    whole = [
        torch.cat([mask, mask.new_zeros(len(row) - len(mask))])
        for mask, row in zip(masks, rows, strict=True)
    ]
    return left_padded(whole, width)


def _side_by_side(targets: Sequence[Tensor]) -> Targets:
    most = max(max(len(one) for one in targets), 1)
    values = targets[0].new_zeros(len(targets), most, *targets[0].shape[1:], dtype=torch.float32)
    present = torch.zeros(len(targets), most, dtype=torch.bool, device=values.device)
    for index, one in enumerate(targets):
        values[index, : len(one)] = one
        present[index, : len(one)] = True
    return Targets(values, present)
