"""Beam search: keep the five likeliest beginnings."""

from dataclasses import dataclass
from typing import Literal

from medbench.method import Decoder


@dataclass(frozen=True)
class Beam(Decoder):
    """Beam search with five beams; hypotheses compare by log-probability per generated token.

    Same tokens as transformers' `generate(num_beams=5)`. Versions before 4.38 divide by a
    length that counts the prompt as well, which favours short answers less.
    """

    name = "beam"
    paper = "Sutskever et al. 2014; five beams as in A3Tune, Appendix B"

    select: Literal["preset", "argmax", "sample"] = "argmax"
    beams: int = 5
