"""Greedy decoding: the likeliest token at every step, nothing added."""

from medbench.method import Decoder


class Greedy(Decoder):
    """Greedy decoding: take the likeliest token at every step."""

    name = "greedy"
