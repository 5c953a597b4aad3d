"""Nucleus sampling: draw from the likeliest tokens that make up 90 percent."""

from dataclasses import dataclass
from typing import Literal

from medbench.method import Decoder


@dataclass(frozen=True)
class Nucleus(Decoder):
    """Nucleus sampling: draw from the smallest set of tokens that holds probability top_p.

    Every sample draws from a generator of its own, so order and batch size do not matter.
    """

    name = "nucleus"
    paper = "Holtzman et al. 2020; top_p 0.9 as in A3Tune, Appendix B"

    select: Literal["preset", "argmax", "sample"] = "sample"
    top_p: float = 0.9
