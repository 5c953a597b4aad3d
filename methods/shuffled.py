"""Control: answer from another sample's image."""

from dataclasses import dataclass

from medbench.method import Decoder


@dataclass(frozen=True)
class Shuffled(Decoder):
    """Control: greedy decoding with the image of another sample of the same split.

    Which one is drawn once per run seed, never an image of the same group. The prompt keeps its
    length, unlike under `blind`, so what is lost is what this image said.
    """

    name = "shuffled"

    image = "other"
