"""The row stack: rows of one growing batch, left-padded, with one key-value cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from medbench.decoding.cache import join_rows, keep_rows, move_rows, new_cache
from medbench.decoding.reading import Reading, early_logits, exits
from medbench.model.attention import AttentionEdit, AttentionProbe
from medbench.model.llava import Backbone
from medbench.model.prompt import Prompt
from medbench.model.rows import RowMasks, beside, left_padded, positions, where


class RowStack:
    """Rows that are decoded together: samples, branches of samples, or beams.

    Args:
        prompts: of the first rows; `join` puts further ones below them.
        reading: what to read and change; rows that join are read alike and changed in nothing.
        joins: whether the rows will join others.

    Attributes:
        logits: float32 [rows, vocabulary], of each row's last token.
        early: float32 [rows, exits, vocabulary], of its early exits; None unless read.
        attention: float32 [rows, N], visual attention of the queries that generated the tokens
            so far (the prompt's last token included), averaged over layers and heads and summed
            over the queries; [rows, queries, N], query by query, if the steps are read; None
            unless read. Rows without an image have zeros.
        prompt_attention: float32 [rows, layers, N], visual attention of the prompt's last token,
            averaged over heads; None unless read, and without the rows that joined.
        prompt_rows: float32 [rows, heads, T, T], the last layer's attention of the whole prompts;
            None unless read, and without the rows that joined.
        forwards: tokens that went through the language model so far, a prompt counting as one.
        lengths: int64 [rows], without padding; mask: bool [rows, width], all but padding; cache:
            keys and values of the same width; prompt_width: how much of that the prompts take.
    """

    def __init__(
        self,
        backbone: Backbone,
        prompts: Sequence[Prompt],
        reading: Reading | None = None,
        *,
        joins: bool = False,
    ) -> None:
        self.backbone = backbone
        self.forwards = 0
        self.early: Tensor | None = None
        self.attention: Tensor | None = None
        self.prompt_attention: Tensor | None = None
        self.prompt_rows: Tensor | None = None
        self.lengths = torch.tensor([len(prompt) for prompt in prompts], device=backbone.device)
        self.mask = left_padded([torch.ones_like(prompt.visual) for prompt in prompts])
        self.prompt_width = self.mask.shape[1]
        self.cache = new_cache()
        self._reading = reading or Reading()
        self._visual = left_padded([prompt.visual for prompt in prompts])
        self._edited = torch.full_like(self.mask[:, 0], self._reading.edit is not None)
        self._has_image = self._visual.any(1)
        self._columns = _image_columns(self._visual, backbone.image_tokens)
        question = left_padded([prompt.question for prompt in prompts])
        for state in backbone.row_states:
            state.begin(RowMasks(self.mask, self._visual, question, self.mask), joins=joins)
        embeddings = left_padded([backbone.embed(prompt) for prompt in prompts])
        self._advance(embeddings, positions(self.mask), prompt=True)
        for state in backbone.row_states:
            state.settle()

    def __len__(self) -> int:
        return len(self.lengths)

    def join(self, prompts: Sequence[Prompt]) -> None:
        """Put further rows below those there are; their prompts are computed by themselves."""
        other = RowStack(
            self.backbone,
            prompts,
            Reading(attention=self._reading.attention, readout=self._reading.readout),
            joins=True,
        )
        own, width = self.mask.shape[1], other.mask.shape[1]
        columns = self._columns + max(width - own, 0), other._columns + max(own - width, 0)
        self._columns = beside(*columns, dim=1)
        self.mask = beside(self.mask, other.mask, dim=1)
        self.prompt_width = max(own, width)
        self._visual = beside(self._visual, other._visual, dim=1)
        self._edited = torch.cat([self._edited, other._edited])
        self._has_image = torch.cat([self._has_image, other._has_image])
        self.lengths = torch.cat([self.lengths, other.lengths])
        self.logits = torch.cat([self.logits, other.logits])
        if self.early is not None and other.early is not None:
            self.early = torch.cat([self.early, other.early])
        if self.attention is not None and other.attention is not None:
            self.attention = beside(self.attention, other.attention, dim=-1)
        join_rows(self.cache, other.cache)
        self.forwards += other.forwards

    def append(self, tokens: Tensor) -> None:
        """Add new tokens to each row, int64 [rows] or [rows, new], and read the last of them."""
        tokens = tokens if tokens.dim() == 2 else tokens[:, None]
        new = tokens.shape[1]
        self._widen(new)
        steps = torch.arange(new, device=tokens.device)
        embeddings = self.backbone.language_model.get_input_embeddings()(tokens)
        self._advance(embeddings, self.lengths[:, None] + steps)
        self.lengths = self.lengths + new

    def keep(self, rows: Tensor, *, same_prompts: bool = False) -> None:
        """Keep only these rows, in this order; a row may be named more than once.

        Args:
            same_prompts: whether each comes to where a row of the same prompt stood, so that only
                new tokens have to be moved.
        """
        if same_prompts:
            move_rows(self.cache, rows, self.prompt_width)
        else:
            keep_rows(self.cache, rows)
        self.lengths, self.mask, self.logits = (
            self.lengths[rows],
            self.mask[rows],
            self.logits[rows],
        )
        self._visual, self._edited = self._visual[rows], self._edited[rows]
        self._has_image, self._columns = self._has_image[rows], self._columns[rows]
        if self.early is not None:
            self.early = self.early[rows]
        if self.attention is not None:
            self.attention = self.attention[rows]
        for state in self.backbone.row_states:
            state.keep(rows)

    def forward(
        self,
        embeddings: Tensor,
        position_ids: Tensor,
        *,
        mask: Tensor | None = None,
        probes: Sequence[AttentionProbe] = (),
        edit: AttentionEdit | None = None,
        logits: int = 1,
    ) -> Any:
        """Run new positions of all rows through the language model, behind what the cache holds.

        Args:
            embeddings: [rows, new, width]; position_ids: int64 [rows, new].
            mask: bool [rows, 1, new, all], who may see whom; None takes the stack's own mask,
                where each new position sees those before it.
            logits: of how many last positions.
        """
        arguments: dict[str, Any] = {"probes": tuple(probes)} if probes else {}
        if edit is not None:
            arguments["edit"] = edit
        return self.backbone.language_model(
            inputs_embeds=embeddings,
            attention_mask=self.mask.long() if mask is None else mask,
            position_ids=position_ids,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=logits,
            **arguments,
        )

    def image_probe(self, queries: Tensor, seen: list[Tensor]) -> AttentionProbe:
        """Return a probe that collects the queries' attention on the image, layer by layer.

        Args:
            queries: int64 [rows, Q], positions among the new ones.
            seen: receives a float32 [rows, Q, N] from each layer, averaged over heads, zeros for
                rows without an image.
        """
        has_image = self._has_image[:, None, None]
        return AttentionProbe(
            queries, self._columns, lambda _, rows: seen.append(rows.mean(1) * has_image)
        )

    def _advance(self, embeddings: Tensor, position_ids: Tensor, *, prompt: bool = False) -> None:
        """Run new positions of all rows, and take from the last one what is read of it."""
        reading, new = self._reading, embeddings.shape[1]
        probes, seen = [], list[Tensor]()
        if reading.attention or (prompt and reading.prompt_attention):
            last = torch.full_like(self.lengths[:, None], new - 1)
            probes.append(self.image_probe(last, seen))
        if prompt and reading.prompt_rows:
            everyone = torch.arange(new, device=self.lengths.device).expand(len(self), new)
            final = (self.backbone.layers - 1,)
            probes.append(AttentionProbe(everyone, None, self._take_prompt_rows, final))
        edit = None
        if reading.edit is not None and (reading.edit.prompt or not prompt):
            columns = self._visual & self._edited[:, None]
            edit = AttentionEdit(reading.edit.layers, columns, reading.edit.change)
        with exits(self.backbone, reading.readout, embeddings) as states:
            output = self.forward(embeddings, position_ids, probes=probes, edit=edit)
        # Of a model spread over several cards, the head is on another one than the embeddings.
        self.logits = output.logits[:, -1].float().to(embeddings.device)
        self.forwards += len(self) * (1 if prompt else new)
        if reading.readout is not None:
            self.early = early_logits(self.backbone, states, reading.readout).to(embeddings.device)
        if prompt and reading.prompt_attention:
            self.prompt_attention = torch.stack(seen, dim=1)[:, :, 0]
        if reading.attention:
            self._see(torch.stack(seen).mean(0)[:, 0])

    def _see(self, rows: Tensor) -> None:
        """Put the attention of the latest queries, [rows, N], to that of those before."""
        if self._reading.attention == "steps":
            before = [] if self.attention is None else [self.attention]
            self.attention = torch.cat([*before, rows[:, None]], dim=1)
        else:
            self.attention = rows if self.attention is None else self.attention + rows

    def _take_prompt_rows(self, _: int, rows: Tensor) -> None:
        self.prompt_rows = rows

    def _widen(self, by: int) -> None:
        new = self.mask.new_ones(len(self), by)
        self.mask = torch.cat([self.mask, new], dim=1)
        self._visual = torch.cat([self._visual, ~new], dim=1)


def _image_columns(visual: Tensor, image_tokens: int) -> Tensor:
    """Return where the image stands in each row, int64 [rows, N]; 0 where it does not."""
    columns, _ = where(visual)
    # Without any image, rows still get their zeros.
    return columns if columns.shape[1] else columns.new_zeros(len(visual), image_tokens)
