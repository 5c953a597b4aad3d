"""Beam search: keep the five likeliest beginnings."""

from dataclasses import dataclass
from typing import Literal

from medbench.method import Decoder


@dataclass(frozen=True)
class Beam(Decoder):
    """Beam search with five beams; hypotheses compare by log-probability per generated token.

    Same tokens as transformers' `generate(num_beams=5)`. `length_norm=prompt` keeps the rules of
    its version 4.29, which favour short answers less.
    """

    name = "beam"
    paper = "Sutskever et al. 2014; five beams as in A3Tune, Appendix B"

    rows_per_token = "5 (beams)"
    extra_memory = "keys and values of every beam"

    select: Literal["preset", "argmax", "sample"] = "argmax"
    beams: int = 5
