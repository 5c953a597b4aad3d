"""Control: answer without the image."""

from dataclasses import dataclass

from medbench.decoding.context import DecodeContext
from medbench.method import Decoder
from medbench.model.prompt import Prompt


@dataclass(frozen=True)
class Blind(Decoder):
    """Control: greedy decoding of the prompt with the image taken out.

    What a model scores blind is language prior; accuracy above it comes from the image.
    """

    name = "blind"

    def prepare(self, prompts: list[Prompt], context: DecodeContext) -> list[Prompt]:
        """Take the image out of every prompt."""
        return [prompt.without_image() for prompt in prompts]
