"""Prompts: token ids with the image's place in them, ready for the language model."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Prompt:
    """One input sequence; what a branch of a decoder edits.

    Attributes:
        ids: int64 [T]; at visual positions the value is a placeholder and never looked up.
        visual: bool [T], where the image's features stand.
        question: bool [T], the user's own words (no template, no image).
        features: [N, width] projected image features in order, N = visual positions; None
            without an image.
        passes: how often it ran through the language model before it was as it is.
    """

    ids: Tensor
    visual: Tensor
    question: Tensor
    features: Tensor | None = None
    passes: int = 0

    def __post_init__(self) -> None:
        expected = 0 if self.features is None else len(self.features)
        if int(self.visual.sum()) != expected:
            raise ValueError(f"{int(self.visual.sum())} image positions, {expected} features")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def text_ids(self) -> list[int]:
        """The ids of the prompt's text, in order."""
        return self.ids[~self.visual].tolist()

    @property
    def image(self) -> Tensor:
        """The image's features.

        Raises:
            ValueError: there is no image.
        """
        if self.features is None:
            raise ValueError("a prompt with no image has no features")
        return self.features

    def without_image(self) -> Prompt:
        """Return the same prompt with the image's positions taken out."""
        text = ~self.visual
        return Prompt(self.ids[text], self.visual[text], self.question[text])

    def only_question(self, begin: int | None) -> Prompt:
        """Return the user's own words alone, behind the token that begins a text, if any."""
        asked = self.ids[self.question]
        ids = asked if begin is None else torch.cat([asked.new_tensor([begin]), asked])
        own = torch.arange(len(ids), device=ids.device) >= len(ids) - len(asked)
        return Prompt(ids, torch.zeros_like(own), own)

    def with_features(self, features: Tensor) -> Prompt:
        """Return the prompt with other features; their number may differ from today's."""
        if self.features is not None and len(features) == len(self.features):
            return replace(self, features=features)
        if not self.visual.any():
            raise ValueError("a prompt with no image has no place for features")
        first = int(self.visual.nonzero()[0])
        text = ~self.visual
        before = int(text[:first].sum())
        placeholder = self.ids[first : first + 1].expand(len(features))
        seen = torch.ones_like(placeholder, dtype=torch.bool)
        return Prompt(
            _insert(self.ids[text], before, placeholder),
            _insert(self.visual[text], before, seen),
            _insert(self.question[text], before, ~seen),
            features,
        )


def _insert(values: Tensor, at: int, extra: Tensor) -> Tensor:
    return torch.cat([values[:at], extra, values[at:]])
