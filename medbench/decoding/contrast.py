"""What the decoders share that contrast a prompt with one other prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from medbench.decoding.context import DecodeContext
from medbench.decoding.plausibility import plausible
from medbench.method import Decoder
from medbench.model.prompt import Prompt


@dataclass(frozen=True)
class Contrast(Decoder):
    """Base of decoders that contrast the prompt with a negative one, where a token is plausible.

    A subclass says what the negative prompts are and how the two branches' logits are contrasted.

    Args:
        beta: plausibility cut: tokens that the main branch gives less than beta times its best
            one's probability are barred; 0 bars none.
    """

    published = {"select": "sample", "temperature": 1.0}
    rows_per_token = "2"

    beta: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.beta <= 1:
            raise ValueError("beta lies in 0 to 1")

    def negative_prompts(self, prompts: list[Prompt], context: DecodeContext) -> list[Prompt]:
        """Return the prompts to contrast with, one a sample."""
        raise NotImplementedError

    def contrasted(self, main: Tensor, negative: Tensor, step: int) -> Tensor:
        """Return scores from the two branches' logits, each float32 [rows, vocabulary]."""
        raise NotImplementedError

    def branches(self, prompts: list[Prompt], context: DecodeContext) -> dict[str, list[Prompt]]:
        """Add the negative prompts as one branch."""
        return {"negative": self.negative_prompts(prompts, context)}

    def combine(self, logits: Mapping[str, Tensor], step: int) -> Tensor:
        """Contrast the two branches where the main one finds a token plausible."""
        main = logits["main"]
        return plausible(self.contrasted(main, logits["negative"], step), main, self.beta)
