"""A row stack of one sample's beams that can look one token ahead and go back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from medbench.decoding.cache import keep_column
from medbench.decoding.reading import Reading
from medbench.decoding.stack import RowStack
from medbench.model.attention import AttentionProbe
from medbench.model.llava import Backbone
from medbench.model.prompt import Prompt


@dataclass(frozen=True)
class Proposals:
    """What the model would say and look at after each of a beam's K candidates.

    Attributes:
        logits: float32 [beams, K, vocabulary].
        rows: float32 [beams, heads, K, T + 1], attention of the candidates in the last layer: on
            the T tokens before them, and on themselves.
        attention: float32 [beams, K, N], on the image, averaged over layers and heads; None
            unless read.
    """

    logits: Tensor
    rows: Tensor
    attention: Tensor | None


class BeamStack(RowStack):
    """Beams of one sample, all of one length, so that no row is padded.

    Args:
        width: number of beams; all begin as the prompt.
    """

    def __init__(
        self, backbone: Backbone, prompt: Prompt, width: int, reading: Reading | None = None
    ) -> None:
        super().__init__(backbone, [prompt], reading)
        self._proposed: Proposals | None = None
        self.keep(self.lengths.new_zeros(width))

    def propose(self, candidates: Tensor) -> Proposals:
        """Look one token ahead, int64 [beams, K], in one pass; nothing is appended yet.

        The candidates of a beam stand at the same position, and see what is before them and
        themselves, but not each other.
        """
        beams, count = candidates.shape
        before = self.mask.shape[1]
        own = torch.eye(count, dtype=torch.bool, device=candidates.device)
        past = self.mask[:, None, :].expand(beams, count, before)
        mask = torch.cat([past, own.expand(beams, count, count)], dim=2)[:, None]
        queries = torch.arange(count, device=candidates.device).expand(beams, count)
        last: list[Tensor] = []
        seen: list[Tensor] = []
        final = (self.backbone.layers - 1,)
        probes = [AttentionProbe(queries, None, lambda _, rows: last.append(rows), final)]
        if self.attention is not None:
            probes.append(self.image_probe(queries, seen))
        output = self.forward(
            self.backbone.language_model.get_input_embeddings()(candidates),
            self.lengths[:, None].expand(beams, count),
            mask=mask,
            probes=probes,
            logits=count,
        )
        self.forwards += beams * count
        [rows] = last
        itself = rows[..., before:].diagonal(dim1=2, dim2=3)[..., None]
        self._proposed = Proposals(
            output.logits.float(),
            torch.cat([rows[..., :before], itself], dim=-1),
            torch.stack(seen).mean(0) if seen else None,
        )
        return self._proposed

    def accept(self, parents: Tensor, choices: Tensor) -> None:
        """Go on with these proposals: of which beam, and which of its candidates; int64 [beams]."""
        made = self._proposed
        assert made is not None, "propose() comes before accept()"
        self.keep(parents, same_prompts=True)
        keep_column(self.cache, self.mask.shape[1], choices)
        self._widen(1)
        self.lengths = self.lengths + 1
        self.logits = made.logits[parents, choices]
        if self.attention is not None and made.attention is not None:
            self._see(made.attention[parents, choices])
        self._proposed = None

    def discard(self) -> None:
        """Forget the proposals."""
        self.cache.crop(self.mask.shape[1] - self.cache.get_seq_length())
        self._proposed = None

    def rewind(self, tokens: Tensor, attention: Tensor | None) -> None:
        """Go back to beams that held these tokens, int64 [beams, n], n at least 1.

        The prompt's keys and values stay; what followed is computed again in one pass.

        Args:
            attention: what the stack's was then.
        """
        self.discard()
        self.cache.crop(self.prompt_width - self.mask.shape[1])
        self.mask = self.mask[:, : self.prompt_width]
        self._visual = self._visual[:, : self.prompt_width]
        self.lengths = torch.full_like(self.lengths, self.prompt_width)
        self.append(tokens)
        self.attention = attention
